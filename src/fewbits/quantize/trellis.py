"""Trellis-coded quantisation: two mirrored quantisers take turns, and a level's parity says which one comes next.

So a weight has twice as many values to be near to as its level tells apart; what it chooses binds its successors, and
the Viterbi algorithm finds the best of all chains of choices. That takes off two thirds of what scalar quantisation
costs above the rate-distortion bound: at equal squared error a Gaussian weight takes 0.18 bit less.

Element i belongs to path i mod 32. Paths know nothing of each other; each starts in state 0. What is written out here
in NumPy is the specification (docs/payload/ecsq.md); the compiled core does the same, in the same float32 operations.

Source: Marcellin & Fischer 1990; entropy-coded, with a union codebook of two mirrored halves, so that one table serves
both: Joshi, Crump & Fischer 1995. The code is Ungerboeck's of eight states (1982). Unlike theirs, points near 0 are
means of what falls to them, which holds the gain at every rate.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewbits.native import core
from fewbits.quantize.rounding import BIT_WORTH, short_float
from fewbits.quantize.weights import Distortion, Weights, distortion_of

Corrections: TypeAlias = tuple[int, int, int, int]  # of levels 0, -1, 1 and all others, outwards, in 1/256 of a step

PATHS = 32  # WIRE
NO_CORRECTIONS: Corrections = (0, 0, 0, 0)
MOST_PRICED = 127  # levels farther from 0 cost what this one does
# A trellis of this step has the squared error of scalar quantisation with step 1: step^2 / 12 at high rate.
_STEP_RATIO = 1.15
_QUARTER = np.float32(0.25)
_REACH = float(1 << 20)  # steps: a float32 still tells quarters of one apart
_FAR = np.float32(1e30)  # the cost of a state that no path has reached
_ROUNDING = np.float32(3 << 22)  # added and taken off, it leaves the nearest integer, half to even
_MOST_PRICE_BITS = 64.0  # what cannot be coded as yet is dear, not forbidden: tables are fitted again
_STATES = np.arange(8)
# The two states that lead to each state differ in their middle bit, and so do the parities they do it by.
_EARLY = ((_STATES ^ _STATES >> 1) & 1) | (_STATES & 1) << 2
_EARLY_BRANCH = 2 * (_STATES & 1) + (_STATES >> 2)  # a branch is 2 * mirrored + parity


def trellis_step(step: float) -> float:
    """Return the step of a trellis whose squared error is that of scalar quantisation with a step, about."""
    return short_float(step * _STEP_RATIO)


def prices_of_costs(bits: NDArray[np.float64], *, trellis: bool = True) -> NDArray[np.float32]:
    """Return what levels that cost so many bits, any shape, cost in squared steps, at the slope of `BIT_WORTH`.

    Args:
        trellis: whether the steps are those of a trellis.
    """
    worth = BIT_WORTH / _STEP_RATIO**2 if trellis else BIT_WORTH
    return (np.minimum(bits, _MOST_PRICE_BITS) * worth).astype(np.float32)


def next_state(state: NDArray[np.int64], parity: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the states, 0 … 7, that follow states by levels of a parity."""
    return ((state & 3) << 1) ^ 3 * (state >> 2) ^ (parity << 2)  # WIRE


