"""Where finished parts belong in a file: which tensors each holds, that together they hold all, and their order."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from fewbits.chunk import Chunk, TensorSpec
from fewbits.container.format import MAX_PART_ELEMENTS, TensorEntry
from fewbits.container.groups import bound_log2_of
from fewbits.errors import InvalidArgument


class Placed(NamedTuple):
    """A chunk and the positions of its tensors in the file."""

    positions: tuple[int, ...]
    chunk: Chunk


def place(chunks: Iterable[Chunk], tensors: Sequence[TensorEntry], seed: int) -> list[Placed]:
    """Find each chunk's tensors, check that all are held once, and put the chunks in canonical order."""
    positions = {entry.spec.name: position for position, entry in enumerate(tensors) if entry.target is None}
    placed: list[Placed] = []
    for chunk in chunks:
        if chunk.seed != seed:
            raise InvalidArgument(f"a chunk has the seed {chunk.seed}, the file {seed}: a file has one seed.")
        placed.append(Placed(tuple(_position(spec, positions, tensors) for spec in chunk.tensors), chunk))
    placed.sort(key=_canonical_order)
    _check_coverage(placed, tensors)
    return placed


def _canonical_order(item: Placed) -> tuple[bool, int, tuple[int, ...], tuple[int, int]]:
    """Groups of smaller tensors first, then by their first member; then tensor after tensor, tile after tile.

    WIRE: a group of scalars scattered among larger tensors then takes all that are under its bound, and what
    it leaves has no holes for the groups after it.
    """
    is_group = len(item.positions) > 1
    bound = max(bound_log2_of(spec.num_elements) for spec in item.chunk.tensors) if is_group else 0
    return not is_group, bound, item.positions[:1], item.chunk.span or (0, 0)


def _position(spec: TensorSpec, positions: Mapping[str, int], tensors: Sequence[TensorEntry]) -> int:
    position = positions.get(spec.name)
    if position is None:
        raise InvalidArgument(f"a chunk holds {spec.name!r}, which is not a stored tensor of the file.")
    if tensors[position].spec != spec:
        raise InvalidArgument(f"the tensor {spec.name!r} has another dtype or shape in its chunk than in the file.")
    return position


def _check_coverage(placed: Sequence[Placed], tensors: Sequence[TensorEntry]) -> None:
    whole: set[int] = set()
    tiled: dict[int, int] = {}  # elements held so far, by tensor
    for positions, chunk in placed:
        if not positions:
            raise InvalidArgument("a chunk holds no tensor.")
        first, name = positions[0], chunk.tensors[0].name
        start, stop = chunk.span or (0, sum(spec.num_elements for spec in chunk.tensors))
        if stop - start > MAX_PART_ELEMENTS:
            raise InvalidArgument(f"the chunk that starts with {name!r} has more than 2^24 elements: cut it.")
        if any(after <= before for before, after in pairwise(positions)):
            raise InvalidArgument(
                f"the chunk that starts with {name!r} has its tensors in another order than the file."
            )
        if chunk.span is None:
            taken = [position for position in positions if position in whole]
            if taken:
                raise InvalidArgument(f"two chunks hold the tensor {tensors[taken[0]].spec.name!r}.")
            whole.update(positions)
            continue
        if len(positions) > 1:
            raise InvalidArgument(f"the chunk that starts with {name!r} has a span and several tensors.")
        if start != tiled.get(first, 0) or stop <= start:
            raise InvalidArgument(f"the tiles of the tensor {name!r} leave elements out, overlap or are empty.")
        tiled[first] = stop
    for position, entry in enumerate(tensors):
        if entry.target is not None:
            continue
        if position in whole and position in tiled:
            raise InvalidArgument(f"the tensor {entry.spec.name!r} is in a chunk of its own and in tiles.")
        if position not in whole and position not in tiled:
            raise InvalidArgument(f"no chunk holds the tensor {entry.spec.name!r}.")
        if position in tiled and tiled[position] != entry.spec.num_elements:
            raise InvalidArgument(f"the tiles of the tensor {entry.spec.name!r} do not end at its last element.")
