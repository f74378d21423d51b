"""Hybrid coding: universal quantisation puts candidates near a target of bounded support, a simulator picks one.

The proposal's distribution function, times M, warps it to a uniform one between 0 and M, and every target's support to
a length of at most 1. A candidate is what quantising the support's centre with a shared dither gives, so all of them
lie in the unit box around it; sent are the number of the one picked and its cell, log2 M bits a dimension.

Exact for bounded supports; a Gaussian is cut to its middle first, and what is cut off (1e-4 of it) is the bias.
Cost: at most I + log2(I - log2 M + 1) + 4 bits in the mean, M the product over dimensions, and 2^D / M candidates.
Worth it where targets are narrow: below a sixth of the proposal's width M is 1, and nothing is gained.

Source: Theis, Yosri 2022 (arXiv:2110.12805), algorithm 3; CN115668777A, claims 16-20. Differs: the encoder's noise is
apart from the dither, and the bound that ends the search is that of the truncated target.
"""

import math
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.channel.arrivals import poisson_times, sorted_times
from fewbits.channel.distributions import Floats, Gaussian, Real, Uniform
from fewbits.channel.problem import Problem, Proposal, RealProblem, Target, Values, num_words_of
from fewbits.channel.simulator import (
    ChannelSimulator,
    Message,
    checked_cap,
    search,
    stream_numbers,
)
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.random import CANDIDATES, normal_quantile, uniforms, words

# WIRE: of a dimension; then cell and dither, 20 and 33 bits, add up without rounding, and no share of M becomes 1.
MOST_CELLS = 1 << 20


