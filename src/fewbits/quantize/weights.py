"""Float weights where they lie: measured, rounded and compared without a copy in another precision.

Each method is written out in NumPy, which is the specification; the compiled core does the same in one pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.native import core
from fewbits.quantize.rounding import (
    MOST_SCALES,
    Centroids,
    Gains,
    centroid_sums,
    centroids_of,
    energy_at_stake,
    ordered_sum,
    rate_distortion_round,
    reconstruct,
    round_levels,
)
from fewbits.quantize.survey import MAGNITUDE_BINS, MagnitudeSurvey, magnitude_counts

_CODES = {"float32": 0, "float16": 1, "bfloat16": 2, "float64": 3}  # WIRE: as in fewbits.chunk
_MOST_GAINS = 64
_SOME = 1 << 18  # elements that are held in another precision at once


class Extent(NamedTuple):
    """How large weights are; greatest and energy are infinite unless all weights are finite."""

    greatest: float  # max |w|
    energy: float  # sum of w^2
    counts: NDArray[np.int64]  # (8192,) of magnitudes, as `magnitude_counts` gives


class Distortion(NamedTuple):
    """What quantisation did to weights; the error has no meaning unless every reconstruction is finite."""

    finite: bool
    error: float  # sum of (reconstruction - w)^2
    energy: float  # sum of w^2


@dataclass(frozen=True)
class Weights:
    """The elements of a float tensor, or of a range of it, as their bits.

    bits: (N,) unsigned words of the dtype's width; dtype: float32, float16, bfloat16 or float64.
    """

    bits: NDArray[np.unsignedinteger]
    dtype: str

    @property
    def code(self) -> int:
        """The dtype's code in the file format."""
        return _CODES[self.dtype]

    def values(self) -> NDArray[np.float64]:
        """Return the values, (N,) float64, exact."""
        if self.dtype == "bfloat16":
            return Weights(self.bits.astype(np.uint32) << np.uint32(16), "float32").values()
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            return self.bits.view(self.dtype).astype(np.float64)

    def part(self, start: int, stop: int) -> "Weights":
        """Return a range of the elements; it shares their memory."""
        return Weights(self.bits[start:stop], self.dtype)

    @cached_property
    def extent(self) -> Extent:
        """Greatest magnitude, energy and histogram of magnitudes."""
        if kernels := core():
            counts = np.zeros(MAGNITUDE_BINS, np.int64)
            _, greatest, energy = kernels.measure(self.bits, self.code, counts)
            return Extent(greatest, energy, counts)
        values = self.values()
        counts = magnitude_counts(values)
        if not np.isfinite(values).all():
            return Extent(np.inf, np.inf, counts)
        with np.errstate(over="ignore"):
            return Extent(float(np.abs(values).max(initial=0)), ordered_sum(values * values), counts)

    def energy_at_stake(self) -> float:
        """Return what a squared error of the weights is measured against (`rounding.energy_at_stake`)."""
        if self.bits.size >= MOST_SCALES:
            return self.extent.energy
        return energy_at_stake(self.values())

    def survey(self) -> MagnitudeSurvey:
        """Return the histogram of finite weights that tells their bits at any step."""
        return MagnitudeSurvey.of_counts(self.extent.counts, self.energy_at_stake())

    def scaled(self, step: float, num_rows: int) -> "Scaled":
        """Return the weights as a matrix in units of a step."""
        return Scaled(self, step, num_rows)


@dataclass(frozen=True)
class Scaled:
    """Weights in units of a step: a matrix (R, n), and the levels that stand for it. The step is a float32 value."""

    weights: Weights
    step: float
    num_rows: int

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The quotients w / step, (R, n) float64: what the NumPy code works on."""
        return (self.weights.values() / self.step).reshape(self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and row length."""
        return self.num_rows, self.weights.bits.size // max(1, self.num_rows)

    def levels(self) -> NDArray[np.int32] | None:
        """Round to the nearest levels, (R, n); None if one is out of the coder's reach."""
        if kernels := core():
            levels = np.empty(self.shape, np.int32)
            return levels if kernels.round_levels(*self._operands, levels) else None
        return round_levels(self.values)

    def rate_distortion_round(
        self, levels: NDArray[np.int32], gains: Sequence[Gains], classes: NDArray[np.int64] | None
    ) -> NDArray[np.int32]:
        """Move nearest levels towards zero where that pays (`rounding.rate_distortion_round`).

        Args:
            levels: (R, n).
            gains: of each class of rows.
            classes: (R,), or None with one class.
        """
        if kernels := core():
            moved = np.empty(self.shape, np.int32)
            table = np.zeros((len(gains), _MOST_GAINS))
            for row, (_, of_class) in zip(table, gains, strict=True):
                row[: of_class.size] = of_class
            low = np.array([low for low, _ in gains], np.int64)
            counts = np.array([of_class.size for _, of_class in gains], np.int64)
            kernels.rate_distortion_round(*self._operands, levels, classes, low, counts, table, moved)
            return moved
        moved = levels.copy()
        for index, of_class in enumerate(gains):
            rows = slice(None) if classes is None else classes == index
            moved[rows] = rate_distortion_round(self.values[rows], levels[rows], of_class)
        return moved

    def centroids(self, levels: NDArray[np.int32]) -> Centroids:
        """Return the mean distance of the weights from their levels (R, n), outwards (`rounding.centroids_of`)."""
        if kernels := core():
            return centroids_of(*kernels.centroid_sums(*self._operands, levels))
        return centroids_of(*centroid_sums(self.values, levels))

    def distortion(self, levels: NDArray[np.int32], centroids: Centroids | None) -> Distortion:
        """Compare the weights with what their levels (R, n) decode to."""
        if kernels := core():
            return Distortion(*kernels.measure_distortion(*self._operands, levels, centroids or (0, 0, 0)))
        return distortion_of(self.weights, reconstruct(levels.ravel(), self.step, centroids))

    @property
    def _operands(self) -> tuple[NDArray[np.unsignedinteger], int, float]:
        return self.weights.bits, self.weights.code, self.step


def distortion_of(weights: Weights, reconstructions: NDArray[np.float32]) -> Distortion:
    """Compare weights with their reconstructions (N,), rounded to their dtype."""
    return distortion_of_bits(weights, Weights(rounded_bits(reconstructions, weights.dtype), weights.dtype))


def distortion_of_bits(weights: Weights, reconstructed: Weights) -> Distortion:
    """Compare weights with others of their dtype, some at a time."""
    error, energy, finite = 0.0, 0.0, True
    for start in range(0, weights.bits.size, _SOME):
        values, decoded = (each.part(start, start + _SOME).values() for each in (weights, reconstructed))
        energy = ordered_sum(values * values, energy)
        finite = finite and bool(np.isfinite(decoded).all())
        if finite:
            error = ordered_sum((decoded - values) ** 2, error)
    return Distortion(finite, error if finite else np.inf, energy)


def rounded_bits(values: NDArray[np.float32], dtype: str) -> NDArray[np.unsignedinteger]:
    """Return the bits of values (N,) in a float dtype: to nearest even, subnormal numbers kept; infinite beyond it."""
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype(dtype)
    return rounded.view(f"u{rounded.itemsize}")
