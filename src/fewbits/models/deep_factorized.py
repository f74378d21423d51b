"""The deep factorised density: a monotone network for the distribution function, one for each channel.

Source: Ballé et al. 2018 (arXiv:1802.01436), appendix 6.1, with the initial values of its authors' code.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from fewbits.models.density import LEAST_MASS, Density

_GREATEST = 1e6


class DeepFactorized(Density):
    """Densities of `channels` kinds of latents, learned without a parametric family; values are (..., channels)."""

    def __init__(self, channels: int = 1, hidden: tuple[int, ...] = (3, 3), scale: float = 10.0) -> None:
        """Start as a broad density; scale is its width in steps, about."""
        super().__init__()
        widths = (1, *hidden, 1)
        spread = scale ** (1 / (len(hidden) + 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for narrow, wide in pairwise(widths):
            first = math.log(math.expm1(1 / spread / wide))
            self.matrices.append(nn.Parameter(torch.full((channels, wide, narrow), first)))
            self.biases.append(nn.Parameter(torch.rand(channels, wide, 1) - 0.5))
        for wide in hidden:
            self.factors.append(nn.Parameter(torch.zeros(channels, wide, 1)))

    def _logits(self, values: Tensor) -> Tensor:
        """Logits of the distribution function at values (channels, 1, N)."""
        hidden = values
        for index, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            # PAPER: equation 26 and below; softplus keeps the matrices, and with them the function's slope, positive.
            hidden = torch.baddbmm(bias, softplus(matrix), hidden)
            if index < len(self.factors):
                hidden = hidden + torch.tanh(self.factors[index]) * torch.tanh(hidden)
        return hidden

    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value (..., channels)."""
        cut = values.clamp(-_GREATEST, _GREATEST)
        return self.interval_bits(cut - 0.5, cut + 0.5)

    def interval_bits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends (..., channels); see `Density`."""
        channels, shape = self.matrices[0].shape[0], lower.shape
        lower, upper = (self._logits(end.reshape(-1, channels).T.unsqueeze(1)) for end in (lower, upper))
        # NUMERICS: log(sigmoid(u) - sigmoid(l)) = log sigmoid(u) + log sigmoid(-l) + log(1 - exp(l - u)), which does
        # not cancel.
        gap = (upper - lower).clamp(min=LEAST_MASS)
        log_mass = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-gap))
        return (-log_mass / math.log(2)).squeeze(1).T.reshape(shape)
