"""Gaussian posteriors over blocks of weights, by mean and divergence or by mean and standard deviation.

All is in units of the prior's standard deviation, whose mean is 0; divergences are in nats.
"""

import math

import torch
from torch import Tensor
from torch.autograd import Function

_ROUNDS = 12
_LEAST_GAP = 1e-12


class _Variance(Function):
    @staticmethod
    def forward(ctx, excess: Tensor) -> Tensor:  # type: ignore[override]
        variance = variance_of(excess)
        ctx.save_for_backward(variance)
        return variance

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:  # type: ignore[override]
        (variance,) = ctx.saved_tensors
        # PAPER: dW/dx = W / (x (1 + W)); here of -W by the excess. NUMERICS: at the branch point it has no bound, but
        # what leads there vanishes faster.
        return -grad_outputs[0] * variance / (1 - variance).clamp(min=1e-6)


def variance_of(excess: Tensor) -> Tensor:
    """Return the variance v, at most 1, that has v - log v = 1 + excess: -W0(-exp(-1 - excess)).

    Args:
        excess: (...) float, at least 0.

    Returns:
        (...) same dtype and device, without gradient.
    """
    excess = excess.detach().clamp(min=0)
    # Of y = -log v: e^-y - 1 + y = excess. Near the branch point u + u^2 / 6 + u^3 / 36 with u = sqrt(2 x), far
    # from it 1 + x - e^(-1 - x). NUMERICS: expm1, as 1 - v would have no digits left in float32.
    root = torch.sqrt(2 * excess)
    near = root * (1 + root / 6 * (1 + root / 6))
    height = torch.where(excess < 0.5, near, 1 + excess - torch.exp(-1 - excess))
    for _ in range(_ROUNDS):
        below = torch.expm1(-height)
        step = (below + height - excess) / below.clamp(max=-_LEAST_GAP)
        height = (height + step.clamp(-1, 1)).clamp(min=0)
    return torch.exp(-height)


def of_divergence(raw_means: Tensor, divergences: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations of these divergences exactly.

    PAPER: Lin, Flamich, Hernández-Lobato 2023 (arXiv:2307.07816): mean = sqrt(2 kl) tanh(a), variance =
    -W0(-exp(mean^2 - 2 kl - 1)). That the paper squashes by tanh is our reading.

    Args:
        raw_means, divergences: (...) float.

    Returns:
        Two tensors of the same shape.
    """
    share = torch.tanh(raw_means)
    mean = torch.sqrt(2 * divergences) * share
    excess = 2 * divergences * (1 - share * share)
    return mean, torch.sqrt(_Variance.apply(excess))  # pyright: ignore


def raw_means_of(means: Tensor, divergences: Tensor) -> Tensor:
    """Undo the squashing of means, as far as the divergence reaches."""
    reach = torch.sqrt(2 * divergences)
    return torch.atanh((means / reach.clamp(min=1e-30)).clamp(-0.999, 0.999))


def divergence_of(means: Tensor, log_sds: Tensor) -> Tensor:
    """Return the divergence of each Gaussian from the prior, in nats."""
    variance = torch.exp(2 * log_sds)
    return 0.5 * (variance + means * means - 1) - log_sds


def forward_channel(values: Tensor, bits: float) -> tuple[Tensor, Tensor]:
    """Return means and log standard deviations of the channel that spends so many bits on a unit Gaussian's values.

    PAPER: rate-distortion theory: distortion d = 2^(-2 bits), mean (1 - d) value, variance d (1 - d).
    """
    distortion = 2.0 ** (-2 * bits)
    spread = math.sqrt(max(distortion * (1 - distortion), 1e-12))
    return (1 - distortion) * values, torch.full_like(values, math.log(spread))
