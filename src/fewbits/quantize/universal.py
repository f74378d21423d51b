"""Universal quantisation: a dither that both sides know makes rounding a channel of uniform noise.

    K = round(y - u),   z = K + u

z - y is uniform between -1/2 and 1/2, whatever y is, and K tells exactly what z does: H[K | u] = h(y + u). So a network
that is trained with noise meets the same noise in use.

The dither comes from the file's seed and the item's number, a word an element: two files have different dithers, and
so have two items of a file. Only the encoder rounds; the decoder adds.

Source: Ziv 1985; Agustsson, Theis 2020 (arXiv:2006.09952), section 3; CN115668777A, claims 1 and 4 to 8. Differs: the
public implementation has one fixed seed, and 15 levels of dither.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.random import DITHER, Stream

MOST_LEVEL_BITS = 8


def dither(
    seed: int, item: int, shape: tuple[int, ...], *, start: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the dither of one item's elements, float32, uniform between -1/2 and 1/2, never either of them.

    WIRE: element e has (k + 1/2) / 2^24, k the upper 24 bits of word e of the sequence of purpose 2 and stream `item`,
    less 2^23: exact in float32, and symmetric.

    Args:
        seed, item: of the file, and the item's number in it, 0 … 2^32 - 1.
        start: the first element's number.
        device: where to put what is made on the CPU: the bits are the same everywhere.

    Raises:
        InvalidArgument: the item's number is none of these.
    """
    return torch.from_numpy(_tops(seed, item, shape, start, 24)).to(device)


def dither_levels(
    seed: int, item: int, shape: tuple[int, ...], level_bits: int, *, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Return a dither of 2^level_bits values, (j + 1/2) / 2^level_bits - 1/2, and the levels j: float32 and int64.

    Coarse, so that there can be an integer table for each level. WIRE: j is the upper bits of `dither`'s words.

    Args:
        seed, item, shape, start: as for `dither`.
        level_bits: from 1 to 8.

    Raises:
        InvalidArgument: as for `dither`; or there are no such levels.
    """
    if not 1 <= level_bits <= MOST_LEVEL_BITS:
        raise InvalidArgument(f"a dither has 2 to {1 << MOST_LEVEL_BITS} levels, not 2^{level_bits}.")
    values = _tops(seed, item, shape, start, level_bits)
    levels = (values * (1 << level_bits) + ((1 << level_bits) - 1) / 2).astype(np.int64)
    return torch.from_numpy(values), torch.from_numpy(levels)


def _tops(seed: int, item: int, shape: tuple[int, ...], start: int, bits: int) -> np.ndarray:
    if not 0 <= item < 1 << 32:
        raise InvalidArgument(f"an item's number is from 0 to 2^32 - 1, not {item}.")
    words = Stream(seed, DITHER, item).sequence(start, math.prod(shape))
    tops = (words >> np.uint32(32 - bits)).astype(np.float64) - (1 << (bits - 1))
    return ((tops + 0.5) * 2.0**-bits).astype(np.float32).reshape(shape)


def universal_quantize(values: Tensor, noise: Tensor) -> Tensor:
    """Return the integers K = floor(values - noise + 1/2), which the encoder sends; ties go up.

    Args:
        values, noise: (...) float, in steps.

    Returns:
        (...) same dtype and device, integers.
    """
    return torch.floor(values - noise + 0.5)


def expected_gradient(function: Callable[[Tensor], Tensor], values: Tensor, noise: Tensor | None = None) -> Tensor:
    """Return function(values + u), with the gradient that is the mean over u of what it would be in the values.

    PAPER: section 4.2: d/dy E[h(y + u)] = h(y + 1/2) - h(y - 1/2), exactly, even where h has no derivative. Whatever
    else the function depends on, a density's parameters say, has its ordinary gradient. For a rate that is all of it.
    In a distortion (claims 11 and 14) each element's own u counts as unknown, the others as they are: the expected
    slope of a periodic map, as `soft_round_mean` is, is 1 whatever the sharpness; the plain one's variance grows.

    Args:
        function: elementwise: bits of noisy values, or what is reconstructed from them.
        values: (...) float, in steps.
        noise: (...) float from U(-1/2, 1/2); drawn from torch's generator if None.

    Returns:
        (...) float.
    """
    fixed = values.detach()
    found = function(fixed + (_fresh(fixed) if noise is None else noise))
    with torch.no_grad():
        slope = function(fixed + 0.5) - function(fixed - 0.5)
    return found + slope * (values - fixed)


def _fresh(values: Tensor) -> Tensor:
    return torch.rand_like(values) - 0.5
