"""Channels of Gaussian and Laplace noise, by universal quantisation with a step that is drawn anew for each element.

    K = round(y / S - u),   z = (K + u) S

Uniform noise of a random width is Gaussian if the width is 2 sigma √V, V a sum of three squares of standard normal
numbers, and Laplace's if it is 2 b V, V a sum of two exponentials. Both sides know widths and dither, so that the noise
z - y has exactly the law asked for, whatever y is, without any search.

The price, for sources that vary much more than the noise: .521 bits a number (Gaussian) and .833 (Laplace) above what z
tells of y. Channel simulation (fewbits.channel) pays less a number in blocks, and takes time exponential in their bits.

Source: CN115668777A, claim 9. Widths: Gaussian and Laplace densities as mixtures of uniform ones.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.quantize.universal import dither, universal_quantize
from fewbits.random import WIDTHS, Stream, log, normals, uniforms

NOISES = ("gaussian", "laplace")


class NoiseChannel(NamedTuple):
    """One item's channel: elements with noise of one law and scale.

    noise: "gaussian" (scale is its standard deviation) or "laplace" (scale is its mean magnitude).
    seed, item: of the shared randomness; see `dither`.
    """

    noise: str
    scale: float
    seed: int
    item: int = 0

    def widths(self, shape: tuple[int, ...]) -> Tensor:
        """Return the step of each element, float64.

        WIRE: of words 0, 1, … of item `element` of the stream `item` of purpose 6. Gaussian: 2 scale
        √((n0² + n1²) + n2²), n normal numbers; Laplace: 2 scale (-log u0 - log u1), u uniform ones.

        Raises:
            InvalidArgument: the noise is not one of those above, its scale not above 0, or an item's number too large.
        """
        if self.noise not in NOISES or not 0 < self.scale < math.inf or not 0 <= self.item < 1 << 32:
            raise InvalidArgument(
                f"a channel has {' or '.join(NOISES)} noise of a scale above 0, not {self.noise!r} of {self.scale}."
            )
        count = math.prod(shape)
        words = Stream(self.seed, WIDTHS, self.item).words(np.arange(count, dtype=np.uint64), 3)
        if self.noise == "gaussian":
            first, second, third = (normals(each) for each in words.T)
            found = np.sqrt((first * first + second * second) + third * third)
        else:
            first, second = (log(uniforms(each)) for each in words.T[:2])
            found = -first - second
        return torch.from_numpy((2 * self.scale * found).reshape(shape))

    def send(self, values: Tensor) -> Tensor:
        """Return what is sent of values (...) float: K, of the same shape and device, int64."""
        shape, device = tuple(values.shape), values.device
        noise = dither(self.seed, self.item, shape, device=device).double()
        return universal_quantize(values.double() / self.widths(shape).to(device), noise).long()

    def receive(self, integers: Tensor) -> Tensor:
        """Return values with noise, (...) float64, of what was sent; the same bits on every machine."""
        shape, device = tuple(integers.shape), integers.device
        # WIRE NUMERICS: one addition, one multiplication.
        noise = dither(self.seed, self.item, shape, device=device).double()
        return (integers.double() + noise) * self.widths(shape).to(device)
