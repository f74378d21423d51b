"""How exactly scales and offsets of blocks are told: as they are, or in whole numbers, as errors and bits weigh.

Levels stay as they were found. What scales and offsets of whole numbers cost is known in advance of every unit, from
two sums: each doubling of a unit saves a bit a block, and takes four times the error.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewbits.chunk import Loss
from fewbits.method import Curvature
from fewbits.methods.blockwise.payload import LEAST_UNIT, MOST_SHIFT, MOST_UNIT, Blocks, Written, side_array
from fewbits.models.fit import fit_values
from fewbits.quantize.block_grid import BlockGrid
from fewbits.quantize.weights import Weights, distortion_of_bits

_FINEST, _COARSEST = -16, 0  # octaves of units beside the greatest scale
_LEAST_BITS = 0.05  # of a scale or offset, however coarse
_SIDE_BITS = 400.0  # of a description, about


class Candidate(NamedTuple):
    """Blocks ready to be written, what they lost, and what their errors cost."""

    written: Written
    loss: Loss
    cost: float


class _Unit(NamedTuple):
    """The best exponent of a unit, and what errors and bits it comes to."""

    exponent: int
    error: float
    bits: float


class _Sides(NamedTuple):
    """Scales, or offsets, of M blocks in a unit of 2^e: error * 4^e is lost, and bits - M e taken.

    Attributes:
        error: at the unit 1.
        bits: at the unit 1, of all blocks.
        num_values: M.
        middle: the exponent about which units are looked for.
    """

    error: float
    bits: float
    num_values: int
    middle: int

    @classmethod
    def of(cls, values: NDArray[np.float64], error: float, middle: int) -> "_Sides":
        """Take scales or offsets (M,), of which one in the unit 1 loses so much in all."""
        spread = float(np.ptp(values))
        if spread == 0:
            return cls(error, 0.0, 0, middle)
        # At a rate at which halving the unit takes a bit each.
        octave = math.frexp(spread)[1] - 7
        counts = np.unique(np.rint(np.ldexp(values, -octave)), return_counts=True)[1]
        # NUMERICS: whole bits: the last place of a logarithm, which is not everywhere the same, decides nothing.
        bits = float(np.rint((counts * np.log2(values.size / counts)).sum())) + values.size * octave
        return cls(error, bits, values.size, middle)

    def best(self, slope: float) -> _Unit:
        """The unit where error + slope * bits is least."""
        least, most = (min(max(self.middle + each, LEAST_UNIT), MOST_UNIT) for each in (_FINEST, _COARSEST))
        exponents = np.arange(least, most + 1)
        errors = self.error * 4.0**exponents
        bits = np.maximum(self.bits - self.num_values * exponents, _LEAST_BITS * self.num_values)
        best = int(np.argmin(errors + slope * bits))
        return _Unit(int(exponents[best]), float(errors[best]), float(bits[best]))


class Expected(NamedTuple):
    """What errors and bits come to, together where a bit is worth so much, and bits alone."""

    cost: float
    bits: float


class BlockRates(NamedTuple):
    """What is known of blocks before they are coded: what their arrays take, and what errors of them cost."""

    scales: _Sides
    offsets: _Sides | None
    level_bits: float
    exact_bits: float  # of all, to the bit; infinite if that cannot be

    def units(self, slope: float) -> tuple[_Unit, _Unit]:
        """Return the units of scales and of offsets where a bit is worth so much."""
        scales = self.scales.best(slope)
        return scales, self.offsets.best(slope) if self.offsets is not None else _Unit(scales.exponent, 0.0, 0.0)

    def expected(self, slope: float) -> Expected:
        """Return what blocks come to where a bit is worth so much."""
        scales, offsets = self.units(slope)
        bits = self.level_bits + scales.bits + offsets.bits + _SIDE_BITS
        coarse = Expected(scales.error + offsets.error + slope * bits, bits)
        exact = Expected(slope * self.exact_bits if math.isfinite(self.exact_bits) else math.inf, self.exact_bits)
        return min(exact, coarse)


class BlockQuantiser:
    """Codes one matrix, or tile of one, on the grid that its weights lie on."""

    def __init__(self, weights: Weights, grid: BlockGrid, curvature: Curvature | None) -> None:
        """Take weights and their grid.

        Args:
            weights: (R n,), all finite.
            grid: of all of them.
            curvature: of these rows; without one, all errors count alike.
        """
        self._weights, self._grid, self._curvature = weights, grid, curvature
        count, length = grid.levels.shape
        # Levels about 0: an offset is then the value in a block's middle, which a scale has little to do with.
        self._centre = 0 if grid.offsets is None else round(float(grid.levels.mean()))
        self._levels = grid.levels - np.int32(self._centre)
        self._factor = _block_factor(curvature, length)
        # Errors of scales and offsets are spread evenly over a unit, and so a twelfth of its square.
        if curvature is None:
            moved, felt = float(np.square(self._levels).sum(dtype=np.int64)), float(length * count)
        else:
            squares = np.square(self._levels, dtype=np.float32)
            by_row = squares.reshape(curvature.outputs.size, -1) @ np.diag(curvature.inputs).astype(np.float32)
            moved = float(by_row @ curvature.outputs)
            felt = float(curvature.outputs.sum()) * float(np.square(np.diag(self._factor)).sum())
        middle = math.frexp(float(np.abs(grid.scales).max()) or 1.0)[1]
        scales, offsets, exact_bits = _Sides.of(np.abs(grid.scales), moved / 12, middle), None, math.inf
        if grid.offsets is not None:
            offsets = _Sides.of(grid.offsets + self._centre * grid.scales, felt / 12, middle)
        level_bits = fit_values(self._levels).bits
        if grid.exact is not None:
            sides = [grid.exact.scales] if grid.exact.offsets is None else list(grid.exact)
            exact_bits = level_bits + sum(side_array(each).bits for each in sides if each is not None)
        self.rates = BlockRates(scales, offsets, level_bits, exact_bits)

    def candidate(self, slope: float) -> Candidate | None:
        """Code where a bit is worth so much; to the bit where it is worth nothing, or None if that cannot be.

        Args:
            slope: what an error may cost for a bit less.
        """
        exact = self._grid.exact
        if exact is not None and slope * self.rates.exact_bits <= self.rates.expected(slope).cost:
            return self._candidate(Blocks(self._grid.levels, exact.scales, exact.offsets))
        return self._coarse(slope) if slope > 0 else None

    def _coarse(self, slope: float) -> Candidate | None:
        scale_unit, offset_unit = (unit.exponent for unit in self.rates.units(slope))
        scale_unit = min(max(scale_unit, offset_unit - MOST_SHIFT), offset_unit + MOST_SHIFT)
        unit = min(scale_unit, offset_unit)
        # A scale below 0, which gave zeros their sign, is one above 0 with all levels turned.
        levels = self._levels * np.where(self._grid.scales < 0, -1, 1).astype(np.int32)[:, None]
        scales = np.rint(np.ldexp(np.abs(self._grid.scales), -scale_unit))
        offsets = None
        if self._grid.offsets is not None:
            offsets = self._told_offsets(levels, np.ldexp(scales, scale_unit), offset_unit)
            if np.abs(offsets).max() >= 1 << 31:
                return None
        if scales.max() >= 1 << 31:
            return None
        whole = None if offsets is None else offsets.astype(np.int32)
        blocks = Blocks(levels, scales.astype(np.int32), whole, unit, scale_unit - unit, offset_unit - unit)
        return self._candidate(blocks) if blocks.are_bounded() else None

    def _told_offsets(self, levels: NDArray[np.int32], scales: NDArray[np.float64], unit: int) -> NDArray[np.float64]:
        """Offsets (M,) in whole numbers of 2^unit; what the error of one does, the next ones of its row partly undo."""
        grid = self._grid
        assert grid.offsets is not None
        wider = scales - grid.scales
        middles = grid.offsets + self._centre * grid.scales
        if self._curvature is None:
            means = levels.sum(1, dtype=np.int64) / levels.shape[1]
            return np.rint(np.ldexp(middles - wider * means, -unit))
        errors = wider[:, None] * levels  # of elements, but for offsets
        # The offsets that cost least, were they real numbers: minus the errors' part in the directions of blocks.
        inputs, factor = self._curvature.inputs.astype(np.float64), self._factor
        num_blocks = len(factor)
        sums = inputs.reshape(len(inputs), num_blocks, -1).sum(2)  # (n, blocks of a row)
        met = errors.reshape(-1, len(inputs)) @ sums
        wanted = middles.reshape(-1, num_blocks) - np.linalg.solve(factor.T, np.linalg.solve(factor, met.T)).T
        told = np.empty_like(wanted)
        missed = np.zeros_like(wanted)
        for block in range(num_blocks):
            fed_back = missed[:, :block] @ factor[:block, block] / factor[block, block]
            told[:, block] = np.rint(np.ldexp(wanted[:, block] - fed_back, -unit))
            missed[:, block] = np.ldexp(told[:, block], unit) - wanted[:, block]
        return told.ravel()

    def _candidate(self, blocks: Blocks) -> Candidate | None:
        decoded = Weights(np.empty_like(self._weights.bits), self._weights.dtype)
        if not blocks.write(decoded):
            return None
        lost = distortion_of_bits(self._weights, decoded)
        written, cost = blocks.written(), lost.error
        if self._curvature is not None and cost:
            shape = self._curvature.outputs.size, -1
            before, after = (torch.from_numpy(each.values()).reshape(shape) for each in (self._weights, decoded))
            cost = self._curvature.cost(before, after)
        return Candidate(written, Loss(lost.error, lost.energy, written.bits), cost)


def _block_factor(curvature: Curvature | None, length: int) -> NDArray[np.float64]:
    """U, upper triangular, with U Uᵀ what offsets of a row's blocks cost together, row weights apart."""
    if curvature is None:
        return np.full((1, 1), math.sqrt(length))
    size = len(curvature.inputs) // length
    together = curvature.inputs.astype(np.float64).reshape(size, length, size, length).sum((1, 3))
    # NUMERICS: sums of columns may cancel to nothing.
    together[np.diag_indices(size)] += 1e-6 * np.trace(together) / size + 1e-300
    return np.linalg.cholesky(together[::-1, ::-1])[::-1, ::-1]
