"""Targets of every kind, simulators for them, and what says whether draws follow a distribution."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewbits.channel.distributions import Categorical, Counts, Floats, Gaussian, Real, Uniform
from fewbits.channel.greedy import Greedy
from fewbits.channel.hybrid import Hybrid
from fewbits.channel.mrc import Mrc
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.problem import Proposal, Target, Values
from fewbits.channel.simulator import ChannelSimulator, Message
from fewbits.channel.tree import Tree

DRAWS, BATCH = 20_000, 1_000  # a tree has large tables for each target
NORMAL, UNIT = Gaussian(np.zeros(1), 1.0), Uniform(np.zeros(1), 1.0)


class Case(NamedTuple):
    """A simulator with a batch of targets that it is for."""

    simulator: ChannelSimulator
    target: Target
    proposal: Proposal


def same(real: Real, count: int) -> Real:
    """A distribution (dim,) as that many equal targets."""
    return real.mapped(lambda each: np.broadcast_to(each, (count, *each.shape)))


def draws(simulator: ChannelSimulator, target: Real, proposal: Proposal, seed: int, count: int = DRAWS) -> Floats:
    """Samples of one target (dim,), decoded: (count, dim)."""
    found: list[Values] = []
    batch = BATCH if isinstance(simulator, Tree) else count
    for start in range(0, count, batch):
        numbers = np.arange(start, min(start + batch, count))
        message = simulator.encode(same(target, len(numbers)), proposal, seed=seed, numbers=numbers)
        found.append(simulator.decode(message, proposal, seed=seed, numbers=numbers))
    return np.concatenate(found)


def states(simulator: ChannelSimulator, target: Categorical, proposal: Counts, seed: int) -> NDArray[np.int64]:
    """How often each state of one target (states,) was sent in as many draws as `DRAWS`."""
    repeated = Categorical(np.tile(target.probabilities, (DRAWS, 1)))
    message = simulator.encode(repeated, proposal, seed=seed)
    values = simulator.decode(message, proposal, seed=seed)
    return np.bincount(values, minlength=len(proposal.counts))


def kolmogorov_smirnov(cdf_values: Floats) -> float:
    """The probability that draws of a distribution are as far from it as these, by their distribution function."""
    ordered, count = np.sort(cdf_values), len(cdf_values)
    above = (np.arange(1, count + 1) / count - ordered).max()
    below = (ordered - np.arange(count) / count).max()
    root = math.sqrt(count)
    scaled = (root + 0.12 + 0.11 / root) * max(above, below)
    if scaled < 0.2:  # where the series has not begun to converge, and the probability is 1 to 12 digits
        return 1.0
    return 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))


def chi_square(counts: NDArray[np.int64], expected: Floats) -> float:
    """The probability that Pearson's statistic is as large as that of counts, of which none may be where 0 are due."""
    due = expected > 0
    assert not counts[~due].any()
    statistic = float(((counts - expected)[due] ** 2 / expected[due]).sum())
    half = torch.tensor([(int(due.sum()) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def total_variation(counts: NDArray[np.int64], probabilities: Floats) -> float:
    """Half the sum of absolute differences between two distributions of states."""
    return float(np.abs(counts / counts.sum() - probabilities).sum() / 2)


def targets(rng: np.random.Generator, size: int, dim: int) -> tuple[Gaussian, Gaussian]:
    """Random Gaussian targets (size, dim), truncated ones among them, all narrower than their proposal (dim,)."""
    proposal = Gaussian(rng.normal(0, 3, dim), rng.uniform(0.5, 2, dim))
    sd = proposal.sd * rng.uniform(0.2, 0.9, (size, dim)) ** (1 / dim)
    mean = proposal.mean + rng.normal(0, 0.7, (size, dim)) * np.sqrt(proposal.sd**2 - sd**2)
    if rng.random() < 0.5:
        return Gaussian(mean, sd), proposal
    return Gaussian(mean, sd, mean - 2 * sd, mean + sd), proposal


def cases(rng: np.random.Generator, size: int) -> dict[str, Case]:
    """A batch of random targets for each simulator, for most of them also in several dimensions or of states."""
    line, line_proposal = targets(rng, size, 1)
    space, space_proposal = targets(rng, size, 3)
    wide, wide_proposal = targets(rng, size, 11)
    states = Categorical(rng.dirichlet(np.full(6, 0.4), size))
    counts = Counts.uniform(6)
    narrow = Gaussian(rng.normal(0, 1, (size, 2)), rng.uniform(0.01, 0.05, 2))
    plane = Gaussian(np.zeros(2), 1.0)
    left = rng.uniform(0, 0.8, (size, 1))
    intervals = Uniform(left, left + rng.uniform(0.05, 0.15, (size, 1)))
    return {
        "pfr": Case(Pfr(1 << 9), line, line_proposal),
        "pfr dim 3": Case(Pfr(300), space, space_proposal),
        "pfr states": Case(Pfr(1 << 9), states, counts),
        "orc dim 11": Case(Orc(100), wide, wide_proposal),
        "orc states": Case(Orc(100), states, counts),
        "mrc dim 3": Case(Mrc(70), space, space_proposal),
        "mrc": Case(Mrc(70), intervals, UNIT),
        "hybrid dim 2": Case(Hybrid.fitting(narrow, plane, cap=1 << 10), narrow, plane),
        "hybrid ordered": Case(Hybrid([6], cap=64, ordered=True), intervals, UNIT),
        "greedy": Case(Greedy(200), line, line_proposal),
        "greedy states": Case(Greedy(200), states, counts),
        "tree": Case(Tree(), line, line_proposal),
        "tree uniform": Case(Tree(), intervals, UNIT),
    }


def bare(message: Message) -> Message:
    """What is sent of a message; to read the rest fails."""
    return message._replace(num_candidates=None, capped=None)  # type: ignore
