"""The adaptive rate: what an adaptive coder would spend on the integers around a latent, by counts and no network.

Counts of what is not zero, by row and by column or slice, give each element a probability of not being zero;
magnitudes are geometric. Between integers the code length is linear, which is its mean under stochastic rounding, so
its slope is known wherever a latent is: the gradient is that slope, and weak rows and columns starve on their own.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewbits.models.entropy_model import EntropyModel

_LEAST, _GREATEST = 5e-4, 0.9  # probabilities of not being zero
_LEAST_MORE, _GREATEST_MORE = 0.02, 0.95  # probabilities of being greater than a magnitude
_LEAST_SLOPE = 0.2  # bits: what is almost always there is still not free


class Layout(NamedTuple):
    """How latents (rows, slices × inner) are counted: rows and columns, or rows and slices of more than one column."""

    rows: int
    slices: int
    inner: int


class _CodeLength(torch.autograd.Function):
    """Sum of zero + first × min(|v|, 1) + further × max(|v| - 1, 0), and its slopes, found on the way.

    NUMERICS: on a CPU comparisons and masks take five times as long as arithmetic, so `beyond` is a number.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, zero: Tensor, first: Tensor, further: Tensor) -> Tensor:
        beyond = values.abs().clamp_(max=1).floor_()  # 1 where |v| is at least 1, else 0
        slope = torch.lerp(first, further.expand_as(first), beyond).mul_(values.sign())
        ctx.save_for_backward(slope)
        # Where |v| is at least 1, slope × v is further × |v|: first - further is missing.
        missing = torch.dot(beyond.reshape(-1), first.reshape(-1)) - further * beyond.sum()
        return zero + torch.dot(slope.reshape(-1), values.reshape(-1)) + missing

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad_outputs[0], None, None, None


class AdaptiveCounts(EntropyModel):
    """Code length under row, column and slice counts, refreshed from the latents now and then; nothing is trained.

    Unlike a density it takes the values themselves, without noise. `zero` and `first`, shaped like the latents, are the
    bits of a 0 and of what a magnitude of 1 costs more; `further`, (), of each step beyond.
    """

    takes_noise = False
    zero: Tensor
    first: Tensor
    further: Tensor
    total_zero: Tensor

    def __init__(self, values: Tensor, layout: Layout) -> None:
        """Count latents of any shape with as many elements as the layout."""
        super().__init__()
        self.layout = layout
        for name in ("zero", "first"):
            self.register_buffer(name, torch.zeros(values.shape, dtype=torch.float32, device=values.device))
        self.register_buffer("total_zero", torch.zeros((), dtype=torch.float32, device=values.device))
        self.register_buffer("further", torch.ones((), dtype=torch.float32, device=values.device))
        self.refresh(values)

    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value under stochastic rounding, by the counts of the last refresh."""
        magnitude = values.abs()
        return self.zero + self.first * magnitude.clamp(max=1) + self.further * (magnitude - 1).clamp(min=0)

    def total_bits(self, values: Tensor) -> Tensor:
        """Return the sum of `bits`, ()."""
        return _CodeLength.apply(values, self.total_zero, self.first, self.further)

    @torch.no_grad()
    def refresh(self, values: Tensor) -> None:
        """Count latents again, rounded: same shape as at first."""
        rows, slices, inner = self.layout
        if not values.numel():
            return
        magnitude = values.detach().to(torch.float32).round().abs().reshape(rows, slices, inner)
        present = (magnitude > 0).to(torch.float32)
        probability = self._present_probability(present).clamp_(_LEAST, _GREATEST)
        total = present.sum() + 1
        more = (magnitude - 1).clamp_(min=0).sum()
        # A geometric magnitude ends after each step with the same probability; the halves keep few counts honest.
        goes_on = ((more + 0.5) / (more + total + 1)).clamp_(_LEAST_MORE, _GREATEST_MORE)
        zero = -torch.log2(1 - probability)
        one = 1 - torch.log2(probability) - torch.log2(1 - goes_on)  # its sign is a bit
        # New tensors, not new values: a draw made before may still have to go backward through the old ones.
        self.zero, self.total_zero = zero.reshape(self.zero.shape), zero.sum()
        self.first = (one - zero).clamp_(min=_LEAST_SLOPE).reshape(self.first.shape)
        self.further = -torch.log2(goes_on)

    def _present_probability(self, present: Tensor) -> Tensor:
        """The probability of not being zero, (rows, slices, inner), from 0s and 1s of that shape."""
        rows, slices, inner = self.layout
        total = present.sum() + 1
        if rows == 1:  # a vector: nothing but its own count
            return (total / (present.numel() + 2)).expand_as(present).clone()
        by_row = present.sum((1, 2), keepdim=True) + 0.3
        if inner == 1:
            return by_row * (present.sum(0, keepdim=True) + 0.3) / total
        # Kernels: row times input channel is what is expected of a slice, worth three elements; then its own count.
        by_slice = (present.sum((0, 2), keepdim=True) + 0.3) / (rows * inner)
        prior = (by_row / (slices * inner) * by_slice / (total / present.numel())).clamp_(1e-3, 0.9)
        return ((present.sum(2, keepdim=True) + 3 * prior) / (inner + 3)).expand_as(present).clone()
