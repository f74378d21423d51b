"""Better latents for one image: what analysis says is where a search begins.

    minimise  bits(K) + trade · error(K)   over the cells K of one image's latents

by gradient descent on real numbers, each drawn to one of the two cells beside it, more and more surely as the search
goes on; the hyper-latents, and so the tables, stay. Decoding knows nothing of it.

Source: Yang, Bamler, Mandt 2020 (arXiv:2006.04240), section 3.3, stochastic Gumbel annealing. Differs: the latents
alone are searched, and bits are those of the codec's tables, between whole numbers on a straight line.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.images.codec import PIXELS

_RATE = 0.03  # of Adam, in cells; falling along a cosine
_WARM_UP = 5  # steps
_TEMPERATURES = 0.5, 0.1  # at first and at last
_EDGE = 1e-4  # cells: where a choice is as good as made

CostsOf = Callable[[NDArray[np.int64]], NDArray[np.float64]]


class Search(NamedTuple):
    """What a search knows of a band.

    synthesis: the network, float32. pixels: (H, W, 3) float32, in grey levels.
    positions: (1, channels, h, w) float64, latents as cells; where they are whole numbers a cell's middle lies.
    middles: of cell 0, likewise, in steps. steps: in units of latents, (channels, 1, 1). means: in units of latents.
    bits_of: what cells (N,) int64 cost, (N,) float64, in bits.
    trade: what a squared grey level of error a pixel is worth, in bits a pixel.
    """

    synthesis: nn.Module
    pixels: Tensor
    positions: Tensor
    middles: Tensor
    steps: Tensor
    means: Tensor
    bits_of: CostsOf
    trade: float

    def loss(self, cells: Tensor, bits: Tensor) -> Tensor:
        """Return bits a pixel and what the error is worth, of cells that need not be whole."""
        height, width = self.pixels.shape[:2]
        latents = (cells + self.middles) * self.steps + self.means
        shown = self.synthesis(latents.float())[0, :, :height, :width] * PIXELS + 128
        error = (shown.movedim(0, -1) - self.pixels).square().mean()
        return bits / (height * width) + self.trade * error


@torch.enable_grad()  # wherever it is called
def refined(search: Search, num_steps: int, seed: int) -> Tensor:
    """Return cells (N,) int64 after a search of so many steps.

    NUMERICS: gradients are float32 sums, which machines add in different orders: so do files differ, as training does.
    """
    positions = search.positions.float().requires_grad_(True)
    optimizer = torch.optim.Adam([positions], lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    for step in range(num_steps):
        share = step / num_steps
        optimizer.param_groups[0]["lr"] = _RATE * min(1, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * share)) / 2
        temperature = _TEMPERATURES[0] * (_TEMPERATURES[1] / _TEMPERATURES[0]) ** share
        below = positions.detach().floor()
        up = _drawn_up(positions - below, temperature, generator)
        costs = [search.bits_of(end.long().numpy().ravel()) for end in (below, below + 1)]
        low, high = (torch.from_numpy(cost).float().reshape(below.shape) for cost in costs)
        optimizer.zero_grad()
        search.loss(below + up, (low + up * (high - low)).sum()).backward()
        optimizer.step()
    return positions.detach().round().long().flatten()


def _drawn_up(share: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """How far each value goes to the cell above, 0 … 1, from its share of the way there.

    PAPER: probabilities exp(-atanh(distance) / temperature) of both cells, with the noise of a choice by them.
    """
    share = share.clamp(_EDGE, 1 - _EDGE)
    likelier = (torch.atanh(share) - torch.atanh(1 - share)) / temperature
    uniform = torch.rand(share.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid(likelier + torch.logit(uniform))
