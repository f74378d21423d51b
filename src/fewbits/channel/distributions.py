"""Targets and proposals: Gaussian, truncated Gaussian, uniform and categorical.

Only what makes a value of words (`Gaussian.quantile`, `Uniform.quantile`, `Categorical.drawn`) is shared with the
decoder, and specified to the last bit. All else is the encoder's, in float64; logarithms are natural.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fewbits.errors import InvalidArgument
from fewbits.random import normal_quantile

Floats = NDArray[np.float64]

COUNT_BITS = 32  # WIRE: counts of a categorical proposal sum to 2^32


class Parabola(NamedTuple):
    """A function square x^2 + slope x + level, (...) float64 each."""

    square: Floats
    slope: Floats
    level: Floats

    def __call__(self, x: Floats) -> Floats:
        """Return the values at x, of a shape that broadcasts."""
        return (self.square * x + self.slope) * x + self.level

    def minus(self, other: "Parabola") -> "Parabola":
        """Return the difference of two."""
        return Parabola(*(a - b for a, b in zip(self, other, strict=True)))

    def greatest(self, low: Floats, high: Floats) -> Floats:
        """Return the greatest value between two ends, which may be infinite: (...) float64, inf if there is none."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            top = np.clip(-self.slope / (2 * self.square), low, high)
            inside = np.where(self.square < 0, self(np.where(np.isfinite(top), top, 0.0)), -np.inf)
            ends = [self._at_end(end, np.sign(end)) for end in (low, high)]
        return np.maximum(inside, np.maximum(*ends))

    def _at_end(self, end: Floats, side: Floats) -> Floats:
        finite = self(np.where(np.isfinite(end), end, 0.0))
        grows = (self.square > 0) | ((self.square == 0) & (self.slope * side > 0))
        flat = (self.square == 0) & (self.slope == 0)
        return np.where(np.isfinite(end), finite, np.where(grows, np.inf, np.where(flat, self.level, -np.inf)))


class Real(ABC):
    """Independent real coordinates, each with a log-density that is a parabola between two ends.

    low, high: (..., dim) float64, the ends of the support.
    """

    low: Floats
    high: Floats

    @property
    @abstractmethod
    def parabola(self) -> Parabola:
        """The log-density inside the support."""

    @abstractmethod
    def mass(self, low: Floats, high: Floats) -> Floats:
        """Return the probability between two ends, coordinate by coordinate; 0 where they are not in order."""

    @abstractmethod
    def quantile(self, p: Floats) -> Floats:
        """Return the values below which a coordinate is with probability p. WIRE NUMERICS: one order of operations."""

    @abstractmethod
    def moments(self) -> tuple[Floats, Floats]:
        """Return the means of x and of x squared."""

    @abstractmethod
    def mapped(self, change: Callable[[Floats], Floats]) -> "Real":
        """Return the distribution whose arrays are changed all alike."""

    def cdf(self, x: Floats) -> Floats:
        """Return the probability below x, coordinate by coordinate."""
        return self.mass(self.low, x)


class Gaussian(Real):
    """Independent Gaussian coordinates, whole or truncated."""

    def __init__(self, mean: ArrayLike, sd: ArrayLike, low: ArrayLike = -np.inf, high: ArrayLike = np.inf) -> None:
        """Build from (..., dim) float64 arrays that broadcast: means and standard deviations before truncation, ends.

        Raises:
            InvalidArgument: a mean is not finite, a standard deviation not finite and above 0, ends not in order, or
                shapes do not broadcast.
        """
        self.mean, self.sd, self.low, self.high = _together(mean, sd, low, high)
        if not np.isfinite(self.mean).all():
            raise InvalidArgument("a Gaussian's mean is not a finite number.")
        if not (np.isfinite(self.sd).all() and (self.sd > 0).all()):
            raise InvalidArgument("a Gaussian's standard deviation must be a finite number above 0.")
        if not (self.low < self.high).all():
            raise InvalidArgument("the ends that a Gaussian is truncated to are not in order.")
        self._log_mass = _log_mass((self.low - self.mean) / self.sd, (self.high - self.mean) / self.sd)
        if not np.isfinite(self._log_mass).all():
            raise InvalidArgument("a Gaussian is truncated to where it has nothing.")

    @property
    def parabola(self) -> Parabola:
        """The log-density inside the support."""
        precision = 1 / self.sd**2
        level = -np.log(self.sd) - 0.5 * np.log(2 * np.pi) - self._log_mass - 0.5 * precision * self.mean**2
        return Parabola(-0.5 * precision, precision * self.mean, level)

    def mass(self, low: Floats, high: Floats) -> Floats:
        """Return the probability between two ends, coordinate by coordinate; 0 where they are not in order."""
        low, high = np.maximum(low, self.low), np.minimum(high, self.high)
        ordered = low < high
        below, above = (np.where(ordered, (end - self.mean) / self.sd, side) for end, side in ((low, 0.0), (high, 1.0)))
        return np.where(ordered, np.exp(_log_mass(below, above) - self._log_mass), 0.0)

    def quantile(self, p: Floats) -> Floats:
        """Return mean + sd × normal quantile, float64: of a Gaussian that is not truncated."""
        return self.mean + self.sd * normal_quantile(p)

    def moments(self) -> tuple[Floats, Floats]:
        """Return the means of x and of x squared."""
        ends = [(end - self.mean) / self.sd for end in (self.low, self.high)]
        with np.errstate(over="ignore", invalid="ignore"):
            heights = [
                np.exp(-0.5 * np.minimum(end**2, 1e300) - 0.5 * np.log(2 * np.pi) - self._log_mass) for end in ends
            ]
            weighted = [
                np.where(np.isfinite(end), end, 0.0) * height for end, height in zip(ends, heights, strict=True)
            ]
        first = heights[0] - heights[1]
        second = 1 + weighted[0] - weighted[1]
        return (
            self.mean + self.sd * first,
            self.mean**2 + 2 * self.mean * self.sd * first + self.sd**2 * second,
        )

    def mapped(self, change: Callable[[Floats], Floats]) -> "Gaussian":
        """Return the distribution whose arrays are changed all alike."""
        return Gaussian(*map(change, (self.mean, self.sd, self.low, self.high)))

    def truncated(self, low: Floats, high: Floats) -> "Gaussian":
        """Return the same Gaussian between two further ends."""
        return Gaussian(self.mean, self.sd, np.maximum(self.low, low), np.minimum(self.high, high))


