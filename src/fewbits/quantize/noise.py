"""What stands for rounding while latents are trained: straight-through rounding, and uniform noise."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: Tensor) -> Tensor:
        # Not clamp, which takes eight times as long with bounds that are tensors; NaN stays NaN in both.
        return torch.minimum(torch.maximum(values.round(), -limit), limit)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


def straight_through_round(values: Tensor, limit: Tensor) -> Tensor:
    """Round to the nearest integer, half to even; gradients pass as if nothing had been done.

    NUMERICS: the result is the integer itself; the familiar x + (round(x) - x).detach() is off by a rounding error.

    Args:
        values: (...) float.
        limit: () float, greatest magnitude of a result, an integer; it gets no gradient.

    Returns:
        (...) same dtype and device.
    """
    return _StraightThrough.apply(values, limit)


def add_uniform_noise(values: Tensor) -> Tensor:
    """Add noise from U(-1/2, 1/2): what rounding does to a smooth density, and differentiable.

    The noise is the encoder's own, from torch's generator: no decoder ever repeats it.

    Args:
        values: (...) float, in units of the step.

    Returns:
        (...) same dtype and device.
    """
    return values + (torch.rand_like(values) - 0.5)
