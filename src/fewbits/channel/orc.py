"""Ordered random coding: minimal random coding whose exponentials are sorted, so that small numbers are likelier.

Bias: that of minimal random coding with as many candidates, whose law it has. Cost: at most I + log2(I + 1) + 4 bits in
the mean however many candidates there are, all of which are looked at unless the ratio is bounded.

Source: Theis, Yosri 2022 (arXiv:2110.12805), algorithm 2.
"""

from numpy.typing import ArrayLike

from fewbits.channel.arrivals import sorted_times
from fewbits.channel.problem import Proposal, Target, problem_of
from fewbits.channel.scores import blocks_of, search_blocks
from fewbits.channel.simulator import ChannelSimulator, Message, checked_cap, search, stream_numbers
from fewbits.native import num_threads


class Orc(ChannelSimulator):
    """Ordered random coding with a fixed number of candidates."""

    def __init__(self, num_candidates: int) -> None:
        """Have this many candidates, from 1 to 2^31."""
        self._cap = checked_cap(num_candidates)

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
        if blocks is None:
            return search(problem, sorted_times(self._cap), self._cap, seed, streams, fixed=True)
        return search_blocks(seed, streams, self._cap, *blocks, num_threads(), is_sorted=True)
