"""What the simulators that are not exact do instead: their law, and how their bias falls with the candidates."""

import numpy as np
import pytest

from fewbits.channel.distributions import Categorical, Counts, Gaussian
from fewbits.channel.hybrid import Hybrid
from fewbits.channel.mrc import Mrc
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.problem import problem_of
from fewbits.channel.simulator import ChannelSimulator
from tests.unit.channel.samples import DRAWS, NORMAL, chi_square, states, total_variation

NUM_STATES = 48
WEIGHTS = Categorical(np.random.default_rng(0).dirichlet(np.full(NUM_STATES, 0.15)))
EQUAL = Counts.uniform(NUM_STATES)


def spread(simulator: ChannelSimulator, seed: int = 1, reach: float = 1.0) -> float:
    """Mean squared distance of samples from their targets' means, over the targets' variance: 1 without bias."""
    sd, size = 0.1, 4000
    mean = np.random.default_rng(seed).normal(0, reach * np.sqrt(1 - sd**2), (size, 1))
    message = simulator.encode(Gaussian(mean, sd), NORMAL, seed=seed)
    return float((((simulator.decode(message, NORMAL, seed=seed) - mean) / sd) ** 2).mean())


@pytest.mark.parametrize("num_candidates", [4, 16, 64])
def test_minimal_and_ordered_random_coding_have_one_law(num_candidates: int) -> None:
    first, second = (
        states(each, WEIGHTS, EQUAL, seed) for seed, each in enumerate((Mrc(num_candidates), Orc(num_candidates)))
    )
    pooled = (first + second) / 2
    # Of two samples of one law each is off their mean by half of what it would be off a known one.
    expected = np.concatenate([pooled, pooled])
    counts = np.concatenate([first, second])
    assert chi_square(counts, expected) > 0.01
    assert total_variation(first, WEIGHTS.probabilities) > 0.04  # which is not the target


@pytest.mark.parametrize("kind", [Mrc, Orc])
def test_samples_are_less_spread_out_the_more_candidates_there_are(kind: type[Mrc] | type[Orc]) -> None:
    found = [spread(kind(num_candidates)) for num_candidates in (10, 40, 160, 1280)]  # 2^(I + t), t = 0, 2, 4, 7
    assert 2.2 < found[0] < 67 and 1.3 < found[1] < 5 and 1.03 < found[2] < 3 and 0.95 < found[3] < 1.12
    assert found == sorted(found, reverse=True)


def test_the_likeliest_candidate_is_nearer_to_the_mean_than_a_sample() -> None:
    target = Gaussian(np.random.default_rng(0).normal(0, 0.5, (500, 6)), 0.6)
    proposal = Gaussian(np.zeros(6), 1.0)
    for candidates in ("own", "shared", "lattice"):
        distances: list[float] = []
        for likeliest in (False, True):
            simulator = Mrc(1 << 10, candidates=candidates, likeliest=likeliest)
            message = simulator.encode(target, proposal, seed=1)
            distances.append(float(((simulator.decode(message, proposal, seed=1) - target.mean) ** 2).mean()))
        assert distances[1] < 0.8 * distances[0]
    weights = Categorical(np.tile(WEIGHTS.probabilities, (200, 1)))
    found = Mrc(1 << 10, likeliest=True).decode(
        Mrc(1 << 10, likeliest=True).encode(weights, EQUAL, seed=1), EQUAL, seed=1
    )
    assert (found == WEIGHTS.probabilities.argmax()).all()


def test_a_cut_poisson_process_has_less_bias_than_as_many_ordered_candidates() -> None:
    for num_candidates in (4, 16, 64):
        ordered, cut = (states(each(num_candidates), WEIGHTS, EQUAL, 5) for each in (Orc, Pfr))
        assert total_variation(cut, WEIGHTS.probabilities) < total_variation(ordered, WEIGHTS.probabilities)
    assert total_variation(cut, WEIGHTS.probabilities) < 0.03
    free = states(Pfr(), WEIGHTS, EQUAL, 5)
    assert total_variation(free, WEIGHTS.probabilities) < 0.02


def test_ordered_numbers_tell_less_than_those_of_minimal_random_coding() -> None:
    target = Categorical(np.tile(WEIGHTS.probabilities, (2000, 1)))
    minimal, ordered = (each(1024).encode(target, EQUAL, seed=1).indices for each in (Mrc, Orc))
    assert abs(minimal.mean() / 511.5 - 1) < 0.05  # any of them
    assert ordered.mean() < 30
    problem = problem_of(target, EQUAL)
    assert ordered.mean() < np.exp(problem.greatest[0]) * 2


def test_what_hybrid_coding_cuts_off_is_as_small_as_asked() -> None:
    target = Gaussian(np.full((DRAWS, 1), 0.5), 0.05)
    for tail in (1e-4, 0.2):
        simulator = Hybrid.fitting(target, NORMAL, tail=tail)
        message = simulator.encode(target, NORMAL, seed=2)
        reach = np.abs(simulator.decode(message, NORMAL, seed=2) - 0.5) / 0.05
        assert (reach <= {1e-4: 3.8906, 0.2: 1.2816}[tail]).all()
        assert abs(float((reach < 0.6745).mean()) - 0.5 / (1 - tail)) < 0.012


def test_hybrid_of_ordered_candidates_has_their_bias_and_no_cap() -> None:
    few, many = (Hybrid([3], cap=cap, ordered=True) for cap in (8, 512))
    # Not with means as far out as they come: where no candidate of a box is inside the support, the first one is sent.
    assert spread(few, reach=0.5) > 1.2 > 1.05 > spread(many, reach=0.5) > 0.95
    target = Gaussian(np.zeros((10, 1)), 0.1)
    assert not few.encode(target, NORMAL, seed=1).capped.any()
    assert Hybrid([3], cap=2).encode(target, NORMAL, seed=1).capped.any()
