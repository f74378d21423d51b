"""Gaussian, Laplace and logistic densities with learned locations and scales, and mixtures of them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fewbits.errors import InvalidArgument
from fewbits.models.density import LEAST_MASS, Density

_GREATEST = 1e6  # NUMERICS: of a standardised end, beyond which all stays as it is there
_LEAST_SCALE = 1e-3


def _between(log_below: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor) -> Tensor:
    """The log probability between two ends, of a symmetric density by the logarithm of its distribution function."""
    # NUMERICS: in the upper tail both functions are nearly 1, and their difference is lost: there the mirror image.
    flipped = lower + upper > 0
    low, high = torch.where(flipped, -upper, lower), torch.where(flipped, -lower, upper)
    above, below = log_below(high), log_below(low)
    return above + torch.log(-torch.expm1(-(above - below).clamp(min=LEAST_MASS)))


def _gaussian(x: Tensor) -> Tensor:
    return torch.special.log_ndtr(x)


def _laplace(x: Tensor) -> Tensor:
    # NUMERICS: each branch sees only its own side, so that the other's gradient is finite.
    right = torch.log1p(-0.5 * torch.exp(-x.clamp(min=0)))
    return torch.where(x < 0, x.clamp(max=0) - math.log(2), right)


FAMILIES: dict[str, Callable[[Tensor], Tensor]] = {"gaussian": _gaussian, "laplace": _laplace, "logistic": logsigmoid}


def standard_bits(family: str, lower: Tensor, upper: Tensor) -> Tensor:
    """Return -log2 of the probability between two ends of a family's standard density, mean 0 and scale 1.

    Args:
        family: "gaussian" (its scale is the standard deviation), "laplace" (the mean magnitude) or "logistic".
        lower, upper: (...) float.
    """
    ends = (end.clamp(-_GREATEST, _GREATEST) for end in (lower, upper))
    return _between(FAMILIES[family], *ends) / -math.log(2)


class LocationScale(Density):
    """A density a channel, with a learned location and scale; values are (..., channels)."""

    def __init__(self, family: str, channels: int = 1, scale: float = 1.0) -> None:
        """Start at location 0 with a scale, above 0.

        Raises:
            InvalidArgument: there is no such family, or the scale is not above 0.
        """
        super().__init__()
        _check(family, scale)
        self.family = family
        self.locations = nn.Parameter(torch.zeros(channels))
        self.log_scales = nn.Parameter(torch.full((channels,), math.log(scale)))

    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends (..., channels); see `Density`."""
        scale = self.log_scales.exp() + _LEAST_SCALE
        return standard_bits(self.family, (lower - self.locations) / scale, (upper - self.locations) / scale)


class Mixture(Density):
    """A mixture of densities of one family a channel; values are (..., channels)."""

    def __init__(self, family: str, components: int, channels: int = 1, scale: float = 1.0) -> None:
        """Start with components of one weight, their locations spread over four scales.

        Raises:
            InvalidArgument: there is no such family, no component, or the scale is not above 0.
        """
        super().__init__()
        _check(family, scale)
        if components < 1:
            raise InvalidArgument(f"a mixture has at least one component, not {components}.")
        self.family = family
        spread = torch.linspace(-2, 2, components) * scale if components > 1 else torch.zeros(1)
        self.locations = nn.Parameter(spread.repeat(channels, 1))
        self.log_scales = nn.Parameter(torch.full((channels, components), math.log(scale)))
        self.logits = nn.Parameter(torch.zeros(channels, components))

    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends (..., channels); see `Density`."""
        scale = self.log_scales.exp() + _LEAST_SCALE
        low, high = (((end[..., None] - self.locations) / scale) for end in (lower, upper))
        nats = -math.log(2) * standard_bits(self.family, low, high)
        return torch.logsumexp(nats + torch.log_softmax(self.logits, -1), -1) / -math.log(2)


def _check(family: str, scale: float) -> None:
    if family not in FAMILIES or not 0 < scale < math.inf:
        raise InvalidArgument(f"a density is one of {', '.join(FAMILIES)}, of a scale above 0: {family!r}, {scale}.")
