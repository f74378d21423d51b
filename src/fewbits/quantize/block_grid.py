"""Weights that lie on a grid block by block, as quantised networks decode to: the grid is found again.

A block is a run of elements of a row whose values are scale * level + offset, levels being small whole numbers. Formats
that quantise blocks of 16 to 512 weights, or whole rows, leave such values behind: types of 2 to 8 bits in GGUF files,
integers with a scale for each output, groups with a scale and a zero point, binary and ternary networks.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.quantize.weights import Weights, rounded_bits

MOST_LEVELS = 256  # of a block: 8 bits
LEAST_BLOCK = 16  # elements: fewer say too little of a grid
_LONGEST = 1 << 14  # elements of a block
_LENGTHS = tuple(LEAST_BLOCK << octave for octave in range(6))  # that are looked for, beside whole rows
_FIRST, _SAMPLE = 4, 48  # blocks that are looked at first, and next
_SOME = 1 << 17  # elements that are held in another precision at once
_NEAR = 0.1  # of a level that values may be off: what is left of one after rounding to a narrow dtype
_BLOCK_BITS = 12  # that a block's scale takes, about
_SIGNED = 0.99  # of the sampled blocks that have a level at 0, of a grid without offsets
_WIDEST = 2.5 * MOST_LEVELS  # times the least gap between values, that a block may range over
_DIVISORS = (1, 2, 3, 4, 5)  # of the least gap between values, which may be of several levels
_MANTISSAS = (11, 17, 19, 24)  # bits that scales and offsets have: a float16's, and products with another 6 or 8 bits
_MANTISSA_OF = {"float32": 23, "float16": 10, "bfloat16": 7, "float64": 23}  # of a value, whose product is in float32
_MOST_SHIFT = 16  # levels below the least one of a block, that an offset may be the value of


class Layout(NamedTuple):
    """Where blocks are, and of what kind: elements of a block; whether its levels are multiples of the scale."""

    length: int
    is_signed: bool


class Exact(NamedTuple):
    """Scales and offsets, (M,) float32 each, with which every element comes back to the bit; offsets None if signed."""

    scales: NDArray[np.float32]
    offsets: NDArray[np.float32] | None


@dataclass(frozen=True)
class BlockGrid:
    """The grid of M blocks of one length: values are within a tenth of a scale of scale * level + offset.

    levels: (M, length) int32; scales: (M,) float64, 0 of a block of equal values; offsets: (M,) float64, of level 0, or
    None where all are 0; exact: what gives all elements to the bit, if there is anything that does.
    """

    levels: NDArray[np.int32]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64] | None
    exact: Exact | None


def find_layout(weights: Weights, num_rows: int) -> Layout | None:
    """Tell from a sample how weights, a matrix of so many rows, lie on grids; None if they do not, as most do not."""
    row_length = weights.bits.size // max(1, num_rows)
    lengths = sorted({length for length in (*_LENGTHS, row_length) if length and row_length % length == 0})
    found: Layout | None = None
    least_bits = np.inf
    for length in lengths:
        if not LEAST_BLOCK <= length <= min(_LONGEST, weights.bits.size):
            continue
        count = weights.bits.size // length
        middle = weights.part(count // 2 * length, (count // 2 + _FIRST) * length)
        if _fitted(middle, length, is_signed=False) is None:
            break  # the usual case, soon seen
        chosen = np.unique(np.linspace(0, count - 1, _SAMPLE).astype(np.int64))
        sample = Weights(weights.bits.reshape(count, length)[chosen].ravel(), weights.dtype)
        values = sample.values().reshape(-1, length)
        if not (values[:, 1:] != values[:, :1]).any():
            break
        fitted = _fitted(sample, length, is_signed=False)
        if fitted is None:
            break
        scales, levels = fitted
        # Of long blocks there are fewer scales, but their levels may be of more.
        counts = np.unique(levels, return_counts=True)[1]
        bits = float((counts * np.log2(levels.size / counts)).sum()) / levels.size + _BLOCK_BITS / length
        if bits > least_bits:
            continue
        least_bits = bits
        at_zero = np.divide(values, scales[:, None], out=np.zeros_like(values), where=scales[:, None] > 0)
        at_zero = (np.abs(at_zero - np.rint(at_zero)) < _NEAR).all(1) & (np.abs(at_zero).max(1) <= MOST_LEVELS)
        found = Layout(length, bool(at_zero.mean() >= _SIGNED))
    return found


def read_grid(weights: Weights, layout: Layout) -> BlockGrid | None:
    """Find levels, scales and offsets of all blocks; None if one of them has no grid.

    Args:
        weights: whole blocks of finite elements.
    """
    length = layout.length
    count = weights.bits.size // length
    levels = np.empty((count, length), np.int32)
    scales, offsets = np.empty(count), np.empty(count)
    exact = Exact(np.empty(count, np.float32), np.empty(count, np.float32))
    is_exact = True
    some = max(1, _SOME // length)
    for start in range(0, count, some):
        blocks = slice(start, min(start + some, count))
        part = weights.part(start * length, blocks.stop * length)
        fitted = _fitted(part, length, layout.is_signed)
        if fitted is None:
            return None
        scales[blocks], levels[blocks] = fitted
        at_least = np.zeros(blocks.stop - start) if layout.is_signed else part.values().reshape(-1, length).min(1)
        if is_exact:
            is_exact = _make_exact(part, layout, scales[blocks], levels[blocks], at_least, exact, blocks)
        offsets[blocks] = at_least
    if not layout.is_signed:
        # An exact offset may be of another level than the block's least one; 0 is level 0 either way.
        shifts = levels.min(1)
        offsets -= shifts * scales
    found = Exact(exact.scales, None if layout.is_signed else exact.offsets)
    return BlockGrid(levels, scales, None if layout.is_signed else offsets, found if is_exact else None)


def _fitted(part: Weights, length: int, is_signed: bool) -> tuple[NDArray[np.float64], NDArray[np.int32]] | None:
    """Scales (M,) and levels (M, length) of blocks of weights; None if one of them has no grid.

    Levels count from the least value of a block or, if signed, from 0.
    """
    values = part.values().reshape(-1, length)
    ordered = np.sort(values, 1)
    low, high = ordered[:, 0], ordered[:, -1]
    # The least gap is one level, or a few; the gaps between neighbours are then small whole numbers of levels.
    with np.errstate(invalid="ignore"):  # infinities, which have none
        gaps = np.diff(ordered, axis=1)
    least = np.where(gaps > 0, gaps, np.inf).min(1)
    is_flat = ~np.isfinite(least)
    least[is_flat] = 1.0
    if not np.isfinite(high - low).all() or (high - low > _WIDEST * least).any():
        return None
    counts, are_found = np.zeros(len(values)), is_flat.copy()
    for divisor in _DIVISORS:
        open_ = np.flatnonzero(~are_found)
        if not open_.size:
            break
        ratios = gaps[open_] / (least[open_, None] / divisor)
        # Values were rounded, maybe to few bits: a level is what the small gaps are on average.
        small = np.where(ratios < 1.5 * divisor, ratios, 0)
        ratios /= (small.sum(1) / np.rint(small).sum(1))[:, None]
        whole = np.rint(ratios)
        near = (np.abs(ratios - whole) < _NEAR).all(1)
        counts[open_[near]] = whole[near].sum(1)
        are_found[open_[near]] = True
    scales = np.divide(high - low, counts, out=np.zeros(len(values)), where=counts > 0)
    if is_signed:
        scales[is_flat] = high[is_flat]  # of a block of equal values: level 1, or 0
        scales = _sharpened(values, scales, _MANTISSA_OF[part.dtype])
    origin = np.zeros((len(values), 1)) if is_signed else low[:, None]
    places = np.divide(values - origin, scales[:, None], out=np.zeros_like(values), where=scales[:, None] > 0)
    levels = np.rint(places)
    if not are_found.all() or (np.abs(places - levels) >= _NEAR).any() or (np.abs(levels) > MOST_LEVELS).any():
        return None
    return scales, levels.astype(np.int32)


def _sharpened(values: NDArray[np.float64], scales: NDArray[np.float64], mantissa: int) -> NDArray[np.float64]:
    """Scales (M,) of blocks (M, B), each in the midst of those whose multiples are rounded to the block's values."""
    levels = np.abs(np.rint(np.divide(values, scales[:, None], out=np.zeros_like(values), where=scales[:, None] != 0)))
    rounding = np.ldexp(1.0, np.frexp(values)[1] - mantissa - 2)  # half of a last place
    magnitudes = np.abs(values)
    least = np.divide(magnitudes - rounding, levels, out=np.full_like(values, -np.inf), where=levels > 0).max(1)
    most = np.divide(magnitudes + rounding, levels, out=np.full_like(values, np.inf), where=levels > 0).min(1)
    there = np.isfinite(least)
    middles = np.add(least, most, out=np.zeros_like(least), where=there)  # a block of zeros has none
    return np.sign(scales) * middles / 2


