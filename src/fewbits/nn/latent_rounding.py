"""What stands for the rounding of latents in training: straight-through, soft, or universal quantisation's noise."""

import torch
from torch import Tensor, nn

from fewbits.quantize.noise import straight_through_round
from fewbits.quantize.sharpness import Sharpness
from fewbits.quantize.soft_rounding import soft_round, soft_round_mean
from fewbits.quantize.universal import expected_gradient

ROUNDINGS = ("straight_through", "soft", "universal")


class LatentRounding(nn.Module):
    """One way of rounding for all latents of a network, and how sharp it is by now.

    straight_through: the nearest level; gradients pass as if nothing had been done.
    soft: soft rounding, which becomes rounding as its sharpness grows.
    universal: soft rounding, noise, and the mean of what they stand for: what the decoder of universal quantisation
        sees, with the gradient that is expected over the noise. What is written is rounded all the same: at some tenths
        of a bit a weight the noise would be most of it.

    PAPER: Agustsson, Theis 2020 (arXiv:2006.09952), section 4, for images; for weights that is our reading.
    """

    def __init__(self, kind: str, last: float, num_steps: int) -> None:
        """Round as `kind` says; sharpness rises from 1 to `last` in so many steps."""
        super().__init__()
        self.kind = kind
        self.sharpness = None if kind == "straight_through" else Sharpness(1.0, last, num_steps)

    def forward(self, latents: Tensor, limit: Tensor) -> Tensor:
        """Return what training has in place of levels, (...) as the latents, of a magnitude of at most `limit`."""
        if self.sharpness is None:
            return straight_through_round(latents, limit)
        sharpness = self.sharpness()
        levels = soft_round(latents, sharpness)
        if self.kind == "universal":
            levels = expected_gradient(lambda noisy: soft_round_mean(noisy, sharpness), levels)
        return torch.minimum(torch.maximum(levels, -limit), limit)

    def advance(self) -> None:
        """Go on by a training step."""
        if self.sharpness is not None:
            self.sharpness.advance()
