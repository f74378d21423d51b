"""Factors of a file, to train on, and what is beside them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fewbits.chunk import Chunk, Loss
from fewbits.methods.ecsq import steps_of
from fewbits.methods.epr import Epr
from fewbits.quantize.factors import Factors


class StartedTile(NamedTuple):
    """Factors of a tensor or of one of its tiles, and what the file says that they lost."""

    span: tuple[int, int] | None
    factors: Factors
    loss: Loss | None


class Started(NamedTuple):
    """What a file has: by tensor, factors and steps of `ecsq`; and `epr` as its levels were made, if there are any."""

    tiles: Mapping[str, Sequence[StartedTile]]
    steps: Mapping[str, float]
    rest: Epr | None


NOTHING = Started({}, {}, None)


def started_from(chunks: Sequence[Chunk], factors: Sequence[Mapping[str, Factors]]) -> Started:
    """Read what there is of all tensors; tiles are in order.

    Args:
        factors: of those parts that have some, in their order.

    Raises:
        InvalidArgument, Corrupt, Incompatible: as for `Epr.resumed`.
    """
    tiles: dict[str, list[StartedTile]] = {}
    steps: dict[str, float] = {}
    found = iter(factors)
    for chunk in chunks:
        if chunk.method == "ecsq":
            steps |= steps_of(chunk)
        elif chunk.method == "qswd":
            losses = chunk.losses or (None,) * len(chunk.tensors)
            for (name, each), loss in zip(next(found).items(), losses, strict=True):
                tiles.setdefault(name, []).append(StartedTile(chunk.span, each, None if chunk.span else loss))
    for parts in tiles.values():
        parts.sort(key=lambda tile: tile.span or (0, 0))
    levels = [chunk for chunk in chunks if chunk.method == "epr"]
    return Started(tiles, steps, Epr.resumed(levels) if levels else None)
