"""What simulators refuse, each with a named error of one sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fewbits.channel.distributions import Categorical, Counts, Gaussian, Real, Uniform
from fewbits.channel.greedy import Greedy
from fewbits.channel.hybrid import MOST_CELLS, Hybrid
from fewbits.channel.mrc import Mrc
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.problem import Proposal, Target
from fewbits.channel.simulator import ChannelSimulator, Message
from fewbits.channel.tree import MOST_DEPTH, Tree
from fewbits.errors import Corrupt, InvalidArgument
from tests.unit.channel.samples import NORMAL, UNIT

SIMULATORS: dict[str, ChannelSimulator] = {
    "pfr": Pfr(64),
    "orc": Orc(64),
    "mrc": Mrc(64),
    "hybrid": Hybrid([2], cap=64),
    "greedy": Greedy(64),
    "tree": Tree(6),
}
every_simulator = pytest.mark.parametrize("simulator", SIMULATORS.values(), ids=SIMULATORS)
NARROW = Gaussian(np.zeros((2, 1)), 0.1)


def refused(message: str, call: Callable[[], Any], error: type[Exception] = InvalidArgument) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    said = str(caught.value)
    assert said.endswith(".") and said.count(". ") == 0 and "\n" not in said


def message_of(indices: Any, offsets: Any) -> Message:
    return Message(np.array(indices), np.array(offsets), np.array(indices), np.array(indices))


# ---- distributions

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("mean is not a finite", lambda: Gaussian([0.0, NAN], 1.0)),
        ("mean is not a finite", lambda: Gaussian([INF], 1.0)),
        ("standard deviation must be", lambda: Gaussian([0.0], [1.0, 0.0])),
        ("standard deviation must be", lambda: Gaussian([0.0], -1e-9)),
        ("standard deviation must be", lambda: Gaussian([0.0], NAN)),
        ("standard deviation must be", lambda: Gaussian([0.0], INF)),
        ("not in order", lambda: Gaussian([0.0], 1.0, 2.0, 2.0)),
        ("not in order", lambda: Gaussian([0.0], 1.0, NAN, 2.0)),
        ("has nothing", lambda: Gaussian([0.0], 1e-200, 1.0, 2.0)),
        (r"do not fit each other: \(3,\), \(2,\)", lambda: Gaussian(np.zeros(3), np.ones(2))),
        ("finite and in order", lambda: Uniform([0.0], INF)),
        ("finite and in order", lambda: Uniform([NAN], 1.0)),
        ("finite and in order", lambda: Uniform([1.0], [0.0])),
        ("do not fit each other", lambda: Uniform(np.zeros(3), np.ones(2))),
        ("probabilities of states", lambda: Categorical([[0.5, -0.1]])),
        ("probabilities of states", lambda: Categorical([[0.5, NAN]])),
        ("probabilities of states", lambda: Categorical([[0.5, 0.5], [0.0, 0.0]])),
        (r"must sum to 2\^32", lambda: Counts([1, 2, 3])),
        (r"must sum to 2\^32", lambda: Counts([-1, (1 << 32) + 1])),
        (r"must sum to 2\^32", lambda: Counts([[1 << 31, 1 << 31]])),
    ],
)
def test_distributions_that_are_none(message: str, call: Callable[[], Any]) -> None:
    refused(message, call)


# ---- simulators


@pytest.mark.parametrize("kind", [Pfr, Orc, Mrc, Greedy, lambda cap: Hybrid([1], cap=cap)])
@pytest.mark.parametrize("cap", [0, -1, (1 << 31) + 1, 10.0, True, NAN])
def test_caps_out_of_range(kind: Callable[[Any], ChannelSimulator], cap: Any) -> None:
    refused("cap must be a whole number", lambda: kind(cap))


def test_settings_out_of_range() -> None:
    for depth in (0, MOST_DEPTH + 1):
        refused("depth must be from 1 to 40", lambda depth=depth: Tree(depth))
    for cells in ([0], [2, MOST_CELLS + 1], [-3]):
        refused("cells a dimension", lambda cells=cells: Hybrid(cells))
    for tail in (0.0, 1.0, NAN):
        refused("tail that is cut off", lambda tail=tail: Hybrid([1], tail=tail))
    Pfr(1 << 31), Tree(MOST_DEPTH), Hybrid([MOST_CELLS])  # the last that are allowed


@every_simulator
@pytest.mark.parametrize("target", [Gaussian(np.zeros((2, 1)), 0.1), Uniform(np.full((2, 1), 0.5), 1.001)])
def test_a_support_that_is_not_inside_the_proposals(simulator: ChannelSimulator, target: Real) -> None:
    refused("support of a target is not inside", lambda: simulator.encode(target, UNIT, seed=1))


@pytest.mark.parametrize("name", ["pfr", "orc", "mrc", "greedy"])
def test_a_state_that_is_never_proposed(name: str) -> None:
    proposal = Counts([1 << 31, 0, 1 << 31])
    refused(
        "support of a target is not inside",
        lambda: SIMULATORS[name].encode(Categorical([[0.5, 0.1, 0.4]]), proposal, seed=1),
    )
    found = SIMULATORS[name].encode(Categorical([[0.5, 0.0, 0.5]]), proposal, seed=1)
    assert SIMULATORS[name].decode(found, proposal, seed=1) != 1


@every_simulator
@pytest.mark.parametrize(
    ("target", "proposal", "message"),
    [
        (Gaussian(np.zeros(2), 0.1), NORMAL, "do not fit a proposal"),
        (Gaussian(np.zeros((2, 2)), 0.1), NORMAL, "do not fit a proposal"),
        (Gaussian(np.zeros((2, 2)), 0.1), Gaussian(np.zeros(3), 1.0), "do not fit a proposal"),
        (Gaussian(np.zeros((2, 1)), 0.1), Gaussian(np.zeros((3, 1)), 1.0), "do not fit a proposal"),
        (Gaussian(np.zeros((2, 1, 1)), 0.1), NORMAL, "do not fit a proposal"),
        (NARROW, Gaussian(0.0, 1.0), "not as numbers"),
        (Gaussian([[0.0]], 0.1, -1.0, 1.0), Gaussian([0.0], 1.0, -2.0), "truncated Gaussian cannot be drawn"),
        (Gaussian([[0.0]], 0.1, -1.0, 1.0), Gaussian([0.0], 1.0, high=2.0), "truncated Gaussian cannot be drawn"),
        (NARROW, Counts.uniform(4), "real"),
        (Categorical([[0.5, 0.5]]), NORMAL, "real"),
    ],
)
def test_targets_that_do_not_fit_the_proposal(
    simulator: ChannelSimulator, target: Target, proposal: Proposal, message: str
) -> None:
    refused(message, lambda: simulator.encode(target, proposal, seed=1))


def test_states_that_do_not_fit_the_proposal() -> None:
    for target in (Categorical([[0.5, 0.5]]), Categorical([0.2, 0.3, 0.5])):
        refused("of the proposal's states", lambda target=target: Pfr().encode(target, Counts.uniform(3), seed=1))


@pytest.mark.parametrize("name", ["greedy", "tree", "hybrid"])
def test_targets_wider_than_the_proposal(name: str) -> None:
    words = {"greedy": "nowhere wider", "tree": "bounded", "hybrid": "wider than a cell"}
    refused(words[name], lambda: SIMULATORS[name].encode(Gaussian([[0.0]], 1.5), NORMAL, seed=1))
    if name == "tree":
        refused("nowhere wider", lambda: Tree().encode(Gaussian([[0.0]], 1.5, -1.0, 1.0), NORMAL, seed=1))


def test_a_ratio_without_bound() -> None:
    shifted = Gaussian(np.ones((4, 1)), 1.0)  # as wide as the proposal, elsewhere
    refused("ratio to the proposal is bounded", lambda: Tree().encode(shifted, NORMAL, seed=1))
    assert Pfr(50).encode(shifted, NORMAL, seed=1).capped.all()  # the others go on to the cap, and say so
    assert not Greedy().encode(shifted, NORMAL, seed=1).capped.any()


@pytest.mark.parametrize("name", ["greedy", "tree"])
def test_several_dimensions_where_there_must_be_one(name: str) -> None:
    refused("one dimension", lambda: SIMULATORS[name].encode(Gaussian(np.zeros((2, 2)), 0.1), NORMAL_2, seed=1))


NORMAL_2 = Gaussian(np.zeros(2), 1.0)


@pytest.mark.parametrize("name", ["hybrid", "tree"])
def test_a_proposal_for_each_target_where_there_must_be_one(name: str) -> None:
    refused("one proposal for all", lambda: SIMULATORS[name].encode(NARROW, Gaussian(np.zeros((2, 1)), 1.0), seed=1))


def test_supports_that_hybrid_coding_cannot_box() -> None:
    hybrid = SIMULATORS["hybrid"]
    refused("bounded support", lambda: hybrid.encode(Gaussian([[0.0]], 0.1, 0.0), NORMAL, seed=1))
    refused("wider than a cell", lambda: hybrid.encode(Uniform([[0.2]], 0.71), UNIT, seed=1))
    refused("cells of 1 dimensions", lambda: hybrid.encode(Gaussian(np.zeros((2, 2)), 0.01), NORMAL_2, seed=1))


@every_simulator
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1], "need as many streams"),
        ([[1, 2]], "need as many streams"),
        ([0, -1], "from 0 to"),
        ([0, 1 << 32], "from 0 to"),
        ([0.0, 1.0], "integer"),
    ],
)
def test_streams_that_are_none(simulator: ChannelSimulator, numbers: Any, message: str) -> None:
    refused(message, lambda: simulator.encode(NARROW, NORMAL, seed=1, numbers=numbers))
    found = simulator.encode(NARROW, NORMAL, seed=1)
    refused(message, lambda: simulator.decode(found, NORMAL, seed=1, numbers=numbers))


# ---- decoding


@every_simulator
def test_an_index_past_the_cap_is_corrupt(simulator: ChannelSimulator) -> None:
    offsets = [[0]] if isinstance(simulator, Hybrid) else np.zeros((1, 0), np.int64)
    for index in (simulator.cap, -1, (1 << 63) - 1):
        refused(
            "beyond the cap",
            lambda index=index: simulator.decode(message_of([index], offsets), NORMAL, seed=1),
            Corrupt,
        )
    assert np.isfinite(simulator.decode(message_of([simulator.cap - 1], offsets), NORMAL, seed=1)).all()


def test_an_offset_past_its_cells_is_corrupt() -> None:
    simulator = Hybrid([2, 5])
    for offsets in ([[2, 0]], [[0, 5]], [[-1, 0]]):
        refused(
            "beyond the number of cells",
            lambda each=offsets: simulator.decode(message_of([0], each), NORMAL_2, seed=1),
            Corrupt,
        )
    assert simulator.decode(message_of([0], [[1, 4]]), NORMAL_2, seed=1).shape == (1, 2)


@every_simulator
def test_messages_of_another_shape(simulator: ChannelSimulator) -> None:
    width = 1 if isinstance(simulator, Hybrid) else 0
    two = message_of([[0, 1]], np.zeros((1, width), np.int64))
    refused("an index each", lambda: simulator.decode(two, NORMAL, seed=1))
    one = message_of([0], np.zeros((1, width), np.int64))
    refused("not as numbers", lambda: simulator.decode(one, Gaussian(0.0, 1.0), seed=1))


def test_offsets_of_another_shape() -> None:
    for offsets in (np.zeros((1, 0), int), np.zeros((1, 2), int), np.zeros((2, 1), int)):
        refused(
            "an offset for each dimension",
            lambda each=offsets: SIMULATORS["hybrid"].decode(message_of([0], each), NORMAL, seed=1),
        )
    refused("cells of each", lambda: SIMULATORS["hybrid"].decode(message_of([0], [[0]]), NORMAL_2, seed=1))
    refused("one dimension", lambda: Tree().decode(message_of([0], np.zeros((1, 0), int)), NORMAL_2, seed=1))
