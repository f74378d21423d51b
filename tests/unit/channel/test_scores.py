"""Scores of candidates: what they say, the same bits on every path, and choices that no number of threads changes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.channel.scores import (
    candidate_table,
    gumbel_argmax,
    scores_of_stream,
    scores_of_table,
    search_blocks,
    select_from_stream,
    select_from_table,
)
from fewbits.errors import InvalidArgument
from fewbits.native import core
from fewbits.random import CANDIDATES, PRIVATE, Stream, log, normals, uniforms

NUMBERS = np.array([4, 0, 2**32 - 1, 7, 9])
FLOATS = st.floats(-1e4, 1e4, width=32)


@pytest.fixture
def by_numpy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that calls another where NumPy serves."""

    def call(function: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FEWBITS_ISA", "numpy")
            return function(*arguments)

    return call


def targets(num_blocks: int, dim: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    mean, scale = generator.normal(0, 0.6, (num_blocks, dim)), np.exp(generator.normal(-0.3, 0.3, (num_blocks, dim)))
    return ((1 - scale**-2) / 2).astype(np.float32), (mean / scale**2).astype(np.float32)


def assert_equal_bits(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.view(f"u{found.itemsize}"), expected.view(f"u{found.itemsize}"))


@pytest.mark.parametrize("kind", ["philox", "lattice"])
@pytest.mark.parametrize(("num_candidates", "dim"), [(1, 1), (127, 5), (300, 40), (128, 3), (20_000, 2)])
def test_tables_hold_the_candidates_of_a_stream(isa: str, by_numpy: Any, kind: Any, num_candidates: int, dim: int):
    table = candidate_table(3, 8, num_candidates, dim, kind)
    assert table.shape == (dim, num_candidates)
    assert_equal_bits(table, by_numpy(candidate_table, 3, 8, num_candidates, dim, kind))
    if kind == "philox":
        last = normals(Stream(3, CANDIDATES, 8).words(np.array([num_candidates - 1]), dim))[0]
        np.testing.assert_array_equal(table[:, -1], last.astype(np.float32))


def test_lattices_are_standard_normal_and_more_even_than_random() -> None:
    table = candidate_table(1, 0, 4096, 3, "lattice").astype(np.float64)
    np.testing.assert_allclose(table.mean(axis=1), 0, atol=2e-3)  # of random ones it would be 16e-3
    np.testing.assert_allclose((table**2).mean(axis=1), 1, atol=2e-2)
    assert np.abs(np.corrcoef(table) - np.eye(3)).max() < 0.02


def test_scores_are_the_logarithm_of_the_ratio_of_densities(isa: str) -> None:
    mean, scale = np.array([0.3, -1.0, 0.2]), np.array([0.5, 0.8, 1.0])
    a, b = ((1 - scale**-2) / 2)[None], (mean / scale**2)[None]
    table = candidate_table(1, 2, 500, 3, "philox")
    scores = scores_of_table(table, a.astype(np.float32), b.astype(np.float32))[0]
    z = table.astype(np.float64).T
    exact = (z**2 / 2 - ((z - mean) / scale) ** 2 / 2).sum(axis=1)
    np.testing.assert_allclose(scores - scores[0], exact - exact[0], atol=2e-5)


@pytest.mark.parametrize(("num_blocks", "num_candidates", "dim"), [(5, 1, 1), (1, 255, 40), (5, 257, 7), (3, 5000, 3)])
def test_scores_on_every_path(isa: str, by_numpy: Any, num_blocks: int, num_candidates: int, dim: int) -> None:
    a, b = targets(num_blocks, dim)
    table = candidate_table(1, 2, num_candidates, dim, "philox")
    assert_equal_bits(scores_of_table(table, a, b), by_numpy(scores_of_table, table, a, b))
    for start in (0, 1, 2**32 - 100):
        arguments = (5, NUMBERS[:num_blocks], start, num_candidates, a, b)
        assert_equal_bits(scores_of_stream(*arguments), by_numpy(scores_of_stream, *arguments))


def test_a_stream_scores_as_a_table_of_its_candidates(isa: str) -> None:
    a, b = targets(5, 9)
    scores = scores_of_stream(5, NUMBERS, 200, 400, a, b)
    for block, number in enumerate(NUMBERS):
        table = candidate_table(5, int(number), 600, 9, "philox")
        assert_equal_bits(scores[block], scores_of_table(table, a[block, None], b[block, None])[0, 200:])


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=20), st.integers(0, 99))
def test_scores_of_any_coefficients(pairs: list[tuple[float, float]], seed: int) -> None:
    a, b = (np.array(each, np.float32)[None] for each in zip(*pairs, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        found = scores_of_stream(seed, np.zeros(1, np.int64), 3, 70, a, b)
        patch.setenv("FEWBITS_ISA", "numpy")
        assert_equal_bits(found, scores_of_stream(seed, np.zeros(1, np.int64), 3, 70, a, b))


# ---- choices


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("num_candidates", [1, 31, 128, 3001])
def test_the_greatest_sum_wins_on_every_path(isa: str, by_numpy: Any, spread: float, num_candidates: int) -> None:
    scores = (np.random.default_rng(0).normal(size=(5, num_candidates)) * spread).astype(np.float32)
    arguments = (scores, 6, NUMBERS, 77)
    found, expected = gumbel_argmax(*arguments), by_numpy(gumbel_argmax, *arguments)
    np.testing.assert_array_equal(found[0], expected[0])
    assert_equal_bits(found[1], expected[1])
    for block, number in enumerate(NUMBERS):
        items = np.arange(77, 77 + num_candidates)
        noise = -log(-log(uniforms(Stream(6, PRIVATE, int(number)).words(items, 1)[:, 0])))
        assert found[1][block] == (scores[block] + noise).max()


def test_of_equal_sums_the_lower_index_wins(isa: str) -> None:
    scores = np.full((2, 700), -5, np.float32)
    scores[0, [600, 300]] = scores[1, [5, 2]] = 1e30  # beside which no Gumbel number counts
    np.testing.assert_array_equal(gumbel_argmax(scores, 1, NUMBERS[:2], 10)[0], [310, 12])
    scores[0, 650] = scores[1, 650] = np.inf
    np.testing.assert_array_equal(gumbel_argmax(scores, 1, NUMBERS[:2], 0)[0], [650, 650])


def test_what_is_no_number_is_never_chosen(isa: str) -> None:
    scores = np.full((2, 300), np.nan, np.float32)
    scores[:, ::2] = -np.inf
    scores[0, 299], scores[1, 130] = -1e38, 0
    np.testing.assert_array_equal(gumbel_argmax(scores, 1, NUMBERS[:2], 0)[0], [299, 130])
    scores[1, 130] = np.nan
    with pytest.raises(InvalidArgument):
        gumbel_argmax(scores, 1, NUMBERS[:2], 0)
    with pytest.raises(InvalidArgument):
        gumbel_argmax(np.zeros((2, 0), np.float32), 1, NUMBERS[:2], 0)


def test_draws_are_in_proportion_to_the_exponential_of_scores() -> None:
    weights = np.array([1, 2, 5, 0.5])
    scores = np.tile(np.log(weights).astype(np.float32), (20_000, 1))
    chosen = gumbel_argmax(scores, 3, np.arange(20_000), 0)[0]
    shares = np.bincount(chosen, minlength=4) / len(chosen)
    expected = weights / weights.sum()
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / len(chosen))).all()


