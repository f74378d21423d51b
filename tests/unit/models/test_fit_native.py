"""The compiled core fits as the NumPy code does: the same models, at the same cost."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.errors import InvalidArgument
from fewbits.models.fit import Fit, best_fit, fit_rows, fit_values
from fewbits.native import core
from tests.unit.coder.samples import INT64

pytestmark = pytest.mark.skipif(core() is None, reason="there is no compiled core")

INT32 = np.iinfo(np.int32)
LEAST, MOST = -(2**63), 2**63 - 1


def numpy_fit_values(values: NDArray[Any]) -> Fit:
    """What the written-out function gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        assert core() is None
        return fit_values(values)


def numpy_fit_rows(values: NDArray[np.int64], keys: NDArray[np.int64]) -> Fit | None:
    """What the written-out function gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        return fit_rows(values, keys)


def numpy_best_fit(values: NDArray[np.int64], keys: NDArray[np.int64], class_bytes: int) -> Fit:
    """What the written-out function gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        return best_fit(values, keys, class_bytes)


def forms(values: NDArray[np.int64]) -> list[NDArray[Any]]:
    """The integers in every type that holds them, and out of memory order."""
    arrays: list[NDArray[Any]] = [values, np.repeat(values, 2, axis=-1)[..., ::2]]
    for narrower in (np.int32, np.uint32):
        limits = np.iinfo(narrower)
        if limits.min <= values.min() and values.max() <= limits.max:
            arrays.append(values.astype(narrower))
    return arrays


def assert_equal_fits(values: NDArray[np.int64]) -> None:
    expected = numpy_fit_values(values)
    for array in forms(values):
        assert fit_values(array) == expected
        assert numpy_fit_values(array) == expected


def assert_same(fit: Fit | None, expected: Fit | None) -> None:
    if expected is None or fit is None:
        assert fit is expected
        return
    assert (fit.models, fit.cost) == (expected.models, expected.cost)
    if expected.classes is None or fit.classes is None:
        assert fit.classes is expected.classes
    else:
        assert np.array_equal(fit.classes, expected.classes)


def assert_equal_row_fits(values: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
    expected = numpy_fit_rows(values, keys)
    best = [numpy_best_fit(values, keys, class_bytes) for class_bytes in (0, 1)]
    for array in forms(values):
        assert_same(fit_rows(array, keys), expected)
        for class_bytes in (0, 1):
            assert_same(best_fit(array, keys, class_bytes), best[class_bytes])


def wrapped(values: NDArray[np.float64], offset: int = 0) -> NDArray[np.int64]:
    """Rounded to integers, an offset added modulo 2^64."""
    clipped = np.clip(np.rint(values), -(2.0**62), 2.0**62).astype(np.int64)
    return (clipped.view(np.uint64) + np.uint64(offset % 2**64)).view(np.int64)


# ---- arrays of one model

SPREADS = (0, 1, 2, 61, 62, 63, 64, 2**16 - 1, 2**16, 2**16 + 1, 2**17, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("low", [LEAST, -(2**31), -1, 0, 1 - 2**31, None])
def test_two_values_however_far_apart(spread: int, low: int | None) -> None:
    begin = MOST - spread if low is None else low
    if begin < LEAST or begin + spread > MOST:
        return
    assert_equal_fits(np.array([begin, begin + spread]))
    assert_equal_fits(np.repeat([begin, begin + spread], [1, 9000]))
    assert_equal_fits(np.repeat([begin, begin + spread], [9000, 1]))


@given(st.lists(INT64 | st.integers(-300, 300), min_size=1, max_size=40))
def test_any_integers(values: list[int]) -> None:
    assert_equal_fits(np.array(values))


@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(1, 20_000)), min_size=1, max_size=70))
def test_any_counts(occurrences: list[tuple[int, int]]) -> None:
    values, counts = np.array(occurrences).T
    assert_equal_fits(np.repeat(values, counts))


