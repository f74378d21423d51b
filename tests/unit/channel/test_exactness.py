"""Exact simulators send samples of the target, at fixed targets; the encoder's noise is apart from the candidates."""

from collections.abc import Callable

import numpy as np
import pytest

from fewbits.channel.distributions import Categorical, Counts, Gaussian, Real, Uniform
from fewbits.channel.greedy import Greedy
from fewbits.channel.hybrid import Hybrid
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.problem import Proposal
from fewbits.channel.simulator import ChannelSimulator
from fewbits.channel.tree import Tree
from fewbits.random import CANDIDATES, PRIVATE
from tests.unit.channel.samples import DRAWS, NORMAL, UNIT, chi_square, draws, kolmogorov_smirnov, same, states

# Fixed targets: over random ones errors of opposite signs cancel. The last two have a ratio without a hill inside.
TARGETS: dict[str, tuple[Real, Proposal]] = {
    "wide Gaussian": (Gaussian(np.zeros(1), 0.5), NORMAL),
    "Gaussian off centre": (Gaussian(np.ones(1), 0.3), NORMAL),
    "narrow Gaussian": (Gaussian(np.full(1, -0.6), 0.08), NORMAL),
    "Gaussian cut at its mean": (Gaussian(np.full(1, 0.3), 0.4, 0.3, 1.1), NORMAL),
    "Gaussian in an interval": (Gaussian(np.full(1, 0.7), 0.1, 0.55, 0.95), UNIT),
    "uniform in an interval": (Uniform(np.full(1, 0.3), 0.45), UNIT),
    "Gaussian of the same width, cut": (Gaussian(np.full(1, 1.5), 1.0, -0.5, 0.9), NORMAL),
}
SIMULATORS: dict[str, Callable[[Real, Proposal], ChannelSimulator]] = {
    "pfr": lambda target, proposal: Pfr(),
    "hybrid": lambda target, proposal: Hybrid.fitting(same(target, 1), proposal),  # pyright: ignore
    "greedy": lambda target, proposal: Greedy(),
    "tree": lambda target, proposal: Tree(),
}
SEED = 7


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SIMULATORS)
def test_samples_follow_the_target(name: str, target: str) -> None:
    wanted, proposal = TARGETS[target]
    found = draws(SIMULATORS[name](wanted, proposal), wanted, proposal, SEED)
    assert found.shape == (DRAWS, 1)
    assert kolmogorov_smirnov(wanted.cdf(found)[:, 0]) > 0.01


@pytest.mark.parametrize("name", ["pfr", "hybrid"])
def test_coordinates_follow_the_target_and_are_independent(name: str) -> None:
    wanted, proposal = Gaussian(np.array([0.8, -0.3]), np.array([0.3, 0.09])), Gaussian(np.zeros(2), 1.0)
    ranks = wanted.cdf(draws(SIMULATORS[name](wanted, proposal), wanted, proposal, SEED))
    assert min(kolmogorov_smirnov(ranks[:, 0]), kolmogorov_smirnov(ranks[:, 1])) > 0.01
    # Where one coordinate is in the other's lower half says nothing of it.
    assert chi_square(np.histogram2d(*ranks.T, 5, [(0, 1), (0, 1)])[0].ravel(), np.full(25, DRAWS / 25)) > 0.01


@pytest.mark.parametrize("simulator", [Pfr(), Greedy()], ids=["pfr", "greedy"])
def test_states_follow_the_target(simulator: ChannelSimulator) -> None:
    weights = np.array([0.35, 0.0, 0.02, 0.3, 0.08, 0.0, 0.05, 0.2])
    counts = np.array([1, 2, 3, 1, 1, 1, 1, 6]) << 28
    found = states(simulator, Categorical(weights), Counts(counts), SEED)
    assert chi_square(found, DRAWS * weights) > 0.01


def test_a_uniform_target_that_is_the_proposal_costs_one_candidate() -> None:
    for simulator in (Pfr(), Greedy(), Tree(), Hybrid([1])):
        message = simulator.encode(same(UNIT, 50), UNIT, seed=SEED)
        assert not message.indices.any() and (message.num_candidates == 1).all()


# ---- what the tests above would catch


def test_a_biased_simulator_is_caught() -> None:
    wanted, proposal = TARGETS["Gaussian off centre"]
    assert kolmogorov_smirnov(wanted.cdf(draws(Orc(30), wanted, proposal, SEED))[:, 0]) < 1e-6


@pytest.mark.parametrize(
    ("name", "mean", "sd"), [("hybrid", 1, 0.05), ("tree", 1, 0.2), ("pfr", 0, 0.5), ("greedy", 0, 0.5)]
)
def test_noise_that_is_the_candidates_own_is_caught(
    name: str, mean: float, sd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect of a public implementation, whose two generators start alike; at a fixed target it shows."""
    wanted, proposal = Gaussian(np.full(1, mean), sd), NORMAL
    simulator = SIMULATORS[name](wanted, proposal)
    apart = kolmogorov_smirnov(wanted.cdf(draws(simulator, wanted, proposal, SEED))[:, 0])
    assert PRIVATE != CANDIDATES
    monkeypatch.setenv("FEWBITS_ISA", "numpy")  # the core has a number of its own
    for module in ("simulator", "greedy", "tree"):
        monkeypatch.setattr(f"fewbits.channel.{module}.PRIVATE", CANDIDATES)
    coupled = kolmogorov_smirnov(wanted.cdf(draws(simulator, wanted, proposal, SEED))[:, 0])
    assert coupled < 1e-6 < 0.01 < apart
