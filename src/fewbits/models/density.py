"""Entropy models that are densities: what it costs that a value lies in an interval, and its mean if it does."""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fewbits.models.entropy_model import EntropyModel
from fewbits.quantize.soft_rounding import soft_round_inverse

LEAST_MASS = 1e-9  # NUMERICS: of an interval, relative to what is below its end: a far value still feels a gradient
_NODES = 16


class Density(EntropyModel):
    """A density whose distribution function is known.

    Laws: probabilities of intervals that tile the line add up to 1; bits are at least 0 and, like their gradients,
    finite at every finite value.
    """

    @abstractmethod
    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends, (...) float each, lower below upper."""

    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value; see `EntropyModel`."""
        return self.interval_bits(values - 0.5, values + 0.5)


class SoftRounded(Density):
    """What soft rounding makes of a density; in `bits` with uniform noise, as a decoder sees it.

    PAPER: Agustsson, Theis 2020, section 4.1: of z = s(y) + u the density is c(s⁻¹(z + 1/2)) - c(s⁻¹(z - 1/2)), c the
    distribution function of y. Sharpness is that of the quantiser: give both the same object.
    """

    def __init__(self, density: Density, sharpness: Callable[[], Tensor | float]) -> None:
        """Wrap a density; sharpness is asked for at every call."""
        super().__init__()
        self.density, self.sharpness = density, sharpness

    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends; see `Density`."""
        sharpness = self.sharpness()
        return self.density.interval_bits(soft_round_inverse(lower, sharpness), soft_round_inverse(upper, sharpness))


def posterior_mean(density: Density, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the mean of a value that is known to lie between two ends, (...) float each.

    After universal quantisation of soft-rounded values these are s⁻¹(z - 1/2) and s⁻¹(z + 1/2); the density is that of
    what was rounded. Where it is flat, this is `soft_round_mean`; at low rates it is far better.

    NUMERICS: the upper end less the integral of the conditional distribution function (by parts), whose values are
    ratios of probabilities: sixteen nodes of Gauss and Legendre.
    """
    nodes, weights = (torch.from_numpy(each).to(lower) for each in np.polynomial.legendre.leggauss(_NODES))
    inside = lower[..., None] + (upper - lower)[..., None] * ((1 + nodes) / 2)
    whole = density.interval_bits(lower, upper)
    # One node after the other: a density's last axis is that of its channels.
    parts = torch.stack([density.interval_bits(lower, inside[..., i]) for i in range(_NODES)], -1)
    shares = torch.exp2((whole[..., None] - parts).clamp(max=0))
    return upper - (upper - lower) * (shares * (weights / 2)).sum(-1)
