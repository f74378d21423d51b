"""The compiled core measures, rounds and compares weights as the NumPy code does, bit for bit."""

import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.chunk import DTYPES
from fewbits.errors import InvalidArgument
from fewbits.native import core
from fewbits.quantize.rounding import Gains, row_magnitudes
from fewbits.quantize.weights import Extent, Scaled, Weights
from fewbits.tensors import LARGEST, LOSSY_DTYPES, bits_of, from_bits, rounded_to, values_of

pytestmark = pytest.mark.skipif(core() is None, reason="there is no compiled core")

WORDS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16, "float64": np.uint64}
FINE = {"float32": 2.0**-140, "float16": 2.0**-22, "bfloat16": 2.0**-130, "float64": 2.0**-1070}  # subnormal
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -2.5, 65504.0, 65519.9, 3e38, -3e38, 1e-45, 6e-8, -6e-5, 1e-300, 1e300)
STEPS = (1.0, 0.5, 0.37, 2.0**-120, 2.0**-24, 3e-5, 1e4, 2.0**120)


def in_numpy(function: Any, *arguments: Any) -> Any:
    """What the written-out code gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        assert core() is None
        return function(*arguments)


def weights_from(values: NDArray[np.float64], dtype: str) -> Weights:
    """Values rounded to a dtype, in memory that is not aligned."""
    bits = bits_of(torch.from_numpy(values).to(getattr(torch, dtype)))
    octets = np.empty(bits.nbytes + 1, np.uint8)[1:]
    octets[:] = bits.view(np.uint8)
    return Weights(octets.view(bits.dtype), dtype)


@st.composite
def any_weights(draw: st.DrawFn) -> Weights:
    """Any words at all: NaN, infinities, subnormal numbers, both zeros, none, one."""
    dtype = draw(st.sampled_from(LOSSY_DTYPES))
    if draw(st.booleans()):
        top = np.iinfo(WORDS[dtype]).max
        words = draw(st.lists(st.integers(0, int(top)), max_size=40))
        return Weights(np.array(words, WORDS[dtype]), dtype)
    return draw(finite_weights(least=0))


@st.composite
def finite_weights(draw: st.DrawFn, least: int = 1) -> Weights:
    """Ordinary numbers, up to several blocks of them, and the edges of every dtype's range among them."""
    dtype = draw(st.sampled_from(LOSSY_DTYPES))
    count = draw(st.one_of(st.integers(least, 40), st.sampled_from([511, 512, 513, 1025, 3000])))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    scale = draw(st.sampled_from([1.0, 1e-3, 1e4, FINE[dtype]]))
    values = rng.normal(size=count) * scale
    for edge in draw(st.lists(st.sampled_from(EDGES), max_size=10)) if count else []:
        values[int(rng.integers(count))] = edge
    if dtype != "float64":
        values = np.clip(values, *((-65504, 65504) if dtype == "float16" else (-3e38, 3e38)))
    return weights_from(values, dtype)


def rows_of(weights: Weights) -> int:
    """A number of rows that the elements make."""
    return next(rows for rows in (5, 3, 2, 1) if weights.bits.size % rows == 0)


@st.composite
def coded(draw: st.DrawFn) -> tuple[Scaled, NDArray[np.int32]]:
    """Weights in units of a step that reaches them, and their levels."""
    weights = draw(finite_weights())
    assume(weights.extent.greatest <= LARGEST)
    greatest = max(weights.extent.greatest, 1e-30)
    step = draw(st.sampled_from([greatest, greatest / 3, greatest / 40, greatest / 1e6, greatest / 2.0**29]))
    step = min(max(float(np.float32(min(step, 3e38))), 2.0**-120), 2.0**120)
    scaled = weights.scaled(step, rows_of(weights))
    levels = in_numpy(scaled.levels)
    if levels is None:  # float64 beyond what a float32 step reaches
        levels = np.zeros(scaled.shape, np.int32)
    return scaled, levels


