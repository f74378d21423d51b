"""The contract of simulators, law by law, for every one of them."""

import math

import numpy as np
import pytest

from fewbits.channel.distributions import Real
from fewbits.channel.hybrid import MOST_CELLS, Hybrid
from fewbits.channel.mrc import Mrc
from fewbits.channel.orc import Orc
from fewbits.channel.pfr import Pfr
from fewbits.channel.problem import drawn, problem_of
from fewbits.channel.simulator import Message
from fewbits.channel.tree import Tree, node_ends
from fewbits.random import CANDIDATES, PRIVATE, log, uniforms, words
from tests.unit.channel.samples import NORMAL, Case, bare, cases

SIZE, SEED = 60, 12_345_678_901_234_567_890
CASES = cases(np.random.default_rng(1), SIZE)
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def rows_of(case: Case, rows: list[int]) -> Case:
    """The same for some of the targets."""
    if isinstance(case.target, Real):
        return case._replace(target=case.target.mapped(lambda each: each[rows] if each.ndim == 2 else each))
    return case._replace(target=type(case.target)(case.target.probabilities[rows]))


def assert_same(found: Message, expected: Message) -> None:
    for name in Message._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


@every_case
def test_a_message_is_the_same_whatever_batch_its_sample_is_in(case: Case) -> None:
    whole = case.simulator.encode(case.target, case.proposal, seed=SEED)
    for rows in ([17], [3, 58, 0], list(range(SIZE - 1, 30, -1))):
        part = rows_of(case, rows)
        found = part.simulator.encode(part.target, part.proposal, seed=SEED, numbers=rows)
        assert_same(found, Message(*(each[rows] for each in whole)))


@every_case
def test_decoding_makes_each_sample_alone_of_index_and_offsets(case: Case) -> None:
    numbers = np.random.default_rng(2).integers(0, 1 << 32, SIZE)
    message = case.simulator.encode(case.target, case.proposal, seed=SEED, numbers=numbers)
    values = case.simulator.decode(bare(message), case.proposal, seed=SEED, numbers=numbers)
    assert len(values) == SIZE
    for row in (0, 5, SIZE - 1):
        one = Message(*(each[row : row + 1] for each in message))
        alone = case.simulator.decode(bare(one), case.proposal, seed=SEED, numbers=numbers[row : row + 1])
        np.testing.assert_array_equal(alone, values[row : row + 1])


@every_case
def test_samples_are_inside_their_targets(case: Case) -> None:
    message = case.simulator.encode(case.target, case.proposal, seed=3)
    values = case.simulator.decode(message, case.proposal, seed=3)
    if isinstance(case.target, Real):
        inside = ((values >= case.target.low) & (values <= case.target.high)).all(1)
    else:
        inside = case.target.probabilities[np.arange(SIZE), values] > 0
    assert inside.all()


@every_case
def test_seed_and_stream_matter(case: Case) -> None:
    first = case.simulator.encode(case.target, case.proposal, seed=SEED)
    for settings in ({"seed": SEED - 1}, {"seed": SEED, "numbers": np.arange(SIZE) + 1}):
        other = case.simulator.encode(case.target, case.proposal, **settings)
        changed = (first.indices != other.indices) | (first.offsets != other.offsets).any(1)
        assert changed.mean() > 0.3