class Hybrid(ChannelSimulator):
    """Hybrid coding with so many cells a dimension, of the Poisson functional representation or of ordered candidates.

    num_cells: (dim,) int64, M of each dimension. The decoder needs it, and files store it.
    """

    def __init__(self, num_cells: ArrayLike, *, cap: int = 1 << 20, ordered: bool = False, tail: float = 1e-4) -> None:
        """Build the simulator.

        Args:
            num_cells: (dim,) integers from 1 to 2^20.
            cap: candidates after which the search ends; with `ordered` the number of candidates.
            ordered: pick by ordered random coding, which is biased, not by the Poisson functional representation.
            tail: probability of a whole Gaussian, over all dimensions, that is cut off.

        Raises:
            InvalidArgument: one of them is out of its range.
        """
        self.num_cells = np.asarray(num_cells, np.int64).reshape(-1)
        if not ((self.num_cells >= 1).all() and (self.num_cells <= MOST_CELLS).all()):
            raise InvalidArgument(f"hybrid coding has from 1 to {MOST_CELLS} cells a dimension.")
        if not 0 < tail < 1:
            raise InvalidArgument(f"the tail that is cut off must be between 0 and 1, not {tail}.")
        self._cap, self._arrivals, self._tail = checked_cap(cap), poisson_times, tail
        if ordered:
            self._arrivals = sorted_times(self._cap)
        self._ordered = ordered

    @classmethod
    def fitting(cls, target: Real, proposal: Gaussian | Uniform, *, tail: float = 1e-4, **settings: int | bool) -> Self:
        """Build the simulator with as many cells as targets like these allow, wherever their means are.

        A support counts as wide as it is where the proposal is steepest, centred on its mean.

        Args:
            target: (size, dim), of bounded support or Gaussian; the widest decides.
            proposal: (dim,).
            tail, settings: as for `Hybrid`.

        Raises:
            InvalidArgument: a support has no bounds.
        """
        bounded = truncated(target, tail)
        width = bounded.high - bounded.low
        if isinstance(proposal, Gaussian):
            masses = proposal.mass(proposal.mean - width / 2, proposal.mean + width / 2)
        else:
            masses = np.minimum(width / (proposal.high - proposal.low), 1.0)
        widest = np.atleast_2d(masses).max(0)
        return cls(np.clip(np.floor(1 / widest), 1, MOST_CELLS).astype(np.int64), tail=tail, **settings)  # pyright: ignore

    @property
    def cap(self) -> int:
        """Number of candidates after which the search ends."""
        return self._cap

    @property
    def cell_bits(self) -> float:
        """Bits of a sample's cells: the sum of log2 M."""
        return float(np.log2(self.num_cells).sum())

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target; see `ChannelSimulator`.

        Raises:
            InvalidArgument: as there; or a support is wider than a cell, or has no bounds.
        """
        if not isinstance(target, Real) or not isinstance(proposal, Real):
            raise InvalidArgument("hybrid coding is for real targets.")
        bounded = truncated(target, self._tail)
        problem = _Warped(bounded, proposal, self.num_cells)
        streams = stream_numbers(numbers, problem.size)
        message = search(problem, self._arrivals, self._cap, seed, streams, fixed=self._ordered)
        dither = uniforms(words(seed, CANDIDATES, streams, message.indices, problem.num_words))
        offsets = problem.cells(np.arange(problem.size), dither[:, None, :])[:, 0]
        return message._replace(offsets=offsets.astype(np.int64))

    def decode(self, message: Message, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Values:
        """Return the samples (size, dim) float64; see `ChannelSimulator`."""
        self.check_indices(message.indices)
        if not isinstance(proposal, Real) or num_words_of(proposal) != len(self.num_cells):
            raise InvalidArgument("hybrid coding is for real samples, with cells of each of their dimensions.")
        if message.offsets.shape != (len(message.indices), len(self.num_cells)):
            raise InvalidArgument("every sample of hybrid coding has an offset for each dimension.")
        if ((message.offsets < 0) | (message.offsets >= self.num_cells)).any():
            raise Corrupt("a sample's cell is beyond the number of cells.")
        streams = stream_numbers(numbers, len(message.indices))
        dither = uniforms(words(seed, CANDIDATES, streams, message.indices, len(self.num_cells)))
        # WIRE NUMERICS: one addition, one division, then the proposal's quantile.
        return proposal.quantile((message.offsets + dither) / self.num_cells)


def truncated(target: Real, tail: float) -> Real:
    """Return a target of bounded support: a whole Gaussian loses this much probability, as much in each dimension.

    Raises:
        InvalidArgument: a support is bounded on one side only.
    """
    if np.isfinite(target.low).all() and np.isfinite(target.high).all():
        return target
    if not isinstance(target, Gaussian) or np.isfinite(target.low).any() or np.isfinite(target.high).any():
        raise InvalidArgument("hybrid coding needs targets of bounded support, or whole Gaussians.")
    each = -math.expm1(math.log1p(-tail) / target.mean.shape[-1])
    reach = target.sd * float(normal_quantile(np.asarray(1 - each / 2)))
    return target.truncated(target.mean - reach, target.mean + reach)


class _Warped(Problem):
    """Targets in the proposal's distribution function, times M, against the uniform unit box around their centre."""

    def __init__(self, target: Real, proposal: Gaussian | Uniform | Real, num_cells: NDArray[np.int64]) -> None:
        if not isinstance(proposal, Gaussian | Uniform):
            raise InvalidArgument("hybrid coding has a Gaussian or a uniform proposal.")
        self._plain = RealProblem(target, proposal)
        self.size, self.num_words = self._plain.size, self._plain.num_words
        if self.num_words != len(num_cells):
            raise InvalidArgument(f"cells of {len(num_cells)} dimensions are not for targets of {self.num_words}.")
        self._proposal, self._num_cells = proposal, num_cells
        first, last = (num_cells * proposal.cdf(end) for end in (self._plain.low, self._plain.high))
        if (last - first > 1 + 1e-9).any():
            raise InvalidArgument("a target's support is wider than a cell: hybrid coding needs fewer of them.")
        self._centre = np.clip((first + last) / 2, 0.5, num_cells - 0.5)
        self._cell_nats = float(np.log(num_cells).sum())
        self.greatest = self._plain.greatest - self._cell_nats
        self.divergence = np.maximum(self._plain.divergence - self._cell_nats, 0.0)

    def cells(self, rows: NDArray[np.int64], dither: Floats) -> Floats:
        """Cells of candidates whose dither is (A, N, dim): what quantising the centre gives, a whole number each."""
        # PAPER: K = round(c - U), ties upwards; c - U + 1/2 may leave 0 … M - 1 by a rounding error.
        rounded = np.floor(self._centre[rows][:, None, :] - dither + 0.5)
        return np.clip(rounded, 0, self._num_cells - 1)

    def log_ratios(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> Floats:
        dither = uniforms(words)
        shares = (self.cells(rows, dither) + dither) / self._num_cells
        proposal = self._proposal
        if proposal.low.ndim == 2 or (isinstance(proposal, Gaussian) and proposal.mean.ndim == 2):
            raise InvalidArgument("hybrid coding has one proposal for all targets.")
        return self._plain.log_ratios_at(rows, proposal.quantile(shares)) - self._cell_nats

    def masses_above(self, rows: NDArray[np.int64], level: Floats) -> tuple[Floats, Floats]:
        target, proposal = self._plain.masses_above(rows, level + self._cell_nats)
        return target, proposal * math.exp(self._cell_nats)