class Uniform(Real):
    """Independent uniform coordinates."""

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        """Build from (..., dim) float64 arrays that broadcast.

        Raises:
            InvalidArgument: the ends are not finite, or not in order, or shapes do not broadcast.
        """
        self.low, self.high = _together(low, high)
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()):
            raise InvalidArgument("the ends of a uniform distribution must be finite and in order.")

    @property
    def parabola(self) -> Parabola:
        """The log-density inside the support."""
        zero = np.zeros_like(self.low)
        return Parabola(zero, zero, -np.log(self.high - self.low))

    def mass(self, low: Floats, high: Floats) -> Floats:
        """Return the probability between two ends, coordinate by coordinate; 0 where they are not in order."""
        length = np.minimum(high, self.high) - np.maximum(low, self.low)
        return np.maximum(length, 0.0) / (self.high - self.low)

    def quantile(self, p: Floats) -> Floats:
        """Return low + (high - low) × p, float64."""
        return self.low + (self.high - self.low) * p

    def moments(self) -> tuple[Floats, Floats]:
        """Return the means of x and of x squared."""
        return (self.low + self.high) / 2, (self.low**2 + self.low * self.high + self.high**2) / 3

    def mapped(self, change: Callable[[Floats], Floats]) -> "Uniform":
        """Return the distribution whose arrays are changed all alike."""
        return Uniform(change(self.low), change(self.high))


class Categorical:
    """One of some states."""

    def __init__(self, probabilities: ArrayLike) -> None:
        """Build a target from (..., states) float64 that sum to 1, or anything else above 0.

        Raises:
            InvalidArgument: one is below 0 or not finite, or none is above 0.
        """
        weights = np.asarray(probabilities, np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights.sum(-1) > 0).all()):
            raise InvalidArgument("the probabilities of states must be finite, not below 0, and not all 0.")
        self.probabilities = weights / weights.sum(-1, keepdims=True)


class Counts(Categorical):
    """A categorical proposal: integer counts, so that both sides draw the same states."""

    def __init__(self, counts: ArrayLike) -> None:
        """Build from (states,) integers from 0 on that sum to 2^32.

        Raises:
            InvalidArgument: they do not.
        """
        self.counts = np.asarray(counts).astype(np.int64)
        if self.counts.ndim != 1 or (self.counts < 0).any() or int(self.counts.sum()) != 1 << COUNT_BITS:
            raise InvalidArgument(f"the counts of a categorical proposal must sum to 2^{COUNT_BITS}.")
        super().__init__(self.counts.astype(np.float64))
        self._ends = self.counts.cumsum()

    @classmethod
    def uniform(cls, num_states: int) -> "Counts":
        """Return equal counts, the first ones larger by 1 where they must."""
        each, rest = divmod(1 << COUNT_BITS, num_states)
        return cls(each + (np.arange(num_states) < rest))

    def drawn(self, words: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Return the states that words (...) uint32 fall on, int64: the first whose counts up to it exceed the word."""
        return np.searchsorted(self._ends, words.astype(np.int64), side="right")


def _together(*arrays: ArrayLike) -> tuple[Floats, ...]:
    given = [np.asarray(each, np.float64) for each in arrays]
    try:
        return tuple(np.broadcast_arrays(*given))
    except ValueError:
        shapes = ", ".join(str(each.shape) for each in given)
        raise InvalidArgument(f"a distribution's arrays do not fit each other: {shapes}.") from None


def _log_mass(low: Floats, high: Floats) -> Floats:
    """The logarithm of a standard normal's probability between two ends, which are in order."""
    # NUMERICS: in the upper half both ends change sign, so that no probability near 1 is subtracted from another.
    flip = low > 0
    low, high = np.where(flip, -high, low), np.where(flip, -low, high)
    below, above = (torch.special.log_ndtr(torch.from_numpy(np.asarray(end))).numpy() for end in (low, high))
    with np.errstate(invalid="ignore", divide="ignore"):
        return above + np.log1p(-np.exp(below - above))