@every_case
def test_every_instruction_set_sends_the_same(case: Case, isa: str) -> None:
    message = case.simulator.encode(case.target, case.proposal, seed=SEED)
    values = case.simulator.decode(message, case.proposal, seed=SEED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        assert_same(message, case.simulator.encode(case.target, case.proposal, seed=SEED))
        expected = case.simulator.decode(message, case.proposal, seed=SEED)
    assert values.tobytes() == expected.tobytes()


@every_case
def test_no_search_goes_on_beyond_its_cap_and_a_sample_is_among_what_it_saw(case: Case) -> None:
    message = case.simulator.encode(case.target, case.proposal, seed=SEED)
    assert (message.num_candidates >= 1).all() and (message.num_candidates <= case.simulator.cap).all()
    assert message.offsets.shape == (SIZE, len(case.simulator.num_cells) if isinstance(case.simulator, Hybrid) else 0)
    if not isinstance(case.simulator, Tree):
        assert (message.indices < message.num_candidates).all()


def chosen(case: Case, row: int) -> tuple[int, int]:
    """What the definition of a simulator says, for one target and one candidate after the other: index, looked at."""
    problem = problem_of(case.target, case.proposal)
    cap, time, best, found = case.simulator.cap, 0.0, math.inf, 0
    for n in range(cap):
        word = words(SEED, CANDIDATES, np.array([row]), np.array([n]), problem.num_words)
        ratio = problem.log_ratios(np.array([row]), word[:, None, :])[0, 0]
        wait = -float(log(uniforms(words(SEED, PRIVATE, np.array(row), np.array([n]), 1))[0, 0]))
        if isinstance(case.simulator, Orc):
            wait *= cap / (cap - n)
        time = wait if isinstance(case.simulator, Mrc) else time + wait
        score = math.log(time) - ratio
        if score < best:
            best, found = score, n
        if not isinstance(case.simulator, Mrc) and best <= math.log(time) - problem.greatest[row]:
            return found, n + 1
    return found, cap


@pytest.mark.parametrize("name", [name for name in CASES if name.split()[0] in ("pfr", "orc", "mrc")])
def test_the_search_finds_what_its_definition_says(name: str) -> None:
    case = CASES[name]
    message = case.simulator.encode(case.target, case.proposal, seed=SEED)
    for row in range(0, SIZE, 6):
        assert (message.indices[row], message.num_candidates[row]) == chosen(case, row)
    index = message.indices
    word = words(SEED, CANDIDATES, np.arange(SIZE), index, problem_of(case.target, case.proposal).num_words)
    np.testing.assert_array_equal(case.simulator.decode(message, case.proposal, seed=SEED), drawn(case.proposal, word))


def test_a_cap_that_is_hit_is_said() -> None:
    case = CASES["pfr"]
    free = case.simulator.encode(case.target, case.proposal, seed=SEED)
    assert not free.capped.any() and free.num_candidates.max() > 8
    cut = Pfr(8).encode(case.target, case.proposal, seed=SEED)
    np.testing.assert_array_equal(cut.capped, free.num_candidates > 8)
    np.testing.assert_array_equal(cut.indices[~cut.capped], free.indices[~cut.capped])
    assert (cut.num_candidates[cut.capped] == 8).all()


def test_a_cell_of_hybrid_coding_is_the_one_around_the_target() -> None:
    case = CASES["hybrid dim 2"]
    assert isinstance(case.simulator, Hybrid) and isinstance(case.target, Real)
    message = case.simulator.encode(case.target, case.proposal, seed=SEED)
    values = case.simulator.decode(message, case.proposal, seed=SEED)
    cells = case.simulator.num_cells
    assert (cells >= 5).all()
    share = cells * case.proposal.cdf(values)
    np.testing.assert_array_equal(np.floor(share), message.offsets)
    centre = np.clip(cells * case.proposal.cdf(case.target.mean), 0.5, cells - 0.5)
    assert (np.abs(share - centre) <= 0.75).all()  # the box is around the middle of the warped support


def test_a_node_of_a_tree_holds_its_sample() -> None:
    case = CASES["tree"]
    message = case.simulator.encode(case.target, case.proposal, seed=SEED)
    values = case.simulator.decode(message, case.proposal, seed=SEED)[:, 0]
    low, high = node_ends(message.indices + 1, case.proposal)
    assert ((low <= values) & (values <= high)).all()
    assert message.indices.max() > 2


LARGEST = 1 - 2.0**-33  # of the uniform numbers


@pytest.mark.parametrize("node", [1, 2**41 - 1, 2**41 - 2**20, 2**40])
def test_the_deepest_nodes_have_finite_values(node: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["tree"]
    message = Message(np.array([node - 1]), np.zeros((1, 0), np.int64), np.ones(1, np.int64), np.zeros(1, bool))
    for uniform in (2.0**-33, LARGEST):
        monkeypatch.setattr(
            "fewbits.channel.tree.uniforms", lambda words, uniform=uniform: np.full(words.shape, uniform)
        )
        value = case.simulator.decode(message, case.proposal, seed=SEED)
        assert (np.abs(value - case.proposal.mean) < 11 * case.proposal.sd).all()


def test_the_outermost_cells_have_finite_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for uniform, offset, sign in ((2.0**-33, 0, -1), (LARGEST, MOST_CELLS - 1, 1)):
        monkeypatch.setattr(
            "fewbits.channel.hybrid.uniforms", lambda words, uniform=uniform: np.full(words.shape, uniform)
        )
        message = Message(np.zeros(1, np.int64), np.array([[offset]]), np.ones(1, np.int64), np.zeros(1, bool))
        value = Hybrid([MOST_CELLS]).decode(message, NORMAL, seed=SEED)
        assert abs(float(value[0, 0]) - sign * 8.21) < 0.01  # the quantile of 2^-53