@pytest.mark.parametrize(("num_blocks", "num_candidates", "dim"), [(1, 1, 1), (5, 300, 40), (5, 9000, 3), (40, 513, 2)])
def test_selection_is_the_argmax_of_all_scores(isa: str, num_blocks: int, num_candidates: int, dim: int) -> None:
    a, b = targets(num_blocks, dim)
    numbers = np.arange(num_blocks) + 3
    table = candidate_table(1, 2, num_candidates, dim, "lattice")
    by_table = gumbel_argmax(scores_of_table(table, a, b), 8, numbers, 0)[0]
    by_stream = gumbel_argmax(scores_of_stream(8, numbers, 0, num_candidates, a, b), 8, numbers, 0)[0]
    for num_threads in (1, 2, 3):
        np.testing.assert_array_equal(select_from_table(8, numbers, table, a, b, num_threads), by_table)
        np.testing.assert_array_equal(select_from_stream(8, numbers, num_candidates, a, b, num_threads), by_stream)
    by_table = scores_of_table(table, a, b).argmax(1)
    by_stream = scores_of_stream(8, numbers, 0, num_candidates, a, b).argmax(1)
    for num_threads in (1, 2, 3):
        likeliest = select_from_table(8, numbers, table, a, b, num_threads, is_noisy=False)
        np.testing.assert_array_equal(likeliest, by_table)
        likeliest = select_from_stream(8, numbers, num_candidates, a, b, num_threads, is_noisy=False)
        np.testing.assert_array_equal(likeliest, by_stream)


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_of_equal_sums_in_pieces_of_different_threads_the_lower_index_wins(isa: str, num_threads: int) -> None:
    # Candidates 1000 ... are the same again and again, and score so much that no Gumbel number counts.
    table = np.zeros((1, 30_000), np.float32)
    table[0, 9000::5000] = 1e18
    a = np.ones((3, 1), np.float32)
    chosen = select_from_table(1, NUMBERS[:3], table, a, a, num_threads)
    np.testing.assert_array_equal(chosen, [9000] * 3)


# ---- searches by arrival


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize(
    ("num_blocks", "cap", "dim"), [(5, 1, 1), (5, 127, 1), (5, 128, 2), (3, 129, 40), (5, 5000, 3), (64, 3000, 1)]
)
def test_searches_on_every_path(isa: str, by_numpy: Any, num_blocks: int, cap: int, dim: int, is_sorted: bool) -> None:
    a, b = targets(num_blocks, dim)
    numbers = np.arange(num_blocks) * 7
    expected = by_numpy(lambda: search_blocks(8, numbers, cap, a, b, 1, is_sorted=is_sorted))
    for num_threads in (1, 2, 3):
        found = search_blocks(8, numbers, cap, a, b, num_threads, is_sorted=is_sorted)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    # Some ended early, but for those with one candidate, or with many dimensions, whose ratio may be very large.
    assert (found.num_candidates < cap).any() == (cap > 1 and dim < 40)


