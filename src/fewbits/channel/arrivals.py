"""When candidates arrive: of two the one that arrives earlier, by its ratio, is picked."""

from collections.abc import Callable

import numpy as np

from fewbits.channel.distributions import Floats

# Arrival times of candidates n = start … start + count - 1: from exponentials (A, count) and the times before (A,).
Arrivals = Callable[[Floats, Floats, int], Floats]


def poisson_times(exponentials: Floats, before: Floats, start: int) -> Floats:
    """Return arrival times of a Poisson process of rate 1."""
    return np.add.accumulate(np.concatenate([before[:, None], exponentials], 1), 1)[:, 1:]


def sorted_times(num_candidates: int) -> Arrivals:
    """Return the times of N exponentials in rising order, times N: of the n-th gap the rate is (N - n + 1) / N."""

    def times(exponentials: Floats, before: Floats, start: int) -> Floats:
        left = num_candidates - np.arange(start, start + exponentials.shape[1], dtype=np.float64)
        return poisson_times(exponentials * (num_candidates / left), before, start)

    return times
