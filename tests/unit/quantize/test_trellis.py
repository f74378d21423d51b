"""Trellis-coded quantisation: the search finds the best chain, decoding follows it, the core gives the same bits."""

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.coder.body import decode_into, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.models.fit import fit_values
from fewbits.native import core
from fewbits.quantize.elements import TrellisElements
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.trellis import (
    MOST_PRICED,
    NO_CORRECTIONS,
    PATHS,
    Corrections,
    Trellis,
    mirrored,
    next_state,
    prices_of_costs,
    reconstruct,
    trellis_step,
)
from fewbits.quantize.weights import Weights, rounded_bits
from fewbits.tensors import LOSSY_DTYPES

FREE = np.zeros((1, 2 * MOST_PRICED + 1), np.float32)


def weights_of(values: NDArray[np.float32], dtype: str = "float32") -> Weights:
    return Weights(rounded_bits(values, dtype), dtype)


def in_numpy(function: Any, *arguments: Any) -> Any:
    """What the written-out code gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        assert core() is None
        return function(*arguments)


def decoded(
    levels: NDArray[np.int32], dtype: str, step: float, corrections: Corrections
) -> NDArray[np.unsignedinteger]:
    """The words that levels (N,) decode to from a body."""
    models = fit_values(levels).models
    body = encode_body([CodedArray(levels[None], models)], wide=True)
    words = rounded_bits(np.zeros(levels.size, np.float32), dtype)
    elements = TrellisElements(Weights(words, dtype), "w", step, corrections)
    decode_into(body, [ArraySpec(1, levels.size, models)], [elements])
    return words


def entropy_bits(levels: NDArray[np.int32]) -> float:
    """Bits a level, with one ideal table."""
    shares = np.unique(levels, return_counts=True)[1] / levels.size
    return float(-(shares * np.log2(shares)).sum())


def test_the_example_of_the_payload_page() -> None:
    levels = np.zeros((8, PATHS), np.int32)
    levels[:, 5] = [0, 1, -1, 2, -3, 0, 1, 1]
    values = reconstruct(levels.ravel(), 1.0, NO_CORRECTIONS).reshape(8, PATHS)
    np.testing.assert_array_equal(values[:, 5], [0.25, 1.25, 0.75, -2.25, 2.75, -0.25, 1.25, -1.25])
    np.testing.assert_array_equal(values[:, 4], [0.25] * 8)


def test_every_state_is_followed_by_two_and_follows_two_of_one_quantiser() -> None:
    states = np.arange(8)
    pairs = [(state, int(after)) for p in (0, 1) for state, after in enumerate(next_state(states, np.full(8, p)))]
    assert len(set(pairs)) == 16
    for after in range(8):
        before = [state for state, reached in pairs if reached == after]
        assert len(before) == 2
        assert len({state >= 4 for state in before}) == 1


def test_corrections_move_their_levels_outwards() -> None:
    levels = np.array([0, -1, 1, 2, -2, -9, 9], np.int32)
    values = reconstruct(levels, 1.0, (16, 32, 64, -64))
    assert not mirrored(levels).any()  # each is the first of its path
    np.testing.assert_array_equal(values, [0.3125, -0.875, 1.5, 2.0, -1.5, -8.5, 9.0])


@pytest.mark.parametrize("native", [False, True])
def test_no_other_chain_of_levels_costs_less(native: bool) -> None:
    if native and core() is None:
        pytest.skip("there is no compiled core")
    rng = np.random.default_rng(3)
    near = range(-3, 4)
    chains = np.array(list(itertools.product(near, repeat=4)), np.int32)
    grid = np.zeros((4, PATHS), np.int32)
    for _ in range(5):
        prices = (rng.random((1, 2 * MOST_PRICED + 1)) * 0.3).astype(np.float32)
        corrections = tuple(int(c) for c in rng.integers(-40, 40, 4))
        weights = np.zeros((4, PATHS), np.float32)
        weights[:, 0] = rng.normal(size=4)
        trellis = Trellis(weights_of(weights.ravel()), 1.0, 1)
        found = (
            trellis.levels(corrections, prices, None) if native else in_numpy(trellis.levels, corrections, prices, None)
        )
        assert found is not None
        chosen = found.reshape(4, PATHS)[:, 0]
        costs = []
        for chain in [chosen, *chains]:
            grid[:, 0] = chain
            points = reconstruct(grid.ravel(), 1.0, corrections).reshape(4, PATHS)[:, 0]
            price = prices[0][chain + MOST_PRICED]
            costs.append(float(((points - weights[:, 0]) ** 2 + price).sum()))
        # A branch looks at two levels, the nearest and the next towards 0: others can win only where prices are wild.
        assert costs[0] <= min(costs[1:]) + 0.05


def test_the_two_nearest_levels_of_each_branch_are_enough_for_the_least_error() -> None:
    rng = np.random.default_rng(4)
    chains = np.array(list(itertools.product(range(-4, 5), repeat=4)), np.int32)
    grid = np.zeros((4, PATHS), np.int32)
    for _ in range(4):
        weights = np.zeros((4, PATHS), np.float32)
        weights[:, 0] = rng.normal(size=4) * 1.2
        found = Trellis(weights_of(weights.ravel()), 1.0, 1).levels(NO_CORRECTIONS, FREE, None)
        assert found is not None
        errors = []
        for chain in [found.reshape(4, PATHS)[:, 0], *chains]:
            grid[:, 0] = chain
            points = reconstruct(grid.ravel(), 1.0, NO_CORRECTIONS).reshape(4, PATHS)[:, 0]
            errors.append(float(((points - weights[:, 0]) ** 2).sum()))
        assert errors[0] == pytest.approx(min(errors), abs=1e-6)


@pytest.mark.parametrize(("step", "most"), [(2.4, 0.09), (1.0, 0.085), (0.4, 0.085)])
def test_gaussian_weights_take_less_than_a_tenth_of_a_bit_above_the_bound(step: float, most: float) -> None:
    values = np.random.default_rng(5).normal(size=200_000).astype(np.float32)
    trellis = Trellis(weights_of(values), step, 1)
    levels = trellis.levels(NO_CORRECTIONS, FREE, None)
    assert levels is not None
    distortion = trellis.distortion(levels, trellis.corrections(levels))
    bound = 0.5 * np.log2(values.size / distortion.error)
    assert entropy_bits(levels) - bound < most


def test_prices_move_levels_to_where_they_cost_less() -> None:
    values = np.random.default_rng(6).laplace(size=20_000).astype(np.float32)
    trellis = Trellis(weights_of(values), 2.0, 1)
    first = trellis.levels(NO_CORRECTIONS, FREE, None)
    assert first is not None
    corrections = trellis.corrections(first)
    counts = np.bincount(first.ravel() + MOST_PRICED, minlength=2 * MOST_PRICED + 1)
    prices = prices_of_costs(-np.log2(np.maximum(counts, 1e-9) / values.size))[None]
    second = trellis.levels(corrections, prices, None)
    assert second is not None

    def cost(levels: NDArray[np.int32]) -> float:
        error = trellis.distortion(levels, trellis.corrections(levels)).error / 4
        return error + BIT_WORTH / 1.15**2 * levels.size * entropy_bits(levels)

    assert entropy_bits(second) < entropy_bits(first)
    assert cost(second) < cost(first)


def test_a_trellis_step_has_the_squared_error_of_its_scalar_step() -> None:
    values = np.random.default_rng(7).normal(size=60_000).astype(np.float32)
    trellis = Trellis(weights_of(values), trellis_step(0.5), 1)
    levels = trellis.levels(NO_CORRECTIONS, FREE, None)
    assert levels is not None
    error = trellis.distortion(levels, trellis.corrections(levels)).error / values.size
    assert error == pytest.approx(0.5**2 / 12, rel=0.04)


def test_a_weight_out_of_reach_has_no_levels() -> None:
    for value in (float(1 << 20), -3e9):
        weights = weights_of(np.array([0.0, value], np.float32))
        assert Trellis(weights, 1.0, 1).levels(NO_CORRECTIONS, FREE, None) is None
        assert in_numpy(Trellis(weights, 1.0, 1).levels, NO_CORRECTIONS, FREE, None) is None


def test_values_that_are_not_finite_are_told() -> None:
    levels = np.full(5, 3, np.int32)
    for dtype, step in (("float32", 3e38), ("float16", 4e4), ("bfloat16", 3.2e38)):
        for run in (decoded, partial(in_numpy, decoded)):
            with pytest.raises(Corrupt, match="tensor 'w' decodes to values that are not finite"):
                run(levels, dtype, step, NO_CORRECTIONS)


@given(
    st.sampled_from(LOSSY_DTYPES),
    st.integers(0, 1 << 32),
    st.sampled_from([1, 5, 31, 32, 33, 64, 500, 513, 1100]),
    st.sampled_from([1e-3, 0.02, 0.7, 1.0, 30.0]),
    st.sampled_from([1, 2, 3, 7]),
)
def test_the_core_does_what_is_written_out(dtype: str, seed: int, row_length: int, step: float, num_rows: int) -> None:
    if core() is None:
        pytest.skip("there is no compiled core")
    rng = np.random.default_rng(seed)
    weights = weights_of(rng.normal(size=num_rows * row_length).astype(np.float32), dtype)
    trellis = Trellis(weights, step, num_rows)
    classes = rng.integers(0, 3, num_rows) if rng.random() < 0.5 else None
    prices = (rng.random((3, 2 * MOST_PRICED + 1)) * rng.choice([0, 0.2, 5])).astype(np.float32)
    corrections = tuple(int(c) for c in rng.integers(-128, 128, 4))
    levels = trellis.levels(corrections, prices, classes)
    written_out = in_numpy(trellis.levels, corrections, prices, classes)
    np.testing.assert_array_equal(levels, written_out)
    assert levels is not None
    assert trellis.corrections(levels) == in_numpy(trellis.corrections, levels)
    assert trellis.distortion(levels, corrections) == in_numpy(trellis.distortion, levels, corrections)
    expected = in_numpy(decoded, levels.ravel(), dtype, step, corrections)
    np.testing.assert_array_equal(decoded(levels.ravel(), dtype, step, corrections), expected)


def test_any_levels_decode_alike() -> None:
    if core() is None:
        pytest.skip("there is no compiled core")
    rng = np.random.default_rng(8)
    far = rng.integers(-(2**31), 2**31, 3000, dtype=np.int64).astype(np.int32)  # none is a byte: all are read again
    few = rng.integers(-3, 4, 3000).astype(np.int32)
    few[rng.integers(0, 3000, 40)] = far[:40]
    few[[0, 511, 512, 2999]] = (-128, 127, 128, -(2**31))
    # A point of 0, which has a sign; a step whose 256th is none that is normal; and what no byte can stand for at all.
    for dtype in LOSSY_DTYPES:
        for levels in (few, far):
            for corrections, step in (((1, 2, 3, 4), 1e-7), ((-64, 2, 3, 4), 1e-6), ((127, -128, -128, 127), 1e-37)):
                expected = in_numpy(decoded, levels, dtype, step, corrections)
                np.testing.assert_array_equal(decoded(levels, dtype, step, corrections), expected)


def test_the_core_refuses_arrays_that_do_not_fit() -> None:
    kernels = core()
    if kernels is None:
        pytest.skip("there is no compiled core")
    bits, levels = np.zeros(6, np.uint32), np.zeros((2, 3), np.int32)
    shifts = [0.25] * 5
    for prices, classes in ((FREE[:, 1:], None), (FREE, np.zeros(3, np.int64)), (FREE, np.ones(2, np.int64))):
        with pytest.raises(InvalidArgument):
            kernels.trellis_levels(bits, 0, 1.0, shifts, np.ascontiguousarray(prices), classes, levels)
    for type, step in ((1, 1.0), (0, 0.0), (0, np.inf)):
        with pytest.raises(InvalidArgument):
            kernels.Output.trellis(bits, "w", type, step, shifts)
