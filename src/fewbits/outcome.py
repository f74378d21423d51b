"""From what was written to the report on it."""

import math
from collections.abc import Sequence

from fewbits.chunk import Chunk, Loss
from fewbits.methods.lossless import Lossless
from fewbits.report import Report, TensorReport
from fewbits.sources import Checkpoint


def lossy_rate(chunks: Sequence[Chunk]) -> float:
    """Payload bits a lossily coded weight."""
    lossy = [chunk for chunk in chunks if chunk.method != Lossless.id]
    return 8 * sum(len(chunk.payload) for chunk in lossy) / max(1, sum(map(_num_elements, lossy)))


def _num_elements(chunk: Chunk) -> int:
    if chunk.span is not None:
        return chunk.span[1] - chunk.span[0]
    return sum(spec.num_elements for spec in chunk.tensors)


def _relative(squared_error: float, energy: float) -> float:
    if squared_error == 0:
        return 0.0
    return math.sqrt(squared_error / energy) if energy > 0 else math.inf


def report_of(
    path: str,
    size: int,
    checkpoint: Checkpoint,
    chunks: Sequence[Chunk],
    rate_weight: float | None,
    seconds: float,
) -> Report:
    """Sum up a file's chunks; relative errors are over what was coded lossily."""
    losses: dict[str, Loss] = {}
    methods: dict[str, str] = {}
    for chunk in chunks:
        for spec, loss in zip(chunk.tensors, chunk.losses, strict=True):
            before = losses.get(spec.name, Loss(0.0, 0.0, 0.0))
            sums = (before.squared_error + loss.squared_error, before.energy + loss.energy, before.bits + loss.bits)
            losses[spec.name] = Loss(*sums, loss.note or before.note)
            methods[spec.name] = chunk.method
    tensors = tuple(
        TensorReport(
            name=entry.spec.name,
            dtype=entry.spec.dtype,
            shape=entry.spec.shape,
            method=methods[entry.spec.name],
            size_bits=losses[entry.spec.name].bits,
            relative_error=_relative(losses[entry.spec.name].squared_error, losses[entry.spec.name].energy),
            note=losses[entry.spec.name].note,
        )
        for entry in checkpoint.entries
        if entry.target is None
    )
    worst = max(tensors, key=lambda tensor: tensor.relative_error)
    total = [sum(getattr(loss, field) for loss in losses.values()) for field in ("squared_error", "energy", "bits")]
    return Report(
        path=path,
        size=size,
        source_size=checkpoint.num_bytes,
        num_weights=sum(_num_elements(chunk) for chunk in chunks if chunk.method != Lossless.id),
        bits_per_weight=lossy_rate(chunks),
        estimated_bits=total[2],
        actual_bits=8 * sum(len(chunk.payload) for chunk in chunks),
        overall_error=_relative(total[0], total[1]),
        worst_tensor=worst.name,
        worst_error=worst.relative_error,
        seconds=seconds,
        rate_weight=rate_weight,
        tensors=tensors,
    )
