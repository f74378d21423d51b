"""Scalar quantisation: steps by equal slope, rounding with the rate in view, and exact reconstruction."""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbits.native import core

Centroids: TypeAlias = tuple[int, int, int]  # of |level| 1, 2, and 3 or more, in 1/256 of a step

_LN2 = math.log(2)
# The slope of a uniform quantiser at high rate: a bit more divides step^2 / 12 by four, so it is worth ln2 / 6 step^2.
BIT_WORTH = _LN2 / 6
# Loss a tensor adds per unit of relative squared error, as a power of its size: 0 is the plain linearity theorem
# (step ~ RMS N^1/2), 1 is equal step / RMS. 0.2 gives step ~ RMS N^0.4; docs/decisions/0005.
_SENSITIVITY_EXPONENT = 0.2
_MAX_LEVEL = 1 << 30
MOST_SCALES = 1 << 16  # elements from which a tensor is not taken for a vector of scales


def ordered_sum(values: NDArray[np.float64], before: float = 0.0) -> float:
    """Sum (N,) float64 strictly from first to last, on top of what is summed before.

    NUMERICS: NumPy's and torch's own sums pair terms differently from one instruction set to another; sums that decide
    bytes may not.
    """
    return float(np.add.accumulate(np.concatenate([[before], values.ravel()]))[-1])


def energy_at_stake(values: NDArray[np.float64]) -> float:
    """Return what a tensor's squared error (N,) is measured against: the sum of its squares, mostly.

    A vector of one sign is taken for scales (variances, gains), where each element counts for itself: a variance that
    is rounded to 0 ruins its channel however small it is beside the others. There it is the harmonic form,
    N^2 / sum(w^-2), over what is not 0, so that the mean *relative* error of the elements is what a step buys.
    """
    present = values[values != 0]
    one_sign = bool((present > 0).all() or (present < 0).all())
    if not present.size or values.size >= MOST_SCALES or not one_sign:
        return ordered_sum(values * values)
    with np.errstate(over="ignore", divide="ignore"):
        inverse = ordered_sum(1 / (present * present))
    return max(present.size**2 / inverse, 1e-300)


def sensitivity_by_size(num_elements: int) -> float:
    """Return the loss a tensor adds per unit of relative squared error, where its size is all that is known."""
    return num_elements**_SENSITIVITY_EXPONENT


def equal_slope_step(
    energy: float, num_elements: int, rate_weight: float, num_weights: int, sensitivity: float | None = None
) -> float:
    """Return the step at which one bit more buys every tensor the same: rate_weight / num_weights.

    Args:
        energy: what the squared error is measured against (`energy_at_stake`).
        num_elements: its size.
        rate_weight: the Lagrangian multiplier, loss units for one bit per coded weight.
        num_weights: coded weights of the whole source.
        sensitivity: loss per unit of relative squared error; by default a power of the size. Of one that is 0, because
            no loss was felt, the step is the root mean square.

    Returns:
        A positive float32 value with a 12-bit mantissa; 1 when there is no energy to lose.

    Source: equal slope of D = alpha N step^2 / (12 energy) against R = -N log2(step): Shoham & Gersho 1988; linearity
    of the loss in relative squared error: Malinovskii et al. 2024 (HIGGS).
    """
    if energy == 0 or num_elements == 0:
        return 1.0
    if sensitivity == 0:
        return short_float(math.sqrt(energy / num_elements))
    alpha = sensitivity_by_size(num_elements) if sensitivity is None else sensitivity
    step = math.sqrt(rate_weight / num_weights * energy / (alpha * BIT_WORTH))
    return short_float(step)


def short_float(value: float) -> float:
    """Round a positive number to a 12-bit mantissa within float32's normal range.

    NUMERICS: powers and roots may differ in the last place between C libraries; a short mantissa does not show it.
    """
    mantissa, exponent = math.frexp(value)
    rounded = math.ldexp(round(mantissa * 4096), exponent - 12)
    return min(max(rounded, 2.0**-120), 2.0**120)


