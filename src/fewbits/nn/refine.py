"""The rate-distortion pass at export: levels moved towards 0 where the loss rises less than the bits are worth.

Moves are ranked by a model of the loss, its gradient and the diagonal of the empirical Fisher matrix in units of
levels, and of the rate, the adaptive counts. Then they are made, the best ones first, as many at a time as the loss and
the size that really come out allow.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.models.adaptive_counts import AdaptiveCounts, Layout
from fewbits.nn.latent_tensor import LatentTensor

_FIRST_SHARE = 0.02  # of the promising moves that are made at once: single gains do not add up
_MOST_SHARE = 0.25
_TRIALS, _MOST_TRIALS = 60, 400  # of moves made and measured: without and with a budget that is not met yet
_LEAST_PRICE = 1e-8  # nats a bit
_NEAR = 0.99  # of a budget: moves that land below are undone, and fewer are made


class Refined(NamedTuple):
    """What a pass did: mean loss and bytes before and after, and how many levels moved."""

    loss_before: float
    loss_after: float
    bytes_before: int
    bytes_after: int
    num_moves: int


class _Moves(NamedTuple):
    """Moves of single levels, the most promising first: the tensor, the flat place in it, and by what."""

    tensor: NDArray[np.int64]
    place: NDArray[np.int64]
    change: NDArray[np.int64]


def refine(
    latents: Sequence[LatentTensor],
    batch_losses: Sequence[Callable[[], Tensor]],
    mean_loss: Callable[[], float],
    num_bytes: Callable[[], int],
    nats_per_bit: float,
    batch_size: int,
    budget: int | None,
) -> Refined:
    """Move levels while loss + nats_per_bit × bits falls; with a budget, only until the size is within it.

    Args:
        latents: at levels and steps that a file can hold (`LatentTensor.settle`).
        batch_losses: mean losses of batches of the same size, differentiable in the latents.
        mean_loss: of all batches, as decoding would give it.
        num_bytes: of a file, now.
        batch_size: examples in a batch.
    """
    loss, size = mean_loss(), num_bytes()
    before, moved, share, price, count = (loss, size), 0, _FIRST_SHARE, nats_per_bit, 0
    moves: _Moves | None = None
    for trial in range(_MOST_TRIALS):
        over = budget is not None and size > budget
        if not over and (budget is not None or trial >= _TRIALS):
            break
        if moves is None:
            moves = _ranked(latents, batch_losses, price, batch_size)
            count = math.ceil(share * len(moves.place))
        if over and not count:  # what is worth moving is moved: bits must be dearer
            moves, price, share = None, 1.5 * price + _LEAST_PRICE, _FIRST_SHARE
            continue
        if not count:
            break
        held = [one.integers()[0] for one in latents]
        _make(latents, held, moves, count)
        new_loss, new_size = mean_loss(), num_bytes()
        if over and budget is not None and new_size < _NEAR * budget and count > 1:
            _put_back(latents, held)
            # As many as the budget asks for if all gain alike, and fewer than just now whatever they gain.
            count = min(count - 1, math.ceil(count * (size - budget) / (size - new_size)))
            continue
        if new_loss + 8 * price * new_size < loss + 8 * price * size:
            loss, size, moved = new_loss, new_size, moved + count
            moves, share = None, min(_MOST_SHARE, 2 * count / len(moves.place))
            continue
        _put_back(latents, held)
        if count == 1 and not over:
            break
        count = count // 3 if over else math.ceil(count / 3)
    return Refined(before[0], loss, before[1], size, moved)


def _ranked(
    latents: Sequence[LatentTensor], batch_losses: Sequence[Callable[[], Tensor]], price: float, batch_size: int
) -> _Moves:
    """All moves of one level, one towards 0, that the models think worth it.

    Not away from 0: there are always many that lower the loss of these examples a little, and none of others.
    """
    parameters = [one.latents for one in latents]
    slopes = [torch.zeros_like(parameter) for parameter in parameters]
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    for batch_loss in batch_losses:
        found = torch.autograd.grad(batch_loss(), parameters, allow_unused=True, materialize_grads=True)
        for slope, square, gradient in zip(slopes, squares, found, strict=True):
            slope += gradient / len(batch_losses)
            square += gradient.square() / len(batch_losses)
    gains: list[NDArray[np.float64]] = []
    places: list[NDArray[np.int64]] = []
    changes: list[NDArray[np.int64]] = []
    for one, slope, square in zip(latents, slopes, squares, strict=True):
        levels = torch.from_numpy(one.integers()[0]).to(slope.device).to(slope.dtype)
        bits = _rate_of(one, levels)
        by = -levels.sign()
        # PAPER: a second-order expansion with the Fisher diagonal, as in optimal brain damage (LeCun et al. 1990).
        # Gradients of batches scatter by 1 / batch size of the Fisher matrix: times the size gives it back.
        # A slope that promises a lower loss is not believed: among thousands those that overfit would be chosen.
        rise = (slope * by).clamp(min=0) + 0.5 * batch_size * square
        best = torch.where(by == 0, -math.inf, price * (bits(levels) - bits(levels + by)) - rise)
        flat = best.reshape(-1)
        chosen = torch.nonzero(flat > 0).reshape(-1)
        gains.append(flat[chosen].double().cpu().numpy())
        places.append(chosen.cpu().numpy())
        changes.append(by.reshape(-1)[chosen].long().cpu().numpy())
    tensors = np.repeat(np.arange(len(latents)), [len(place) for place in places])
    order = np.argsort(-np.concatenate(gains), kind="stable") if gains else np.zeros(0, np.int64)
    return _Moves(tensors[order], np.concatenate(places)[order], np.concatenate(changes)[order])


def _rate_of(one: LatentTensor, levels: Tensor) -> Callable[[Tensor], Tensor]:
    """Bits of each level by adaptive counts, whatever the entropy model that it was trained with."""
    if isinstance(one.density, AdaptiveCounts):
        one.density.refresh(levels)
        return one.density.bits
    rows = levels.shape[0] if levels.ndim > 1 else 1
    return AdaptiveCounts(levels, Layout(rows, levels.numel() // max(rows, 1), 1)).to(levels.device).bits


def _put_back(latents: Sequence[LatentTensor], held: Sequence[NDArray[np.int64]]) -> None:
    for one, levels in zip(latents, held, strict=True):
        one.set_levels(levels)


def _make(latents: Sequence[LatentTensor], held: Sequence[NDArray[np.int64]], moves: _Moves, count: int) -> None:
    for index, (one, levels) in enumerate(zip(latents, held, strict=True)):
        own = moves.tensor[:count] == index
        if own.any():
            moved = levels.copy().reshape(-1)
            moved[moves.place[:count][own]] += moves.change[:count][own]
            one.set_levels(moved.reshape(levels.shape))
