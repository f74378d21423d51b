"""The zero-mean Laplace density."""

import math

import torch
from torch import Tensor, nn

from fewbits.models.entropy_model import EntropyModel

# At this scale a 0 has probability 1 - 5e-5, more than a 13-bit table can give: nothing smaller is worth modelling. It
# is added, not a clamp, so that a density that has become narrow still feels a gradient when a latent leaves 0.
_LEAST_SCALE = 0.05
# NUMERICS: magnitudes and the scale's logarithm are cut here, so that all stays finite in float32.
_GREATEST = 1e30
_GREATEST_LOG = 60.0


class Laplace(EntropyModel):
    """Zero-mean Laplace with a learned scale: mean magnitude exp(log_scale) + 0.05, in units of the step."""

    def __init__(self, scale: float) -> None:
        """Start from a mean magnitude, above 0."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(max(scale - _LEAST_SCALE, _LEAST_SCALE))))

    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value."""
        rate = 1 / (self.log_scale.clamp(max=_GREATEST_LOG).exp() + _LEAST_SCALE)  # of decay, per step
        magnitude = values.abs().clamp(max=_GREATEST)
        # With F the distribution function, F(u + 1/2) - F(u - 1/2) cancels in the tails. By symmetry take u >= 0:
        #   u <= 1/2:  (1 - exp(-(1/2 - u) rate)) / 2 + (1 - exp(-(1/2 + u) rate)) / 2, two terms of one sign;
        #   u >= 1/2:  exp(-(u - 1/2) rate) times what the first line gives at 1/2, so its logarithm is a plain sum.
        # The halves meet at 1/2 in value and slope; relu's slope at 0 is 0, so that one of them counts there, not both.
        inner = magnitude.clamp(max=0.5)
        centre = -0.5 * (torch.expm1((inner - 0.5) * rate) + torch.expm1((-0.5 - inner) * rate))
        return (torch.relu(magnitude - 0.5) * rate - torch.log(centre)) / math.log(2)
