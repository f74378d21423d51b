"""The compiled core takes floats apart as the NumPy code does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.chunk import DTYPES
from fewbits.coder.fields import Fields, field_integers
from fewbits.errors import InvalidArgument
from fewbits.native import core
from tests.unit.test_quantize_native import in_numpy

pytestmark = pytest.mark.skipif(core() is None, reason="there is no compiled core")

FLOATS = sorted({(dtype.itemsize, dtype.mantissa) for dtype in DTYPES.values() if dtype.kind == "float"})


@st.composite
def matrices(draw: st.DrawFn) -> tuple[NDArray[Any], int]:
    """Words of some float dtype, in memory that is not aligned, and its mantissa bits."""
    width, mantissa = draw(st.sampled_from(FLOATS))
    rows, row_length = draw(st.integers(1, 5)), draw(st.one_of(st.integers(1, 40), st.just(1000)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    words = rng.integers(0, 256, (rows, row_length * width), np.uint8).view(f"<u{width}")
    zeros = rng.integers(0, 8 * width, (rows, 1)) if draw(st.booleans()) else np.zeros((rows, 1), np.int64)
    words = words >> zeros.astype(words.dtype) << zeros.astype(words.dtype)
    if draw(st.booleans()):  # no sign anywhere
        words = words & words.dtype.type((1 << (8 * width - 1)) - 1)
    words[rng.random(words.shape) < draw(st.sampled_from([0, 0.5, 1]))] = 0
    octets = np.empty(words.nbytes + 1, np.uint8)[1:]
    octets[:] = words.ravel().view(np.uint8)
    return octets.view(words.dtype).reshape(words.shape), mantissa


@given(matrices())
def test_fields(case: tuple[NDArray[Any], int]) -> None:
    matrix, mantissa = case
    found, expected = Fields.of(matrix, mantissa), in_numpy(Fields.of, matrix, mantissa)
    assert (found.signed, found.num_nonzero) == (expected.signed, expected.num_nonzero)
    np.testing.assert_array_equal(found.zeros, expected.zeros)
    np.testing.assert_array_equal(found.exponents, expected.exponents)


def test_exponents_of_long_rows_do_not_overflow() -> None:
    matrix = np.full((1, 3 << 16), 0xFFFF, np.uint16)
    for mantissa in (7, 10):
        found, expected = Fields.of(matrix, mantissa), in_numpy(Fields.of, matrix, mantissa)
        np.testing.assert_array_equal(found.exponents, expected.exponents)


@given(matrices(), st.booleans(), st.data())
def test_integers(case: tuple[NDArray[Any], int], signed: bool, data: st.DataObject) -> None:
    matrix, mantissa = case
    least = Fields.of(matrix, mantissa).zeros
    drops = least if data.draw(st.booleans()) else np.full_like(least, least.min())
    found = field_integers(matrix, drops, signed=signed)
    expected = in_numpy(lambda: field_integers(matrix, drops, signed=signed))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype and found.shape == matrix.shape


def test_arrays_that_do_not_match_are_refused() -> None:
    kernels = core()
    assert kernels is not None
    matrix, rows = np.zeros((2, 3), np.uint16), np.zeros(2, np.uint64)
    for mantissa in (-1, 15, 3, 64):
        with pytest.raises(InvalidArgument):
            kernels.survey_fields(matrix, mantissa, rows, rows.copy())
    with pytest.raises(InvalidArgument):
        kernels.survey_fields(matrix, 10, rows[1:], rows)
    for drops, out in [(rows, np.zeros((2, 2), np.uint32)), (rows + 16, np.zeros((2, 3), np.uint32))]:
        with pytest.raises(InvalidArgument):
            kernels.field_integers(matrix, drops, True, out)
    with pytest.raises(InvalidArgument):
        kernels.field_integers(matrix, rows, True, np.zeros((2, 3), np.int64))
