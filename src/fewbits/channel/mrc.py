"""Minimal random coding: one of N candidates, drawn by its importance weight.

Bias: the sample is one of the target only as N grows: with N = 2^(KL + t) it is too spread out, by 20 % at t = 0, 9 %
at t = 2, 4 % at t = 4 (20 dimensions of half a bit each). Cost: log2 N bits, N candidates. Right where blocks are many
and N is small: a number of fixed length costs less than one that is entropy coded up to t = 2 or so.

Candidates may be each sample's own, or one table for all: then each sample still has its target's law, and N × dim
numbers are made once. A lattice fills space more evenly than random numbers do.

Source: Havasi, Peharz, Hernández-Lobato 2019 (arXiv:1810.00440), algorithm 1; its authors' code has one table of
low-discrepancy points for all blocks.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.channel.distributions import Floats
from fewbits.channel.problem import Proposal, Target, Values, drawn, num_words_of, problem_of
from fewbits.channel.scores import blocks_of, candidate_table, select_from_stream, select_from_table
from fewbits.channel.simulator import ChannelSimulator, Message, checked_cap, search, stream_numbers
from fewbits.errors import InvalidArgument
from fewbits.native import num_threads
from fewbits.random import CANDIDATES, Stream, lattice, words

CANDIDATES_KINDS = ("own", "shared", "lattice")  # WIRE: their places


class Mrc(ChannelSimulator):
    """Minimal random coding with a fixed number of candidates."""

    def __init__(self, num_candidates: int, *, candidates: str = "own", likeliest: bool = False) -> None:
        """Look at this many candidates, from 1 to 2^31: "own" ones of each sample, "shared" ones or a "lattice" of all.

        The likeliest one, of the greatest ratio, is no sample of the target, but nearer to its mean.

        Raises:
            InvalidArgument: the number or the kind is none of these.
        """
        if candidates not in CANDIDATES_KINDS:
            raise InvalidArgument(f"candidates are one of {', '.join(CANDIDATES_KINDS)}, not {candidates!r}.")
        self._cap, self._kind, self._likeliest = checked_cap(num_candidates), candidates, likeliest
        self._table: tuple[int, NDArray[np.float32]] | None = None  # with its seed

    @property
    def cap(self) -> int:
        """Number of candidates."""
        return self._cap

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target; see `ChannelSimulator`.

        Gaussian targets against a standard normal proposal are scored by the core, in float32 (`scores`).
        """
        problem = problem_of(target, proposal)
        streams = stream_numbers(numbers, problem.size)
        blocks = blocks_of(target, proposal, problem.num_words)
        if blocks is not None:
            indices = self._selected(*blocks, seed, streams)
            return Message.of(indices)._replace(num_candidates=np.full(problem.size, self._cap))
        if self._kind == "lattice":
            raise InvalidArgument("a lattice of candidates is for Gaussian targets and a standard normal proposal.")
        problem.greatest = np.full(problem.size, np.inf)  # all are looked at: times are in no order
        arrivals = _together if self._likeliest else _alone
        return search(problem, arrivals, self._cap, seed, streams, shared=self._kind == "shared", fixed=True)

    def __deepcopy__(self, memo: dict[int, object]) -> "Mrc":
        return self  # its table is large, and only remembered

    def _selected(
        self, a: NDArray[np.float32], b: NDArray[np.float32], seed: int, streams: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        is_noisy = not self._likeliest
        if self._kind == "own":
            return select_from_stream(seed, streams, self._cap, a, b, num_threads(), is_noisy=is_noisy)
        if self._table is None or self._table[0] != seed or len(self._table[1]) != a.shape[1]:
            kind = "philox" if self._kind == "shared" else "lattice"
            self._table = seed, candidate_table(seed, 0, self._cap, a.shape[1], kind)
        return select_from_table(seed, streams, self._table[1], a, b, num_threads(), is_noisy=is_noisy)

    def decode(self, message: Message, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Values:
        """Return the samples; see `ChannelSimulator`."""
        if self._kind == "own":
            return super().decode(message, proposal, seed=seed, numbers=numbers)
        self.check_indices(message.indices)
        stream_numbers(numbers, len(message.indices))
        if self._kind == "lattice":
            return drawn(proposal, lattice(Stream(seed, CANDIDATES), message.indices, num_words_of(proposal)))
        return drawn(proposal, words(seed, CANDIDATES, np.zeros(1, np.int64), message.indices, num_words_of(proposal)))


def _alone(exponentials: Floats, before: Floats, start: int) -> NDArray[np.float64]:
    """The least of exponentials divided by weights is each one's in proportion to its weight."""
    return exponentials


def _together(exponentials: Floats, before: Floats, start: int) -> NDArray[np.float64]:
    """All arrive at once: the one of the greatest weight is picked."""
    return np.ones_like(exponentials)
