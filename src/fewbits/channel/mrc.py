"""Minimal random coding: one of N candidates, drawn by its importance weight.

Bias: the sample is one of the target only as N grows: with N = 2^(KL + t) it is too spread out, by a quarter at t = 0
(20 dimensions), by a twelfth at t = 4. Cost: log2 N bits, N candidates. Right where blocks are many and N is small: a
number of fixed length costs less than one that is entropy coded up to t = 2 or so.

Source: Havasi, Peharz, Hernández-Lobato 2019 (arXiv:1810.00440), algorithm 1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.channel.distributions import Floats
from fewbits.channel.problem import Proposal, Target, problem_of
from fewbits.channel.simulator import ChannelSimulator, Message, checked_cap, search, stream_numbers


class Mrc(ChannelSimulator):
    """Minimal random coding with a fixed number of candidates."""

    def __init__(self, num_candidates: int) -> None:
        """Look at this many candidates, from 1 to 2^31."""
        self._cap = checked_cap(num_candidates)

    @property
    def cap(self) -> int:
        """Number of candidates."""
        return self._cap

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target; see `ChannelSimulator`."""
        problem = problem_of(target, proposal)
        problem.greatest = np.full(problem.size, np.inf)  # all are looked at: times are in no order
        message = search(problem, _alone, self._cap, seed, stream_numbers(numbers, problem.size))
        return message._replace(capped=np.zeros(problem.size, np.bool_))


def _alone(exponentials: Floats, before: Floats, start: int) -> NDArray[np.float64]:
    """The least of exponentials divided by weights is each one's in proportion to its weight."""
    return exponentials
