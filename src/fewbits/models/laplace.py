"""The zero-mean Laplace density."""

import math

import torch
from torch import Tensor, nn

from fewbits.models.density import Density

# At this scale a 0 has probability 1 - 5e-5, more than a 13-bit table can give: nothing smaller is worth modelling. It
# is added, not a clamp, so that a density that has become narrow still feels a gradient when a latent leaves 0.
_LEAST_SCALE = 0.05
# NUMERICS: magnitudes and the scale's logarithm are cut here, so that all stays finite in float32.
_GREATEST = 1e30
_GREATEST_LOG = 60.0
_LEAST_MASS = 1e-37


class Laplace(Density):
    """Zero-mean Laplace with a learned scale: mean magnitude exp(log_scale) + 0.05, in units of the step."""

    def __init__(self, scale: float) -> None:
        """Start from a mean magnitude, above 0."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(max(scale - _LEAST_SCALE, _LEAST_SCALE))))

    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value."""
        return self._bits(values, torch.tensor(0.5, dtype=values.dtype, device=values.device))

    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends (...); see `Density`."""
        return self._bits((lower + upper) / 2, (upper - lower) / 2)

    def _bits(self, middle: Tensor, half: Tensor) -> Tensor:
        rate = 1 / (self.log_scale.clamp(max=_GREATEST_LOG).exp() + _LEAST_SCALE)  # of decay, per step
        magnitude = middle.abs().clamp(max=_GREATEST)
        # With F the distribution function, F(u + h) - F(u - h) cancels in the tails. By symmetry take u >= 0:
        #   u <= h:  (1 - exp(-(h - u) rate)) / 2 + (1 - exp(-(h + u) rate)) / 2, two terms of one sign;
        #   u >= h:  exp(-(u - h) rate) times what the first line gives at h, so its logarithm is a plain sum.
        # The two meet at h in value and slope; relu's slope at 0 is 0, so that one of them counts there, not both.
        inner = torch.minimum(magnitude, half)
        centre = -0.5 * (torch.expm1((inner - half) * rate) + torch.expm1((-half - inner) * rate))
        # NUMERICS: ends that are one float have a probability of 0.
        return (torch.relu(magnitude - half) * rate - torch.log(centre.clamp(min=_LEAST_MASS))) / math.log(2)
