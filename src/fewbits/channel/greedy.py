"""Greedy rejection sampling: each candidate takes over as much of the target as is not yet covered.

Exact where it ends by itself. Cost about that of the Poisson functional representation; 2^D candidates in the mean, D
the greatest log2 ratio. For one dimension, where a target's ratio has one hill, and for categorical targets: the mass
above each level of the ratio has to be known.

Source: Harsha, Jain, McAllester, Radhakrishnan 2007, "The communication complexity of correlation"; by levels of the
ratio as in Flamich, Markou, Hernández-Lobato 2023 (arXiv:2309.15746).
"""

import numpy as np
from numpy.typing import ArrayLike

from fewbits.channel.problem import Proposal, Target, problem_of
from fewbits.channel.simulator import ChannelSimulator, Message, checked_cap, stream_numbers
from fewbits.random import CANDIDATES, PRIVATE, uniforms, words


class Greedy(ChannelSimulator):
    """Greedy rejection sampling, cut off at a cap."""

    def __init__(self, cap: int = 1 << 16) -> None:
        """Look at this many candidates at most, from 1 to 2^31."""
        self._cap = checked_cap(cap)

    @property
    def cap(self) -> int:
        """Number of candidates after which the search ends."""
        return self._cap

    def encode(self, target: Target, proposal: Proposal, *, seed: int, numbers: ArrayLike | None = None) -> Message:
        """Pick a candidate for each target; see `ChannelSimulator`.

        Raises:
            InvalidArgument: as there; or the targets have several dimensions, or are somewhere wider than the proposal.
        """
        problem = problem_of(target, proposal)
        streams = stream_numbers(numbers, problem.size)
        index, open_rows = np.zeros(problem.size, np.int64), np.arange(problem.size)
        # What is covered: the target up to `covered` times the proposal. `left` of the target is not yet.
        covered, left = np.zeros(problem.size), np.ones(problem.size)
        looked_at = np.zeros(problem.size, np.int64)
        likeliest, ratio = np.zeros(problem.size, np.int64), np.full(problem.size, -np.inf)
        for step in range(self._cap):
            if not len(open_rows):
                break
            item, chosen = np.asarray(step), streams[open_rows]
            candidates = words(seed, CANDIDATES, chosen, item, problem.num_words)
            log_ratio = problem.log_ratios(open_rows, candidates[:, None, :])[:, 0]
            noise = uniforms(words(seed, PRIVATE, chosen, item, 1)[:, 0])
            # Accepted with probability (ratio - covered) / left, between 0 and 1.
            accepted = np.exp(np.minimum(log_ratio, 700.0)) > covered[open_rows] + noise * left[open_rows]
            index[open_rows], looked_at[open_rows] = step, step + 1
            likeliest[open_rows] = np.where(log_ratio > ratio[open_rows], step, likeliest[open_rows])
            ratio[open_rows] = np.maximum(ratio[open_rows], log_ratio)
            # Where rounding has left nothing to cover, the candidate at hand is taken.
            open_rows = open_rows[~accepted & (left[open_rows] > 0)]
            covered[open_rows] += left[open_rows]
            above, below = problem.masses_above(open_rows, np.log(covered[open_rows]))
            left[open_rows] = np.maximum(above - covered[open_rows] * below, 0.0)
        capped = np.zeros(problem.size, np.bool_)
        capped[open_rows] = True
        index[open_rows] = likeliest[open_rows]  # whichever comes last at the cap may be anywhere
        return Message(index, np.zeros((problem.size, 0), np.int64), looked_at, capped)
