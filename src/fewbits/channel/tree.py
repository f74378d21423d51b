"""Greedy Poisson rejection sampling over a dyadic tree: for one dimension, in steps that grow with the bits only.

Node 1 is the whole line; the halves of a node, by the proposal's probability, are nodes 2 h and 2 h + 1. Each holds the
first arrival of a Poisson process in it after its parent's, at a place drawn from the proposal inside it. In order of
time, the first arrival is taken that comes before its threshold, which is longer the greater the ratio there; nodes
where no later one can are left out.

Exact. Cost: about I + 6 bits at 12 bits of I, and about I steps, where the Poisson functional representation takes
2^D. For targets whose ratio has one hill.

Source: Flamich 2023 (arXiv:2305.15313), greedy Poisson rejection sampling and its branching form.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.channel.distributions import Floats, Real
from fewbits.channel.problem import Proposal, RealProblem, Target, Values, num_words_of
from fewbits.channel.simulator import ChannelSimulator, Message, stream_numbers
from fewbits.errors import InvalidArgument
from fewbits.random import CANDIDATES, PRIVATE, log, uniforms, words

MOST_DEPTH = 40  # WIRE: of a node; 2^-40 of the proposal's probability
_LEVELS, _LEAST_GAP, _MOST_GAP = 384, 1e-8, 80.0  # of thresholds: gaps between log ratio and its greatest


class Tree(ChannelSimulator):
    """Greedy Poisson rejection sampling over a dyadic tree."""

    def __init__(self, max_depth: int = MOST_DEPTH) -> None:
        """Look at nodes of this depth at most, from 1 to 40.

        Raises:
            InvalidArgument: the depth is out of its range.
        """
        if not 1 <= max_depth <= MOST_DEPTH:
            raise InvalidArgument(f"a tree's depth must be from 1 to {MOST_DEPTH}, not {max_depth}.")
        self._max_depth = max_depth

    @property
    def cap(self) -> int:
        """Number of nodes that may be sent."""
        return (2 << self._max_depth) - 1

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a node for each target; see `ChannelSimulator`.

        Raises:
            InvalidArgument: as there; or the targets have several dimensions, or are somewhere wider than the proposal,
                or their ratio has no bound, or they have a proposal each.
        """
        if not isinstance(target, Real) or not isinstance(proposal, Real):
            raise InvalidArgument("a tree is for real targets of one dimension.")
        problem = RealProblem(target, proposal)
        if proposal.low.ndim != 1:
            raise InvalidArgument("a tree has one proposal for all targets.")
        if not np.isfinite(problem.greatest).all():
            raise InvalidArgument("a tree is for targets whose ratio to the proposal is bounded.")
        streams = stream_numbers(numbers, problem.size)
        thresholds, root = _Thresholds(problem), np.ones(problem.size, np.int64)
        queue = _Queue(root[:, None], _waits(root, seed, streams)[:, None])
        index, steps = np.zeros(problem.size, np.int64), np.zeros(problem.size, np.int64)
        capped, open_rows = np.zeros(problem.size, np.bool_), np.arange(problem.size)
        while len(open_rows):
            node, time = queue.first()
            empty = ~np.isfinite(time)  # all that is left is below the deepest nodes: the last one looked at is kept
            places = node_values(node, proposal, seed, streams[open_rows])
            gaps = problem.greatest[open_rows] - problem.log_ratios_at(open_rows, places[:, None, None])[:, 0]
            taken = time <= thresholds.at(open_rows, gaps)
            index[open_rows] = np.where(empty, index[open_rows], node - 1)
            steps[open_rows] += ~empty
            capped[open_rows] = empty
            still = ~(taken | empty)
            children = self._children(problem, proposal, thresholds, open_rows, node, time, seed, streams)
            queue = queue.with_children(*children).of_rows(still)
            open_rows = open_rows[still]
        return Message(index, np.zeros((problem.size, 0), np.int64), steps, capped)

    def _children(
        self,
        problem: RealProblem,
        proposal: Real,
        thresholds: "_Thresholds",
        rows: NDArray[np.int64],
        node: NDArray[np.int64],
        time: Floats,
        seed: int,
        streams: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], Floats]:
        """The halves of nodes (A,): their numbers (A, 2) and arrival times, infinite where none can be taken."""
        halves = np.stack([2 * node, 2 * node + 1], 1)
        times = np.empty(halves.shape)
        for side in range(2):
            half = halves[:, side]
            times[:, side] = time + _waits(half, seed, streams[rows])
            low, high = node_ends(half, proposal)
            low, high = np.maximum(low, problem.low[rows, 0]), np.minimum(high, problem.high[rows, 0])
            ratio = type(problem.ratio)(*(each[rows, 0] for each in problem.ratio))
            nearest = np.where(low <= high, problem.greatest[rows] - ratio.greatest(low, high), np.inf)
            out = (times[:, side] >= thresholds.at(rows, nearest)) | (half >= 2 << self._max_depth)
            times[out, side] = np.inf
        return halves, times

    def decode(self, message: Message, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Values:
        """Return the samples (size, 1) float64; see `ChannelSimulator`."""
        self.check_indices(message.indices)
        if not isinstance(proposal, Real) or num_words_of(proposal) != 1 or proposal.low.ndim != 1:
            raise InvalidArgument("a tree is for real samples of one dimension.")
        streams = stream_numbers(numbers, len(message.indices))
        return node_values(message.indices + 1, proposal, seed, streams)[:, None]


class _Queue(NamedTuple):
    """Nodes (A, Q) that may still be taken, by arrival times (A, Q), infinite where there is none."""

    nodes: NDArray[np.int64]
    times: Floats

    def first(self) -> tuple[NDArray[np.int64], Floats]:
        """Return the earliest node of each row (A,), and its time."""
        rows, first = np.arange(len(self.times)), self.times.argmin(1)
        return self.nodes[rows, first], self.times[rows, first]

    def with_children(self, nodes: NDArray[np.int64], times: Floats) -> "_Queue":
        """Return the queue without its earliest nodes and with others (A, C), no wider than it must be."""
        rest = self.times.copy()
        rest[np.arange(len(rest)), rest.argmin(1)] = np.inf
        nodes, times = np.concatenate([self.nodes, nodes], 1), np.concatenate([rest, times], 1)
        width = max(1, int(np.isfinite(times).sum(1).max(initial=0)))
        order = np.argsort(times, 1)[:, :width]
        return _Queue(np.take_along_axis(nodes, order, 1), np.take_along_axis(times, order, 1))

    def of_rows(self, chosen: NDArray[np.bool_]) -> "_Queue":
        """Return the queue of some of the rows."""
        return _Queue(self.nodes[chosen], self.times[chosen])


def _depths(node: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.frexp(node.astype(np.float64))[1].astype(np.int64) - 1  # numbers below 2^41 are exact


def node_values(node: NDArray[np.int64], proposal: Real, seed: int, streams: NDArray[np.int64]) -> Floats:
    """Return the place of nodes' arrivals, (A,) float64.

    WIRE NUMERICS: position plus uniform, halved depth times, at most 1 - 2^-53: deep down the sum may round up to 1.
    """
    depth = _depths(node)
    uniform = uniforms(words(seed, CANDIDATES, streams, node, 1)[:, 0])
    shares = np.minimum(np.ldexp((node - (np.int64(1) << depth)) + uniform, -depth), 1 - 2.0**-53)
    return proposal.quantile(shares[:, None])[:, 0]


def node_ends(node: NDArray[np.int64], proposal: Real) -> tuple[Floats, Floats]:
    """Return where nodes end, (A,) float64 each, infinite at the ends of the line."""
    depth = _depths(node)
    position = (node - (np.int64(1) << depth)).astype(np.float64)
    ends: list[Floats] = []
    for shares, outermost, end in ((position, 0.0, proposal.low), (position + 1, 1.0, proposal.high)):
        share = np.ldexp(shares, -depth)
        inner = proposal.quantile(np.where(share == outermost, 0.5, share)[:, None])[:, 0]
        ends.append(np.where(share == outermost, np.broadcast_to(end, (len(node), 1))[:, 0], inner))
    return ends[0], ends[1]


def _waits(node: NDArray[np.int64], seed: int, streams: NDArray[np.int64]) -> Floats:
    """Exponentials of a rate that is the node's probability."""
    return np.ldexp(-log(uniforms(words(seed, PRIVATE, streams, node, 1)[:, 0])), _depths(node))


class _Thresholds:
    """Until when an arrival is taken, by the gap between the greatest log ratio and the one there.

    PAPER: the inverse of sigma: t(h) is the integral from 0 to h of 1 / (Q(ratio >= x) - x P(ratio >= x)) dx.
    """

    def __init__(self, problem: RealProblem) -> None:
        """Integrate, over gaps on a logarithmic scale, from the widest down."""
        self._step = np.log(_MOST_GAP / _LEAST_GAP) / (_LEVELS - 1)
        gaps = _LEAST_GAP * np.exp(self._step * np.arange(_LEVELS))
        rows = np.arange(problem.size)
        levels = problem.greatest[:, None] - gaps[None, :]
        target, proposal = problem.masses_above(rows, levels)
        heights = np.exp(levels)
        # NUMERICS: 0 at the top by rounding, where the threshold is beyond all times.
        left = np.maximum(target - heights * proposal, 1e-300)
        slopes = heights * gaps / left
        # NUMERICS: trapezia, and what the ends' curvature adds: without it thresholds are off by some 1e-3.
        bend = np.gradient(slopes, axis=1)
        areas = self._step * ((slopes[:, 1:] + slopes[:, :-1]) / 2 - (bend[:, 1:] - bend[:, :-1]) / 12)
        areas = np.maximum(areas, 0.0)
        widest = heights[:, -1:]  # below the last level the target is whole: t(h) = h
        self._times = widest + np.concatenate(
            [np.add.accumulate(areas[:, ::-1], 1)[:, ::-1], np.zeros((problem.size, 1))], 1
        )

    def at(self, rows: NDArray[np.int64], gaps: Floats) -> Floats:
        """Return the thresholds at gaps (A,): 0 where infinite, without end where there is none."""
        with np.errstate(divide="ignore"):
            place = (np.log(np.maximum(gaps, 0.0)) - np.log(_LEAST_GAP)) / self._step
        inside = np.clip(np.where(np.isfinite(place), place, 0.0), 0, _LEVELS - 1.000001)
        low = inside.astype(np.int64)
        between = inside - low
        times = self._times[rows, low] ** (1 - between) * self._times[rows, low + 1] ** between
        # Above the last gap t(h) = h; below the first one t grows as one by the root of the gap.
        with np.errstate(over="ignore"):
            longer = self._times[rows, 0] * np.exp(-0.5 * self._step * np.clip(place, -1e3, 0))
        times = np.where(place < 0, longer, times)
        wide = self._times[rows, -1] * np.exp(np.minimum(_MOST_GAP - gaps, 0.0))
        times = np.where(gaps > _MOST_GAP, wide, times)
        return np.where(np.isposinf(gaps), 0.0, np.where(gaps <= 0, np.inf, times))