def round_levels(scaled: NDArray[np.float64]) -> NDArray[np.int32] | None:
    """Round values in units of the step to levels, same shape; None if one is out of the coder's reach."""
    levels = np.rint(scaled)
    if levels.size and max(-float(levels.min()), float(levels.max())) >= _MAX_LEVEL:
        return None
    return levels.astype(np.int32)


def row_magnitudes(levels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sum the magnitudes of each row of levels (R, n): (R,)."""
    if kernels := core():
        sums = np.empty(levels.shape[0], np.int64)
        kernels.row_magnitudes(levels, sums)
        return sums
    return np.abs(levels).sum(axis=1, dtype=np.int64)


class Gains(NamedTuple):
    """What moving the levels low, low + 1, … one towards zero saves, (n,) in the units of distortion."""

    low: int
    gains: NDArray[np.float64]

    @classmethod
    def of_costs(cls, low: int, costs: NDArray[np.float64]) -> "Gains":
        """Weigh the savings of levels low, low + 1, … that cost (n,) bits."""
        saved = np.zeros(costs.size, np.float64)
        # One step towards zero: from a positive level down, from a negative one up.
        below_zero = np.arange(costs.size) + low < 0
        saved[1:] = np.where(below_zero[1:], 0, costs[1:] - costs[:-1])
        saved[:-1] += np.where(below_zero[:-1], costs[:-1] - costs[1:], 0)
        return cls(low, saved * BIT_WORTH)

    @classmethod
    def nothing(cls) -> "Gains":
        """No level has a gain, none is moved."""
        return cls(0, np.zeros(0))


def rate_distortion_round(scaled: NDArray[np.float64], levels: NDArray[np.int32], gains: Gains) -> NDArray[np.int32]:
    """Move levels one towards zero where that saves more rate than it adds distortion (RDOQ).

    Args:
        scaled: values in units of the step, any shape.
        levels: their nearest levels, same shape.
        gains: other levels are left alone.

    Returns:
        Levels, same shape.
    """
    if not gains.gains.size:
        return levels
    sign = np.sign(levels)
    place = levels.astype(np.int64) - gains.low
    known = (place >= 0) & (place < gains.gains.size)
    gain = gains.gains[np.where(known, place, 0)]
    added = 1 + 2 * (scaled - levels) * sign
    return np.where(known & (sign != 0) & (added < gain), levels - sign, levels)


Sums: TypeAlias = tuple[tuple[float, float, float], tuple[int, int, int]]


def centroid_sums(scaled: NDArray[np.float64], levels: NDArray[np.int32]) -> Sums:
    """Sums of |value| - |level| for |level| = 1, 2, and 3 or more, and how many levels each is of."""
    kind = np.minimum(np.abs(levels), 3).ravel()
    # bincount adds in order, one value after the other.
    total = np.bincount(kind, weights=(np.sign(levels) * (scaled - levels)).ravel(), minlength=4)
    count = np.bincount(kind, minlength=4)
    return (float(total[1]), float(total[2]), float(total[3])), (int(count[1]), int(count[2]), int(count[3]))


def centroids_of(totals: tuple[float, float, float], counts: tuple[int, int, int]) -> Centroids:
    """Return the means of `centroid_sums`, in 1/256 of a step, each -128 … 127."""
    one, two, more = (
        min(max(round(256 * total / count), -128), 127) if count else 0
        for total, count in zip(totals, counts, strict=True)
    )
    return one, two, more


def reconstruct(levels: NDArray[np.signedinteger], step: float, centroids: Centroids | None) -> NDArray[np.float32]:
    """Return the float32 values of levels, same shape.

    Law: exact on every machine: float32, each operation rounded to nearest even, in this order (docs/payload/ecsq.md).
    """
    # WIRE
    values = levels.astype(np.float32)
    if centroids is not None:
        shifts = np.array([0, *centroids], np.float32) / np.float32(256)
        shift = shifts[np.minimum(np.abs(levels), 3)]
        values = np.where(levels < 0, values - shift, values + shift)
    with np.errstate(over="ignore", under="ignore"):  # what is not finite is the caller's to refuse
        return values * np.float32(step)