def bits_of_numbers(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def test_dtype_codes_are_those_of_the_file_format() -> None:
    for dtype in LOSSY_DTYPES:
        assert Weights(np.zeros(0, WORDS[dtype]), dtype).code == DTYPES[dtype].code


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_number_of_16_bits_has_its_value(dtype: str) -> None:
    words = np.arange(1 << 16, dtype=np.uint16)
    values = values_of(from_bits(words, dtype, (words.size,)))
    np.testing.assert_array_equal(Weights(words, dtype).values(), values)
    finite = Weights(words[np.isfinite(values)], dtype)
    greatest, energy, counts = finite.extent
    expected: Extent = in_numpy(lambda: Weights(finite.bits, dtype).extent)
    assert bits_of_numbers(greatest, energy) == bits_of_numbers(expected.greatest, expected.energy)
    np.testing.assert_array_equal(counts, expected.counts)


@given(any_weights())
def test_extent(weights: Weights) -> None:
    found, expected = weights.extent, in_numpy(lambda: Weights(weights.bits, weights.dtype).extent)
    assert bits_of_numbers(*found[:2]) == bits_of_numbers(*expected[:2])
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.counts.sum() == weights.bits.size


@given(finite_weights(), st.sampled_from(STEPS))
def test_levels(weights: Weights, step: float) -> None:
    scaled = weights.scaled(step, rows_of(weights))
    found, expected = scaled.levels(), in_numpy(scaled.levels)
    assert (found is None) == (expected is None)
    if found is not None:
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype == np.int32 and found.shape == expected.shape


@pytest.mark.parametrize("sign", [1, -1])
def test_reach_of_levels_ends_where_rounding_says(sign: int) -> None:
    inside, outside = np.nextafter(2.0**30 - 0.5, 0), 2.0**30 - 0.5  # a tie: to even, which is 2^30
    for value, reached in [(inside, True), (outside, False), (2.0**31, False), (1e300, False)]:
        scaled = weights_from(np.array([1.0, sign * value]), "float64").scaled(1.0, 1)
        assert (scaled.levels() is not None) == (in_numpy(scaled.levels) is not None) == reached


@given(coded(), st.data())
def test_rate_distortion_round(case: tuple[Scaled, NDArray[np.int32]], data: st.DataObject) -> None:
    scaled, levels = case
    num_classes = data.draw(st.integers(1, 3))
    gains: list[Gains] = []
    for _ in range(num_classes):
        size = data.draw(st.integers(0, 63))
        rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        ends = int(levels.min()), int(levels.max())
        low = data.draw(st.sampled_from([-40, -3, -1, 0, 1, *ends, 1 << 40, -(1 << 62)]))
        gains.append(Gains.of_costs(low, rng.exponential(4.0, size)) if size else Gains.nothing())
    classes = None
    if num_classes > 1:
        rows = st.integers(0, num_classes - 1)
        drawn = data.draw(st.lists(rows, min_size=levels.shape[0], max_size=levels.shape[0]))
        classes = np.array(drawn, np.int64)
    found = scaled.rate_distortion_round(levels, gains, classes)
    np.testing.assert_array_equal(found, in_numpy(scaled.rate_distortion_round, levels, gains, classes))


def test_rate_distortion_round_moves_some_levels_and_not_others() -> None:
    weights = weights_from(np.random.default_rng(0).normal(size=4000) * 2, "float32")
    scaled = weights.scaled(1.0, 40)
    levels = scaled.levels()
    assert levels is not None
    gains = Gains.of_costs(-5, np.abs(np.arange(-5, 6)) * 1.5)
    moved = scaled.rate_distortion_round(levels, [gains], None)
    assert 0 < np.count_nonzero(moved != levels) < levels.size // 2
    np.testing.assert_array_equal(moved, in_numpy(scaled.rate_distortion_round, levels, [gains], None))


@given(coded())
def test_centroids(case: tuple[Scaled, NDArray[np.int32]]) -> None:
    scaled, levels = case
    assert scaled.centroids(levels) == in_numpy(scaled.centroids, levels)


CENTROIDS = st.one_of(st.none(), st.tuples(*[st.integers(-128, 127)] * 3))


@given(coded(), CENTROIDS)
def test_distortion(case: tuple[Scaled, NDArray[np.int32]], centroids: tuple[int, int, int] | None) -> None:
    scaled, levels = case
    found, expected = scaled.distortion(levels, centroids), in_numpy(scaled.distortion, levels, centroids)
    assert found.finite == expected.finite
    assert bits_of_numbers(found.energy) == bits_of_numbers(expected.energy)
    if found.finite:
        assert bits_of_numbers(found.error) == bits_of_numbers(expected.error)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("step", [1.0, 2.0**-24, 2.0**-26, 3 * 2.0**-27, 2.0**-149, 2.0**-135, 2.0**104, 2.0**-10])
def test_reconstructions_round_as_torch_does(dtype: str, step: float) -> None:
    levels = np.arange(-70000, 70000, 7, dtype=np.int32)[None]
    zeros = Weights(np.zeros(levels.size, WORDS[dtype]), dtype)
    decoded = values_of(rounded_to(levels.ravel().astype(np.float32) * np.float32(step), dtype))
    scaled = zeros.scaled(step, 1)
    for distortion in (scaled.distortion(levels, None), in_numpy(scaled.distortion, levels, None)):
        assert distortion.finite == bool(np.isfinite(decoded).all())
        if distortion.finite:
            assert distortion.error == np.add.accumulate(decoded**2)[-1]


def test_float16_overflows_where_rounding_says() -> None:
    largest = Weights(np.array([0x7BFF], np.uint16), "float16")
    for value, finite in [(65519, True), (65520, False), (65536, False), (-65519, True), (-65520, False)]:
        scaled, levels = largest.scaled(1.0, 1), np.array([[value]], np.int32)
        assert scaled.distortion(levels, None).finite == in_numpy(scaled.distortion, levels, None).finite == finite


@given(st.lists(st.lists(st.integers(-(2**30), 2**30), min_size=7, max_size=7), min_size=0, max_size=9))
def test_row_magnitudes(rows: list[list[int]]) -> None:
    levels = np.array(rows, np.int32).reshape(-1, 7)
    np.testing.assert_array_equal(row_magnitudes(levels), in_numpy(row_magnitudes, levels))


@given(finite_weights())
def test_energy_at_stake_and_survey(weights: Weights) -> None:
    expected = in_numpy(lambda: Weights(weights.bits, weights.dtype).survey())
    found = weights.survey()
    assert found.energy == expected.energy
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.lower, expected.lower)


def test_arrays_that_do_not_match_are_refused() -> None:
    kernels = core()
    assert kernels is not None
    bits, levels = np.zeros(6, np.uint32), np.zeros((2, 3), np.int32)
    out, none = np.empty((2, 3), np.int32), np.zeros((1, 4))
    one = np.ones(1, np.int64)
    for type in (-1, 1, 3, 4):
        with pytest.raises(InvalidArgument):
            kernels.round_levels(bits, type, 1.0, out)
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidArgument):
            kernels.round_levels(bits, 0, step, out)
    with pytest.raises(InvalidArgument):
        kernels.round_levels(bits[1:], 0, 1.0, out)
    with pytest.raises(InvalidArgument):
        kernels.measure(bits, 0, np.zeros(8191, np.int64))
    for classes, counts in [(np.array([0, 1]), one), (np.array([0, -1]), one), (one, one), (None, 5 * one)]:
        with pytest.raises(InvalidArgument):
            kernels.rate_distortion_round(bits, 0, 1.0, levels, classes, one, counts, none, out)
