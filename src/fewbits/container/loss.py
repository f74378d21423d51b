"""What tensors lost and cost, from the sums that chunks carry to the record in the header."""

import math
from collections.abc import Sequence

from fewbits.chunk import Chunk, Loss
from fewbits.container.format import TensorEntry, TensorLoss
from fewbits.errors import InvalidArgument

LOSS_MANTISSA = 8  # significant bits of a recorded relative error: within 0.4 %, 3 to 5 bytes of CBOR, not 9


def total_losses(
    placed: Sequence[tuple[tuple[int, ...], Chunk]], tensors: Sequence[TensorEntry]
) -> tuple[TensorLoss | None, ...] | None:
    """Add up the losses of chunks, each with its tensors' positions, by tensor; None if no chunk has any.

    Raises:
        InvalidArgument: a loss is missing, or is no number of at least 0.
    """
    sums: dict[int, list[Loss]] = {}
    for positions, chunk in placed:
        if chunk.losses and len(chunk.losses) != len(positions):
            raise InvalidArgument(f"the chunk of {chunk.tensors[0].name!r} does not have one loss a tensor.")
        for position, loss in zip(positions, chunk.losses, strict=False):
            sums.setdefault(position, []).append(loss)
    if not sums:
        return None
    if not all(chunk.losses for _, chunk in placed):
        raise InvalidArgument("some chunks have losses and some have none.")
    return tuple(
        None if entry.target is not None else _total_loss(entry.spec.name, sums[position])
        for position, entry in enumerate(tensors)
    )


def _total_loss(name: str, losses: Sequence[Loss]) -> TensorLoss:
    # NUMERICS: fsum's result does not depend on how tiles are ordered.
    squared_error = math.fsum(loss.squared_error for loss in losses)
    bits = math.fsum(loss.bits for loss in losses)
    if not (math.isfinite(bits) and bits >= 0 and squared_error >= 0):
        raise InvalidArgument(f"the losses of the tensor {name!r} are not numbers of at least 0.")
    energy = math.fsum(loss.energy for loss in losses)
    if squared_error == 0:
        relative_error = 0.0
    elif energy > 0 and math.isfinite(squared_error):
        relative_error = math.sqrt(squared_error / energy)
    else:
        relative_error = math.inf
    notes = dict.fromkeys(loss.note for loss in losses if loss.note)
    return TensorLoss(_shorten(relative_error), round(bits), "; ".join(notes))


def _shorten(value: float) -> float:
    """Round to `LOSS_MANTISSA` significant bits."""
    if not math.isfinite(value):
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, LOSS_MANTISSA)), exponent - LOSS_MANTISSA)
