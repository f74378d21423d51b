"""Divisive normalisation: a value is divided by what the channels around it amount to."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

LEAST_BETA = 2.0**-6  # NUMERICS: of what divides: no value grows more than 64 times


class Gdn(nn.Module):
    """Generalised divisive normalisation with magnitudes, y = x / (beta + gamma |x|), or its counterpart y = x (...).

    Law: beta is at least 2^-6 and gamma at least 0 whatever the parameters are; gradients are finite.

    Source: Ballé, Laparra, Simoncelli 2016 (arXiv:1511.06281). Differs: magnitudes in place of squares and roots
    (Johnston et al. 2019, arXiv:1912.08771), which is as good, and has an exact form in fixed point.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        """Start near the identity; `inverse` multiplies, as decoders do."""
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.ones(channels))
        self.gamma_root = nn.Parameter(torch.full((channels, channels), 0.03) + 0.1 * torch.eye(channels))

    @property
    def beta(self) -> Tensor:
        """What divides a value where all are 0, (channels,), above 0."""
        return self.beta_root.square() + LEAST_BETA

    @property
    def gamma(self) -> Tensor:
        """What a channel (second axis) adds to what divides another (first axis), (channels, channels), at least 0."""
        return self.gamma_root.square()

    def forward(self, values: Tensor) -> Tensor:
        """Normalise values (B, channels, H, W), which keep their shape."""
        norm = conv2d(values.abs(), self.gamma[:, :, None, None], self.beta)
        return values * norm if self.inverse else values / norm
