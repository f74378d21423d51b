"""Poisson functional representation: of candidates with the times of a Poisson process, the one of least time by ratio.

Exact where the search ends by itself; cut off at a cap it leaves out the candidates that would have come later, less
bias than ordered random coding has with as many. Cost: at most I + log2(I + 1) + 4 bits in the mean (I the mean
divergence, in bits), and 2^D candidates in the mean, D the greatest log2 ratio.

Source: Li, El Gamal 2018 (arXiv:1701.02827), the Poisson functional representation.
"""

from numpy.typing import ArrayLike

from fewbits.channel.arrivals import poisson_times
from fewbits.channel.problem import Proposal, Target, problem_of
from fewbits.channel.scores import blocks_of, search_blocks
from fewbits.channel.simulator import ChannelSimulator, Message, checked_cap, search, stream_numbers
from fewbits.native import num_threads


class Pfr(ChannelSimulator):
    """The Poisson functional representation, cut off at a cap."""

    def __init__(self, cap: int = 1 << 20) -> None:
        """Look at this many candidates at most, from 1 to 2^31."""
        self._cap = checked_cap(cap)

    @property
    def cap(self) -> int:
        """Number of candidates after which the search ends."""
        return self._cap

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target; see `ChannelSimulator`.

        Gaussian targets against a standard normal proposal are scored by the core, in float32 (`scores`).
        """
        problem = problem_of(target, proposal)
        streams = stream_numbers(numbers, problem.size)
        blocks = blocks_of(target, proposal, problem.num_words)
        if blocks is None:
            return search(problem, poisson_times, self._cap, seed, streams)
        return search_blocks(seed, streams, self._cap, *blocks, num_threads(), is_sorted=False)
