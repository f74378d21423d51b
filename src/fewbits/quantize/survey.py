"""How many bits tensors will take at any step, from a histogram of their magnitudes: no second look at the data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_LEVELS = 1 << 12
MAGNITUDE_BINS = 1 << 13


def magnitude_counts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count (N,) values in bins, (8192,), of equal exponent and five mantissa bits of |value| as float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        bins = np.abs(values).astype(np.float32).view(np.uint32) >> np.uint32(18)
    return np.bincount(bins.astype(np.int64), minlength=MAGNITUDE_BINS).astype(np.int64)


@dataclass(frozen=True)
class MagnitudeSurvey:
    """Histogram of one tensor's |w|, in the bins of `magnitude_counts`.

    lower, upper: (B,) float64 edges of the occupied bins, ascending; counts: (B,) int64; energy: sum of w^2.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    counts: NDArray[np.int64]
    energy: float

    @classmethod
    def of(cls, values: NDArray[np.float64], energy: float) -> "MagnitudeSurvey":
        """Count (N,) finite values."""
        return cls.of_counts(magnitude_counts(values), energy)

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64], energy: float) -> "MagnitudeSurvey":
        """Keep the occupied ones of all bins, (8192,) as `magnitude_counts` gives."""
        occupied = np.flatnonzero(counts)
        edges = np.stack([occupied, occupied + 1]).astype(np.uint32) << np.uint32(18)
        lower, upper = np.nan_to_num(edges.view(np.float32).astype(np.float64), posinf=3.4e38)
        return cls(lower, upper, counts[occupied], energy)

    @classmethod
    def merged(cls, surveys: Sequence["MagnitudeSurvey"], units: Sequence[float]) -> "MagnitudeSurvey":
        """Take values of several tensors, each in units of its own (above 0), for those of one; its energy is 0."""
        middles = np.concatenate(
            [(each.lower + each.upper) / 2 / unit for each, unit in zip(surveys, units, strict=True)]
        )
        with np.errstate(over="ignore"):
            bins = middles.astype(np.float32).view(np.uint32) >> np.uint32(18)
        counts = np.concatenate([each.counts for each in surveys])
        return cls.of_counts(np.bincount(bins, counts, MAGNITUDE_BINS).astype(np.int64), 0.0)

    @property
    def num_elements(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def bits(self, step: float) -> float:
        """Entropy of all values quantised with a step, in bits: rounding, one ideal table, no side information."""
        total = self.num_elements
        if not total:
            return 0.0
        extra = 0
        while self.upper[-1] / step > _MOST_LEVELS:  # at high rate each halving of the step adds one bit
            step *= 2
            extra += 1
        thresholds = (np.arange(int(self.upper[-1] / step) + 2) + 0.5) * step
        # Values are taken as spread evenly within their bin: the count below a threshold is piecewise linear.
        ahead = np.cumsum(self.counts)
        at = np.searchsorted(self.lower, thresholds, side="right") - 1
        share = np.clip((thresholds - self.lower[at]) / (self.upper[at] - self.lower[at]), 0, 1)
        below = np.where(at >= 0, ahead[at] - self.counts[at] * (1 - share), 0)
        levels = np.diff(np.concatenate([[0.0], np.maximum.accumulate(below)]))
        used = levels[levels > 0]
        entropy = float((used * np.log2(total / used)).sum())
        nonzero = total - float(levels[0])
        return entropy + nonzero + extra * total
