"""Universal quantisation in whole numbers: which cell a latent lies in, and what stands for it.

With dither level j, a latent r lies in cell k if k + t_j ≤ r < k + t_j + 1, and its middle k + t_j + 1/2 stands for it.

    rounding              t = -1/2, one level
    universal             t_j = u_j - 1/2
    with soft rounding    t_j = s⁻¹(u_j - 1/2)

for k = floor(s(r) - u + 1/2) ≥ m just where s(r) ≥ m + u - 1/2, and s(r + m) = s(r) + m; and the middle is the mean of
a latent that is known to lie there, where its density is flat. So soft rounding, in use, is a dither that is not
uniform, and what a codec stores of all three is the offsets t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fewbits.images.fixed_point import VALUE
from fewbits.quantize.soft_rounding import soft_round_inverse


class Cells(NamedTuple):
    """Offsets (levels,) of cells for each level of the dither, float64, counted in 2^-10, -1024 … 0; ascending."""

    offsets: Tensor

    @classmethod
    def rounding(cls) -> "Cells":
        """Cells without a dither."""
        return cls(torch.tensor([-VALUE / 2], dtype=torch.float64))

    @classmethod
    def dithered(cls, level_bits: int, sharpness: float) -> "Cells":
        """Cells of a dither with 2^level_bits levels, after soft rounding of a sharpness; 0 for none."""
        levels = (torch.arange(1 << level_bits, dtype=torch.float64) + 0.5) / (1 << level_bits) - 1
        return cls(torch.floor(soft_round_inverse(levels, sharpness) * VALUE + 0.5))

    @property
    def level_bits(self) -> int:
        """log2 of the number of levels."""
        return len(self.offsets).bit_length() - 1

    def indices(self, latents: Tensor, levels: Tensor) -> Tensor:
        """Return the cells (...) int64 of latents (...) float64, counted in 2^-10, for the levels (...) int64."""
        return torch.floor((latents - self.offsets[levels]) / VALUE).long()

    def middles(self, indices: Tensor, levels: Tensor) -> Tensor:
        """Return what stands for cells, (...) float64, counted in 2^-10."""
        return indices.double() * VALUE + self.offsets[levels] + VALUE // 2
