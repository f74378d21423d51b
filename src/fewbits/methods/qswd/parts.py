"""Parts of a file from tensors whose factors are described."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.method import Method
from fewbits.methods.qswd.payload import Coded, write


class Written(NamedTuple):
    """A tensor's factors, or those of its tiles, as they are written, and what they lost."""

    spec: TensorSpec
    spans: Sequence[tuple[int, int] | None]
    coded: Sequence[Coded]
    losses: Sequence[Loss]


def chunks_of(method: Method, unit: Sequence[Written], seed: int) -> Iterator[Chunk]:
    """Yield the parts of a unit's tensors: one of all, or one for each tile of a large one."""
    if len(unit) == 1:
        ((spec, *tiles),) = unit
        for span, coded, loss in zip(*tiles, strict=True):
            yield _chunk(method, [spec], [coded], [loss], seed, span)
    elif unit:
        coded, losses = [one.coded[0] for one in unit], [one.losses[0] for one in unit]
        yield _chunk(method, [one.spec for one in unit], coded, losses, seed, None)


def _chunk(
    method: Method,
    specs: Sequence[TensorSpec],
    coded: Sequence[Coded],
    losses: Sequence[Loss],
    seed: int,
    span: tuple[int, int] | None,
) -> Chunk:
    payload, config = write(coded), method.config.to_json()
    return Chunk(method.id, method.payload_version, config, seed, tuple(specs), payload, span, tuple(losses))


def noted(chunk: Chunk, notes: Mapping[str, str]) -> Chunk:
    """Return a part whose tensors say why they are in it, where they do not already."""
    losses = tuple(
        loss if loss.note else loss._replace(note=notes.get(spec.name, ""))
        for spec, loss in zip(chunk.tensors, chunk.losses, strict=True)
    )
    return chunk._replace(losses=losses)
