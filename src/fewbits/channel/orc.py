"""Ordered random coding: minimal random coding whose exponentials are sorted, so that small numbers are likelier.

Bias: that of minimal random coding with as many candidates, whose law it has. Cost: at most I + log2(I + 1) + 4 bits in
the mean however many candidates there are, all of which are looked at unless the ratio is bounded.

Source: Theis, Yosri 2022 (arXiv:2110.12805), algorithm 2.
"""

import numpy as np
from numpy.typing import ArrayLike

from fewbits.channel.distributions import Floats
from fewbits.channel.problem import Proposal, Target, problem_of
from fewbits.channel.simulator import (
    Arrivals,
    ChannelSimulator,
    Message,
    checked_cap,
    poisson_times,
    search,
    stream_numbers,
)


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
        """Pick a candidate for each target; see `ChannelSimulator`."""
        problem = problem_of(target, proposal)
        streams = stream_numbers(numbers, problem.size)
        message = search(problem, sorted_times(self._cap), self._cap, seed, streams)
        return message._replace(capped=np.zeros(problem.size, np.bool_))  # having all N is no accident


def sorted_times(num_candidates: int) -> Arrivals:
    """Return the times of N exponentials in rising order, times N: of the n-th gap the rate is (N - n + 1) / N."""

    def times(exponentials: Floats, before: Floats, start: int) -> Floats:
        left = num_candidates - np.arange(start, start + exponentials.shape[1], dtype=np.float64)
        return poisson_times(exponentials * (num_candidates / left), before, start)

    return times