@settings(max_examples=25)
@given(st.sampled_from([0.05, 0.3, 1, 5, 40, 1000, 2.0**17, 2.0**35, 2.0**58]), INT64, st.integers(0, 2**32))
def test_values_of_a_distribution(scale: float, offset: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = int(2 ** generator.uniform(0, 14.5))
    for draw in (generator.laplace, generator.standard_cauchy, generator.normal, generator.uniform):
        values = draw(size=size) * scale
        assert_equal_fits(wrapped(values))
        assert_equal_fits(wrapped(values, offset))


@given(st.integers(1, 62), st.integers(1, 60_000), st.integers(0, 60_000), st.integers(0, 20))
def test_tables_that_only_many_steps_make_sum(gap: int, first: int, last: int, seed: int) -> None:
    # Two edges hold nearly everything, so that every value between them takes a slot that it did not earn.
    counts = np.append(np.random.default_rng(seed).integers(0, 2, gap), last)
    assert_equal_fits(np.repeat(np.arange(gap + 2), np.append(first, counts)))


@given(st.integers(-(2**62), 2**62), st.floats(0.1, 1e6), st.integers(4000, 40_000), st.integers(0, 99))
def test_outliers_of_a_narrow_core(outlier: int, scale: float, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = wrapped(generator.laplace(0, scale, size))
    # As many as decide, or just fail to decide, the order statistics that the shift goes by.
    for count in {1, size // 4096, size // 4096 + 1, size // 100}:
        values[generator.permutation(size)[:count]] = outlier + generator.integers(0, 3, count)
        assert_equal_fits(values)


@pytest.mark.parametrize("size", [4095, 4096, 8191, 8192, 20_000])
@pytest.mark.parametrize("spread", [124 * 8 * 2**k + d for k in (0, 6, 7, 9, 30) for d in (-1, 0, 1)])
def test_spreads_at_which_the_grain_changes(size: int, spread: int) -> None:
    values = np.random.default_rng(spread).integers(0, spread + 1, size)
    values[: size // 4096 + 1], values[-(size // 4096) - 1 :] = 0, spread  # so both order statistics are the ends
    values[size // 2] = 2**40
    assert_equal_fits(values)
    assert_equal_fits(-values)


@pytest.mark.parametrize("low", [0, LEAST, MOST - 2**16 - 1, INT32.min, INT32.max - 2**16 - 1])
@pytest.mark.parametrize("size", [3, 60, 5000, 70_000, 2_000_000])
def test_ranges_around_the_widest_that_is_counted_singly(low: int, size: int) -> None:
    for spread in (2**16 - 1, 2**16, 2**16 + 1):
        values = low + np.random.default_rng(size).integers(0, spread + 1, size)
        values[[0, -1]] = low, low + spread
        if size < 2_000_000:
            assert_equal_fits(values)
        else:
            assert fit_values(values) == numpy_fit_values(values)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4), (4, 0 + 1, 5)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert_equal_fits(np.full(shape, -7).reshape(-1))
    assert fit_values(np.full(shape, -7)) == numpy_fit_values(np.full(shape, -7))


def test_other_integer_types_and_unaligned_memory() -> None:
    values = np.random.default_rng(0).integers(-100, 100, 999)
    unaligned = np.frombuffer(b"\0" + values.tobytes(), np.uint8)[1:].view(np.int64)
    expected = numpy_fit_values(values)
    arrays: list[NDArray[Any]] = [values.astype(np.int8), values.astype(">i8"), unaligned]
    for array in arrays:
        assert fit_values(array) == expected


# ---- classes of rows


@given(st.integers(2, 40), st.integers(1, 90), st.integers(1, 12), st.floats(0.1, 1e7), st.integers(0, 2**32))
def test_rows_of_classes(rows: int, length: int, classes: int, scale: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    keys = generator.integers(-classes, classes, rows)
    scales = scale * 2.0 ** generator.uniform(-6, 6, rows)[:, None]
    values = wrapped(generator.laplace(0, 1, (rows, length)) * scales)
    assert_equal_row_fits(values, keys)
    values[generator.integers(rows), generator.integers(length)] = generator.integers(LEAST, MOST)
    assert_equal_row_fits(values, keys)


@given(st.lists(st.lists(INT64, min_size=3, max_size=3), min_size=2, max_size=6))
def test_rows_of_any_integers(rows: list[list[int]]) -> None:
    assert_equal_row_fits(np.array(rows), np.arange(len(rows)) // 2)


@pytest.mark.parametrize("classes", [2, 3, 129, 130, 131])
def test_many_classes(classes: int) -> None:
    generator = np.random.default_rng(classes)
    keys = generator.permutation(np.arange(1000) % classes) * 1000
    scales = 1.5 ** (keys // 1000 % 13)[:, None]
    for length in (1, 20):
        assert_equal_row_fits(wrapped(generator.laplace(0, 1, (1000, length)) * scales), keys)


@pytest.mark.parametrize("classes", [1, 4095, 4096, 4097])
def test_as_many_classes_as_a_file_holds_and_more(classes: int) -> None:
    keys = np.random.default_rng(0).permutation(np.arange(5000) % classes)
    assert_equal_row_fits(keys[:, None] % 7, keys)


@pytest.mark.parametrize("digits", [14, 17, 20, 30, 40])
@pytest.mark.parametrize("outliers", [0, 1, 40])
def test_many_rows_of_widely_spread_integers(digits: int, outliers: int) -> None:
    # Some classes ask for a finer grain than the whole, some do not, and there are few enough for a pass in row order.
    generator = np.random.default_rng(digits)
    keys = generator.integers(0, 3, 900)
    scales = 2.0 ** (digits + keys * 3)[:, None]
    values = wrapped(generator.laplace(0, 1, (900, 301)) * scales)
    values.flat[generator.permutation(values.size)[:outliers]] = generator.integers(LEAST, MOST, outliers)
    assert_equal_row_fits(values, keys)
    assert_equal_row_fits(np.sort(values, axis=None).reshape(values.shape), np.arange(900) // 400)


@pytest.mark.parametrize("digits", [14, 31, 61])
def test_classes_that_are_constant_or_of_few_values_beside_wide_ones(digits: int) -> None:
    generator = np.random.default_rng(digits)
    values = generator.integers(-(2**digits), 2**digits, (9, 40))
    values[0], values[1], values[2] = values.min(), values.max(), values.max() - 1
    values[3, ::2], values[3, 1::2] = 5, 6
    for keys in (np.arange(9), np.minimum(np.arange(9), 4)):
        assert_equal_row_fits(values, keys)


def test_the_cheaper_of_one_model_and_several_is_chosen() -> None:
    generator = np.random.default_rng(0)
    keys = np.arange(100) % 2
    values = wrapped(generator.laplace(0, 1, (100, 200)) * np.where(keys, 40, 1)[:, None])
    by_class = fit_rows(values, keys)
    assert_same(best_fit(values, keys), by_class)
    # What a caller writes for a class counts, and of equals the one model is chosen.
    whole = fit_values(values)
    assert by_class is not None and by_class.cost < whole.cost
    assert_same(best_fit(values, keys, 1 << 20), whole)
    assert_same(best_fit(values, np.zeros(100, np.int64)), whole)
    assert best_fit(values, None) == whole


# ---- what the core refuses


def test_arguments_that_do_not_fit_are_refused() -> None:
    native = core()
    assert native is not None
    with pytest.raises(InvalidArgument):
        native.ShippedTables(np.zeros((192, 64), np.uint16), np.ones(192, np.int64))
    counts = np.zeros((192, 64), np.uint16)
    counts[:, 0], counts[:, 1] = 8191, 1
    tables = native.ShippedTables(counts, np.ones(192, np.int64))
    with pytest.raises(InvalidArgument):
        native.ShippedTables(counts, np.full(192, 65))
    with pytest.raises(InvalidArgument):
        native.fit_values(np.zeros(0, np.int64), tables)
    values = np.zeros((3, 2), np.int32)
    for classes, number in [
        ([0, 1, 2], 2),
        ([0, -1, 1], 2),
        ([0, 0, 2], 3),
        ([0, 1], 2),
        ([0, 0, 0], 1),
        ([0, 1, 1], 9),
    ]:
        with pytest.raises(InvalidArgument):
            native.fit_rows(values, np.array(classes), number, tables)
        with pytest.raises(InvalidArgument):
            native.best_fit(values, np.array(classes), number, 0, tables)
    for class_bytes in (-1, 2**20 + 1):
        with pytest.raises(InvalidArgument):
            native.best_fit(values, np.array([0, 1, 1]), 2, class_bytes, tables)
    with pytest.raises(InvalidArgument):
        native.fit_rows(np.zeros((3, 0), np.int32), np.array([0, 1, 1]), 2, tables)
    with pytest.raises(InvalidArgument):
        native.fit_rows(np.zeros(3, np.int32), np.array([0, 1, 1]), 2, tables)