def test_searches_say_when_they_ended_at_the_cap(isa: str) -> None:
    a = np.array([[0.0], [-5000.0], [np.nan]], np.float32)  # the proposal itself; a target far out; none
    b = np.array([[0.0], [20_000.0], [0.0]], np.float32)
    for is_sorted in (False, True):
        found = search_blocks(8, NUMBERS[:3], 3, a, b, 2, is_sorted=is_sorted)
        assert found.num_candidates.tolist() == [1, 3, 3]
        assert found.capped.tolist() == [False, not is_sorted, True]
        assert found.indices[[0, 2]].tolist() == [0, 0]


def test_ordered_candidates_are_chosen_in_proportion_to_their_weights(isa: str) -> None:
    size = 5000
    a, b = np.full((size, 1), -1.5, np.float32), np.full((size, 1), 1.2, np.float32)
    numbers = np.arange(size)
    scores = scores_of_stream(3, numbers, 0, 4, a, b).astype(np.float64)
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    chosen = search_blocks(3, numbers, 4, a, b, 2, is_sorted=True).indices
    # The weight of the one chosen is in the mean the sum of squared weights; that of the first one is not the same.
    found, expected = weights[numbers, chosen], (weights**2).sum(1)
    assert abs((found - expected).mean()) < 4 * found.std() / np.sqrt(size)
    assert abs((weights[:, 0] - expected).mean()) > 10 * found.std() / np.sqrt(size)


# ---- what is refused


def test_arrays_that_do_not_fit_are_refused(isa: str) -> None:
    a, b = targets(2, 3)
    table, numbers = np.zeros((3, 9), np.float32), np.arange(2)
    for call in (
        lambda: scores_of_table(table[:2], a, b),
        lambda: scores_of_table(table, a, b[:1]),
        lambda: scores_of_table(table[0], a, b),
        lambda: scores_of_table(table, a[0], b[0]),
        lambda: scores_of_stream(1, np.arange(3), 0, 9, a, b),
        lambda: gumbel_argmax(table, 1, numbers, 0),
        lambda: gumbel_argmax(table[0], 1, numbers, 0),
        lambda: select_from_table(1, numbers, table[:2], a, b, 1),
        lambda: select_from_table(1, numbers, table[:, :0], a, b, 1),
        lambda: select_from_stream(1, numbers, 0, a, b, 1),
        lambda: search_blocks(1, np.arange(3), 5, a, b, 1, is_sorted=True),
        lambda: search_blocks(1, numbers, 5, a, b[:1], 1, is_sorted=False),
        lambda: select_from_stream(1, numbers[:1], 5, a, b, 1),
        lambda: select_from_stream(1, numbers, 5, a * np.float32(np.nan), b, 1),
        lambda: select_from_stream(1, numbers, 5, a * np.float32(np.nan), b, 1, is_noisy=False),
        lambda: candidate_table(1, 2, 3, 4, "sobol"),  # type: ignore[arg-type]
        lambda: candidate_table(1, 2, 3, 4097, "lattice"),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_the_core_refuses_what_python_lets_through_nowhere() -> None:
    native = core()
    assert native is not None
    a, b = targets(2, 3)
    numbers, table, scores = np.zeros(2, np.uint32), np.zeros((3, 9), np.float32), np.zeros((2, 9), np.float32)
    indices, values = np.zeros(2, np.int64), np.zeros(2)
    for call in (
        lambda: native.fill_scores(1, numbers, a, b, table, 1, 9, scores),
        lambda: native.fill_scores(1, numbers, a, b, table, 2**63, 2**63, scores),
        lambda: native.fill_scores(1, numbers, a, b, table, 0, 9, scores[:, :8].copy()),
        lambda: native.fill_scores(1, numbers[:1], a, b, None, 0, 9, scores),
        lambda: native.fill_scores(1, numbers, a.reshape(-1), b, None, 0, 9, scores),
        lambda: native.fill_scores(1, numbers, a, b, None, 2**63 - 5, 9, scores),
        lambda: native.gumbel_argmax(1, numbers, scores.reshape(-1), 0, indices, values),
        lambda: native.gumbel_argmax(1, numbers, scores, 0, indices[:1], values),
        lambda: native.select(1, numbers, a, b, table, 10, True, 1, indices, values),
        lambda: native.select(1, numbers, a, b, table, 9, True, 1, indices, values[:1]),
        lambda: native.search(1, numbers, a, b, values, 9, True, 1, indices, indices, np.zeros(1, np.bool_)),
        lambda: native.search(1, numbers, a, b, values[:1], 9, True, 1, indices, indices, np.zeros(2, np.bool_)),
        lambda: native.search(1, numbers, a, b, values, 9, True, 1, indices, indices, np.zeros(2, np.uint8)),
        lambda: native.fill_candidates(1, 2, 0, 2, np.zeros((3, 3), np.float32)),
    ):
        with pytest.raises(InvalidArgument):
            call()