def _make_exact(
    part: Weights,
    layout: Layout,
    scales: NDArray[np.float64],
    levels: NDArray[np.int32],
    least: NDArray[np.float64],
    exact: Exact,
    blocks: slice,
) -> bool:
    """Fill in scales and offsets that give blocks to the bit, levels with them; whether there are such for all."""
    bits = part.bits.reshape(-1, layout.length)
    open_ = np.arange(len(bits))
    signs = np.ones(len(bits))
    if layout.is_signed:  # a level of 0 has the sign of its scale
        of_sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
        signs[(bits == of_sign).any(1)] = -1
        levels *= signs.astype(np.int32)[:, None]
        scales *= signs
    for shift in range(1 if layout.is_signed else _MOST_SHIFT):
        for mantissa in _MANTISSAS:
            if not open_.size:
                return True
            scale = _rounded(scales[open_], mantissa)
            assert exact.offsets is not None
            offset = _rounded(least[open_] - shift * scale.astype(np.float64), mantissa if shift else 53)
            moved = levels[open_] + np.int32(shift)
            values = values_of(moved, scale, None if layout.is_signed else offset)
            same = (rounded_bits(values.ravel(), part.dtype).reshape(moved.shape) == bits[open_]).all(1)
            done = open_[same]
            exact.scales[blocks.start + done], exact.offsets[blocks.start + done] = scale[same], offset[same]
            levels[done] = moved[same]
            open_ = open_[~same]
    return not open_.size


def values_of(
    levels: NDArray[np.int32], scales: NDArray[np.float32], offsets: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return scale * level + offset of blocks (M, B): the product in float32, and then the sum."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = levels.astype(np.float32)
        values *= scales[:, None]
        if offsets is not None:
            values += offsets[:, None]
    return values


def _rounded(values: NDArray[np.float64], mantissa: int) -> NDArray[np.float32]:
    """Values (N,) rounded to so many bits of mantissa, and to float32."""
    fractions, exponents = np.frexp(values)
    unit = 2.0**mantissa
    with np.errstate(over="ignore"):
        return np.ldexp(np.rint(fractions * unit) / unit, exponents).astype(np.float32)
