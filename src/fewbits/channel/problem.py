"""A batch of targets against one proposal: candidates, and how much more often a target has them."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from fewbits.channel.distributions import Categorical, Counts, Floats, Gaussian, Parabola, Real, Uniform
from fewbits.errors import InvalidArgument
from fewbits.random import uniforms

Target = Real | Categorical
Proposal = Gaussian | Uniform | Counts
Values = NDArray[np.float64] | NDArray[np.int64]


class Ratios(ABC):
    """What a search asks of targets and proposal; logarithms are natural.

    size: number of targets; num_words: words that a candidate is made of.
    greatest: (size,) float64, upper bound of the log ratio of target to proposal, infinite where there is none.
    """

    size: int
    num_words: int
    greatest: Floats

    @abstractmethod
    def log_ratios(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> Floats:
        """Return log target - log proposal of candidates.

        Args:
            rows: (A,) which targets.
            words: (A, N, num_words) uint32.

        Returns:
            (A, N) float64, -inf outside a target's support.
        """


class Problem(Ratios):
    """What simulators ask that know more of a target than ratios.

    divergence: (size,) float64, Kullback-Leibler divergence of the target from the proposal, in nats.
    """

    divergence: Floats

    @abstractmethod
    def masses_above(self, rows: NDArray[np.int64], level: Floats) -> tuple[Floats, Floats]:
        """Return the probabilities, of target and proposal, that the log ratio is at least a level, (...) float64.

        Args:
            rows: (A,) which targets.
            level: (A,) or (A, L) float64.

        Raises:
            InvalidArgument: the targets have several dimensions, or are somewhere wider than the proposal.
        """


def problem_of(target: Target, proposal: Proposal) -> Problem:
    """Return the problem of sending samples of targets.

    Raises:
        InvalidArgument: a target's support is not inside the proposal's, or they are of two kinds.
    """
    if isinstance(target, Categorical) and isinstance(proposal, Counts):
        return CategoricalProblem(target, proposal)
    if isinstance(target, Real) and isinstance(proposal, Real):
        return RealProblem(target, proposal)
    raise InvalidArgument("targets and their proposal are of two kinds: real and categorical.")


def drawn(proposal: Proposal, words: NDArray[np.uint32]) -> Values:
    """Return what a proposal makes of words (..., num_words): (..., dim) float64, of states (...) int64."""
    if isinstance(proposal, Counts):
        return proposal.drawn(words[..., 0])
    return proposal.quantile(uniforms(words))


def num_words_of(proposal: Proposal) -> int:
    """Return how many words a candidate is made of.

    Raises:
        InvalidArgument: the proposal has no axis of dimensions, or is a truncated Gaussian, of which none can be drawn.
    """
    if isinstance(proposal, Counts):
        return 1
    if not proposal.low.ndim:
        raise InvalidArgument("a proposal comes as (dim,) arrays, not as numbers.")
    if isinstance(proposal, Gaussian) and (np.isfinite(proposal.low).any() or np.isfinite(proposal.high).any()):
        raise InvalidArgument("candidates of a truncated Gaussian cannot be drawn: a proposal is whole or uniform.")
    return proposal.low.shape[-1]


class RealProblem(Problem):
    """Independent real coordinates."""

    def __init__(self, target: Real, proposal: Gaussian | Uniform) -> None:
        """Check and measure; arrays of the target are (size, dim), of the proposal (dim,) or (size, dim)."""
        given, num_words = target.low.shape, num_words_of(proposal)
        # As many samples as targets: decoding has the proposal's shape alone, and one of (size, dim) must fit too.
        if len(given) != 2 or given[1] not in (1, num_words) or proposal.low.shape[:-1] not in ((), given[:1]):
            raise InvalidArgument(f"targets of {given} do not fit a proposal of {proposal.low.shape}.")
        shape = (given[0], num_words)
        self.size, self.num_words = shape
        self.target, self.proposal = target, proposal
        self.low, self.high = (np.broadcast_to(end, shape) for end in (target.low, target.high))
        if (self.low < proposal.low).any() or (self.high > proposal.high).any():
            raise InvalidArgument("the support of a target is not inside that of the proposal.")
        self.ratio = Parabola(*(np.broadcast_to(each, shape) for each in target.parabola.minus(proposal.parabola)))
        self.greatest = self.ratio.greatest(self.low, self.high).sum(1)
        mean, square = target.moments()
        terms = self.ratio.square * square + self.ratio.slope * mean + self.ratio.level
        self.divergence = np.maximum(terms.sum(1), 0.0)

    def log_ratios(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> Floats:
        """Return log target - log proposal of candidates; see `Problem`."""
        return self.log_ratios_at(rows, _rows_of(self.proposal, rows, 2).quantile(uniforms(words)))

    def log_ratios_at(self, rows: NDArray[np.int64], values: Floats) -> Floats:
        """Return the same at values (A, N, dim) float64."""
        square, slope, level, low, high = (each[rows][:, None, :] for each in (*self.ratio, self.low, self.high))
        total = Parabola(square, slope, level)(values).sum(-1)
        return np.where(((values >= low) & (values <= high)).all(-1), total, -np.inf)

    def masses_above(self, rows: NDArray[np.int64], level: Floats) -> tuple[Floats, Floats]:
        """Return the probabilities that the log ratio is at least a level; see `Problem`."""
        if self.num_words != 1:
            raise InvalidArgument("this simulator is for one dimension.")
        if (self.ratio.square > 0).any():
            raise InvalidArgument("this simulator is for targets that are nowhere wider than the proposal.")
        levels = level if level.ndim == 2 else level[:, None]
        ends = _between(Parabola(*(each[rows] for each in self.ratio)), levels)
        target, proposal = (_rows_of(each, rows, 1) for each in (self.target, self.proposal))
        ends = np.maximum(ends[0], self.low[rows]), np.minimum(ends[1], self.high[rows])
        return target.mass(*ends).reshape(level.shape), proposal.mass(*ends).reshape(level.shape)


def _between(parabola: Parabola, level: Floats) -> tuple[Floats, Floats]:
    """The ends between which a parabola (A, 1) that is nowhere convex is at least a level (A, L)."""
    square, slope, top = np.broadcast_arrays(*parabola, level)[:3]
    rest = top - level
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = -slope / (2 * square)
        reach = centre**2 - rest / square
        half = np.sqrt(np.maximum(reach, 0.0))
        crossing = -rest / slope
        first, last = centre - half, centre + half
    empty = rest < 0
    flat = np.where(empty, np.inf, -np.inf), np.where(empty, -np.inf, np.inf)
    rising, falling = slope > 0, slope < 0
    line = (
        np.where(rising, crossing, np.where(falling, -np.inf, flat[0])),
        np.where(falling, crossing, np.where(rising, np.inf, flat[1])),
    )
    first = np.where(square < 0, np.where(reach < 0, np.inf, first), line[0])
    return first, np.where(square < 0, last, line[1])


class CategoricalProblem(Problem):
    """One of some states."""

    num_words = 1

    def __init__(self, target: Categorical, proposal: Counts) -> None:
        """Check and measure; the target's probabilities are (size, states)."""
        if target.probabilities.ndim != 2 or target.probabilities.shape[1] != len(proposal.counts):
            raise InvalidArgument("targets come as (size, states) arrays, of the proposal's states.")
        self.size = len(target.probabilities)
        self.target, self.proposal = target.probabilities, proposal
        if (self.target[:, proposal.counts == 0] > 0).any():
            raise InvalidArgument("the support of a target is not inside that of the proposal.")
        with np.errstate(divide="ignore", invalid="ignore"):
            table = np.log(self.target) - np.log(proposal.probabilities)
        self.table = np.where(self.target > 0, table, -np.inf)
        self.greatest = self.table.max(1)
        self.divergence = np.maximum((self.target * np.where(self.target > 0, table, 0.0)).sum(1), 0.0)

    def log_ratios(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> Floats:
        """Return log target - log proposal of candidates; see `Problem`."""
        return self.table[rows[:, None], self.proposal.drawn(words[..., 0])]

    def masses_above(self, rows: NDArray[np.int64], level: Floats) -> tuple[Floats, Floats]:
        """Return the probabilities that the log ratio is at least a level; see `Problem`."""
        levels = level if level.ndim == 2 else level[:, None]
        above = self.table[rows][:, None, :] >= levels[:, :, None]
        masses = (self.target[rows][:, None, :], self.proposal.probabilities)
        target, proposal = ((mass * above).sum(-1).reshape(level.shape) for mass in masses)
        return target, proposal


def _rows_of(real: Real, rows: NDArray[np.int64], axes: int) -> Real:
    """A distribution for some of the rows, its arrays (A, dim) or, with an axis for candidates, (A, 1, dim)."""

    def chosen(each: Floats) -> Floats:
        if each.ndim < 2:
            return each
        return each[rows] if axes == 1 else each[rows][:, None, :]

    return real.mapped(chosen)