def mirrored(levels: NDArray[np.int32], num_paths: int = PATHS) -> NDArray[np.bool_]:
    """Tell which values of levels (N,) are mirrored: those whose path was in a state of 4 or more."""
    num_steps = -(-levels.size // num_paths)
    parities = np.zeros(num_steps * num_paths, np.int64)
    parities[: levels.size] = levels & 1
    parities = parities.reshape(num_steps, num_paths)
    states = np.zeros((num_steps + 1, num_paths), np.int64)
    for step in range(num_steps):
        states[step + 1] = next_state(states[step], parities[step])
    return (states[:-1] >= 4).ravel()[: levels.size]


def reconstruct(levels: NDArray[np.int32], step: float, corrections: Corrections) -> NDArray[np.float32]:
    """Return the float32 values of levels (N,).

    Law: exact on every machine: float32, each operation rounded to nearest even, in this order (docs/payload/ecsq.md).
    """
    # WIRE
    values = levels.astype(np.float32) + shifts_of(corrections)[np.clip(levels, -2, 2) + 2]
    values = np.where(mirrored(levels), -values, values)
    with np.errstate(over="ignore", under="ignore"):  # what is not finite is the caller's to refuse
        return values * np.float32(step)


def shifts_of(corrections: Corrections) -> NDArray[np.float32]:
    """Return how far beyond its level a value lies, (5,), in steps: of the levels -2 (and less) … 2 (and more)."""
    zero, minus_one, one, others = (np.float32(correction) / np.float32(256) for correction in corrections)
    return np.array([-others, -minus_one, zero, one, others], np.float32) + _QUARTER


def _choices(
    quotients: NDArray[np.float32], mirror: bool, parity: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The levels of a quantiser and a parity that are nearest to quotients (N,), and the next ones towards 0."""
    values = -quotients if mirror else quotients
    half = (values - _QUARTER - np.float32(parity)) * np.float32(0.5)
    near = np.float32(2) * ((half + _ROUNDING) - _ROUNDING) + np.float32(parity)
    inner = near + np.where(near > 0, np.float32(-2), np.float32(2))
    return near, np.where(near == 0, near, inner)


class Search:
    """The search for the levels of least squared distance plus price, of elements that come some at a time.

    Element i belongs to path i mod P. What came can be looked at as it would be if nothing came after it.
    """

    def __init__(
        self, shifts: NDArray[np.float32], prices: NDArray[np.float32], states: NDArray[np.unsignedinteger]
    ) -> None:
        """Start in some states.

        Args:
            shifts: (K, 5), how far beyond the levels -2 (and less) … 2 (and more) values lie, in steps.
            prices: (K, 2 * MOST_PRICED + 1), of the levels from -MOST_PRICED on, in squared steps.
            states: (P,), that paths start in.
        """
        self._shifts, self._prices, self._num_paths = shifts, prices, states.size
        self._total = np.full((8, states.size), _FAR)
        self._total[states, np.arange(states.size)] = 0
        self._quotients = np.zeros(0, np.float32)
        self._inner_is_best = np.zeros((4, 0), np.bool_)
        self._late_is_best: list[NDArray[np.bool_]] = []  # of each step, (8, P)

    def take(self, quotients: NDArray[np.float32], tables: NDArray[np.int64]) -> None:
        """Take elements, quotients (N,) of weights by their steps; N is a multiple of P, but for the last ones.

        Args:
            tables: (N,), which row of shifts and prices each has.
        """
        count, num_paths = quotients.size, self._num_paths
        num_steps = -(-count // num_paths)
        costs = np.zeros((4, num_steps * num_paths), np.float32)
        inner_is_best = np.zeros((4, count), np.bool_)
        for branch in range(4):
            mirror = branch >= 2
            values = -quotients if mirror else quotients
            near, inner = (
                (values - (levels + self._shifts[tables, np.clip(levels, -2, 2).astype(np.int64) + 2]), levels)
                for levels in _choices(quotients, mirror, branch % 2)
            )
            cost, other = (
                distance * distance
                + self._prices[tables, np.clip(levels, -MOST_PRICED, MOST_PRICED).astype(np.int64) + MOST_PRICED]
                for distance, levels in (near, inner)
            )
            inner_is_best[branch] = other < cost
            costs[branch, :count] = np.where(other < cost, other, cost)
        self._quotients = np.concatenate([self._quotients, quotients])
        self._inner_is_best = np.concatenate([self._inner_is_best, inner_is_best], axis=1)
        branch_costs = costs.reshape(4, num_steps, num_paths)
        for step in range(num_steps):
            lanes = slice(0, min(num_paths, count - step * num_paths))
            early = self._total[_EARLY, lanes] + branch_costs[_EARLY_BRANCH, step, lanes]
            late = self._total[_EARLY | 2, lanes] + branch_costs[_EARLY_BRANCH ^ 1, step, lanes]
            late_is_best = np.zeros((8, num_paths), np.bool_)
            late_is_best[:, lanes] = late < early
            self._late_is_best.append(late_is_best)
            best = np.where(late < early, late, early)
            self._total[:, lanes] = best - best.min(axis=0)

    def found(self, first: int = 0) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
        """Return the best levels as yet, of all elements from the first on, a multiple of P; nothing is settled by it.

        Returns:
            Levels (N,), which of their values are mirrored, (N,), and the states that paths end in, (P,).
        """
        count, num_paths, lane = self._quotients.size, self._num_paths, np.arange(self._num_paths)
        state = self._total.argmin(axis=0)  # back from where each path costs least
        ends = state.copy()
        levels, mirrors = np.empty(count, np.int32), np.empty(count, np.bool_)
        for step in range(len(self._late_is_best) - 1, first // num_paths - 1, -1):
            present = lane[: count - step * num_paths]
            here = state[present]
            late = self._late_is_best[step][here, present].astype(np.int64)
            branch = _EARLY_BRANCH[here] ^ late
            state[present] = _EARLY[here] | late << 1
            at = step * num_paths + present
            mirrors[at] = branch >= 2
            for each in range(4):
                of_branch = at[branch == each]
                near, inner = _choices(self._quotients[of_branch], each >= 2, each % 2)
                levels[of_branch] = np.where(self._inner_is_best[each, of_branch], inner, near).astype(np.int32)
        return levels[first:], mirrors[first:], ends


@dataclass(frozen=True)
class Trellis:
    """Weights and the step of a trellis: a matrix (R, n), and levels that stand for it. The step is a float32 value."""

    weights: Weights
    step: float
    num_rows: int

    def levels(
        self, corrections: Corrections, prices: NDArray[np.float32], classes: NDArray[np.int64] | None
    ) -> NDArray[np.int32] | None:
        """Find the levels (R, n) of least squared error plus price; None if a weight is out of reach.

        Args:
            corrections: of the values that levels stand for.
            prices: (K, 2 * MOST_PRICED + 1), of the levels from -MOST_PRICED on, in squared steps, by class of rows.
            classes: (R,), or None with one class.
        """
        shape = self.num_rows, self.weights.bits.size // max(1, self.num_rows)
        if kernels := core():
            levels = np.empty(shape, np.int32)
            shifts = shifts_of(corrections).tolist()
            reached = kernels.trellis_levels(*self._operands, shifts, prices, classes, levels)
            return levels if reached else None
        values = self.weights.values()
        if not (np.abs(values) < _REACH * self.step).all():
            return None
        tables = np.zeros(values.size, np.int64) if classes is None else np.repeat(classes, shape[1])
        quotients = (values / self.step).astype(np.float32)
        shifts = np.tile(shifts_of(corrections), (len(prices), 1))
        search = Search(shifts, prices, np.zeros(PATHS, np.uint32))
        search.take(quotients, tables)
        return search.found()[0].reshape(shape)

    def corrections(self, levels: NDArray[np.int32]) -> Corrections:
        """Return the mean distance of the weights from their levels' values (R, n), outwards, each -128 … 127."""
        if kernels := core():
            totals, counts = kernels.trellis_sums(*self._operands, levels)
        else:
            flat = levels.ravel()
            points = reconstruct(flat, 1.0, NO_CORRECTIONS).astype(np.float64)
            beyond = np.where(points < 0, -1, 1) * (self.weights.values() / self.step - points)
            kind = np.select([flat == 0, flat == -1, flat == 1], [0, 1, 2], 3)
            # bincount adds in order, one value after the other.
            totals = np.bincount(kind, weights=beyond, minlength=4).tolist()
            counts = np.bincount(kind, minlength=4).tolist()
        zero, minus_one, one, others = (
            min(max(round(256 * total / count), -128), 127) if count else 0
            for total, count in zip(totals, counts, strict=True)
        )
        return zero, minus_one, one, others

    def distortion(self, levels: NDArray[np.int32], corrections: Corrections) -> Distortion:
        """Compare the weights with what their levels (R, n) decode to."""
        if kernels := core():
            shifts = shifts_of(corrections).tolist()
            return Distortion(*kernels.trellis_distortion(*self._operands, shifts, levels))
        return distortion_of(self.weights, reconstruct(levels.ravel(), self.step, corrections))

    @property
    def _operands(self) -> tuple[NDArray[np.unsignedinteger], int, float]:
        return self.weights.bits, self.weights.code, self.step
