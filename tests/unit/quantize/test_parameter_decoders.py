"""Parameter decoders: steps, bases, and the order of the sums that make a decoded weight the same everywhere."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.quantize.parameter_decoders import (
    MOST_CODE,
    STEPS_PER_OCTAVE,
    Grid,
    Kernels,
    Scalar,
    bumps,
    dft,
    nearest_code,
    step_of,
)

SIZES = [*product(range(1, 8), range(1, 8)), (11, 11), (8, 5), (1, 16), (16, 1), (12, 7), (32, 32)]
# WIRE: 2^(k / 16) in float32, found apart from the code by integer roots.
MANTISSAS = (
    *(0x3F800000, 0x3F85AAC3, 0x3F8B95C2, 0x3F91C3D3, 0x3F9837F0, 0x3F9EF532, 0x3FA5FED7, 0x3FAD583F),
    *(0x3FB504F3, 0x3FBD08A4, 0x3FC5672A, 0x3FCE248C, 0x3FD744FD, 0x3FE0CCDF, 0x3FEAC0C7, 0x3FF5257D),
)
Floats = NDArray[np.float32]


def levels_of(rng: np.random.Generator, *shape: int, reach: int = 9) -> NDArray[np.int64]:
    return rng.integers(-reach, reach + 1, shape)


# ---- steps


def test_the_mantissas_are_these_bits() -> None:
    found = [int(step_of(code).view(np.uint32)) for code in range(STEPS_PER_OCTAVE)]
    assert found == list(MANTISSAS)


def test_steps_are_exact_at_octaves_and_their_mantissas_repeat() -> None:
    for octave in range(-100, 100):
        assert float(step_of(16 * octave)) == 2.0**octave
        for part in range(16):
            assert float(step_of(16 * octave + part)) == float(step_of(part)) * 2.0**octave
    assert float(step_of(MOST_CODE)) == 1 / float(step_of(-MOST_CODE)) == 2.0 ** (MOST_CODE // 16)


def test_steps_rise_and_are_the_powers_to_float32() -> None:
    codes = range(-MOST_CODE, MOST_CODE + 1)
    steps = np.array([step_of(code) for code in codes])
    assert steps.dtype == np.float32 and (np.diff(steps) > 0).all()
    np.testing.assert_allclose(steps.astype(np.float64), [2.0 ** (code / 16) for code in codes], rtol=2.0**-24)


@given(st.integers(-MOST_CODE, MOST_CODE))
def test_nearest_code_is_the_inverse(code: int) -> None:
    assert nearest_code(float(step_of(code))) == code


@given(st.floats(2.0**-99, 2.0**99))
def test_nearest_code_is_nearest_by_ratio(step: float) -> None:
    ratio = step / float(step_of(nearest_code(step)))
    assert abs(math.log2(ratio)) <= 1 / 32 + 1e-6


@pytest.mark.parametrize(("step", "code"), [(1e38, MOST_CODE), (1e-38, -MOST_CODE), (math.ulp(0.0), -MOST_CODE)])
def test_nearest_code_stays_in_range(step: float, code: int) -> None:
    assert nearest_code(step) == code


# ---- the DFT


@pytest.mark.parametrize("size", SIZES)
def test_the_basis_is_orthonormal_and_its_classes_count_up(size: tuple[int, int]) -> None:
    basis, classes = dft(*size)
    count = math.prod(size)
    assert basis.shape == (count, count) and basis.dtype == np.float32 and classes.dtype == np.int64
    wide = basis.astype(np.float64)
    np.testing.assert_allclose(wide @ wide.T, np.eye(count), atol=3e-7)
    assert classes[0] == 0 and set(np.diff(classes)) <= {0, 1}
    assert np.bincount(classes).max() <= 2


def numbers_of_frequencies(height: int, width: int) -> int:
    pairs = {frozenset([(u, v), (-u % height, -v % width)]) for u in range(height) for v in range(width)}
    return len(pairs)


@pytest.mark.parametrize("size", SIZES)
def test_each_class_is_one_frequency_of_numpys_transform(size: tuple[int, int]) -> None:
    height, width = size
    basis, classes = dft(*size)
    assert classes[-1] + 1 == numbers_of_frequencies(*size)
    power = np.abs(np.fft.fft2(basis.reshape(-1, height, width).astype(np.float64))) ** 2
    seen: list[tuple[float, int, int]] = []
    for index in range(classes[-1] + 1):
        rows = np.flatnonzero(classes == index)
        (u, v), *rest = np.argwhere(power[rows[0]] > 1e-6).tolist()
        twin = [-u % height, -v % width]
        assert rest == ([twin] if twin != [u, v] else [])
        assert len(rows) == 1 + len(rest)  # what is its own twin has no sine
        for row in rows:
            assert power[row][u, v] + (power[row][tuple(twin)] if rest else 0) == pytest.approx(
                height * width, rel=1e-5
            )
        near = [(a - height if 2 * a > height else a, b - width if 2 * b > width else b) for a, b in ((u, v), twin)]
        seen.append(min((p**2 * width**2 + q**2 * height**2, -p, -q) for p, q in near))
    assert seen == sorted(seen) and len(set(seen)) == len(seen)


@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 3), (2, 6)])
def test_of_a_pair_the_cosine_comes_first_and_then_the_sine(size: tuple[int, int]) -> None:
    basis, classes = dft(*size)
    for index in range(classes[-1] + 1):
        cosine, *sine = basis[classes == index]
        assert cosine[0] == cosine.max() > 0  # at the kernel's first element the phase is 0
        assert all(row[0] == 0 for row in sine)


def test_some_bases_are_known() -> None:
    half = np.float32(0.5)
    expected = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
    np.testing.assert_array_equal(dft(2, 2).basis, half * np.array(expected, np.float32))
    assert dft(2, 2).classes.tolist() == [0, 1, 2, 3]
    root = np.float32(math.sqrt(0.5))
    four = [[0.5, 0.5, 0.5, 0.5], [root, 0, -root, 0], [0, root, 0, -root], [0.5, -0.5, 0.5, -0.5]]
    np.testing.assert_array_equal(dft(1, 4).basis, np.array(four, np.float32))
    assert dft(1, 4).classes.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(dft(1, 1).basis, np.ones((1, 1), np.float32))
    assert dft(3, 3).classes.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_zero_is_exactly_zero(size: tuple[int, int]) -> None:
    magnitudes = np.abs(dft(*size).basis)
    assert magnitudes[magnitudes > 0].min() > 1e-4


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (4, 6), (1, 7)])
def test_sums_of_squares_are_kept(size: tuple[int, int]) -> None:
    levels = levels_of(np.random.default_rng(0), 20, math.prod(size))
    kernels = Kernels((0,) * int(dft(*size).classes[-1] + 1), size).decode(levels)
    np.testing.assert_allclose((kernels.astype(np.float64) ** 2).sum(1), (levels**2).sum(1), rtol=1e-6)


# ---- bumps


@pytest.mark.parametrize(
    ("size", "count", "margin"), [(28, 14, 2), (28, 10, 0), (9, 4, 1), (5, 5, 0), (1, 1, 0), (64, 3, 31)]
)
def test_bumps_have_mean_1_and_are_symmetric(size: int, count: int, margin: int) -> None:
    made = bumps(size, count, margin)
    assert made.shape == (size, count) and made.dtype == np.float32 and (made >= 0).all()
    assert made.astype(np.float64).sum(1).mean() == pytest.approx(1, rel=1e-6)
    np.testing.assert_array_equal(made, made[::-1, ::-1])


@pytest.mark.parametrize(("size", "count", "margin"), [(28, 14, 2), (9, 4, 1), (255, 64, 100)])
def test_bumps_are_gaussian_about_their_centres(size: int, count: int, margin: int) -> None:
    centres = (np.arange(count) + 0.5) * (size - 2 * margin) / count + margin - 0.5
    heights = np.exp(-(((np.arange(size)[:, None] - centres) * 2 * count / size) ** 2) / 2)
    expected = heights / heights.sum(1).mean()
    np.testing.assert_allclose(bumps(size, count, margin), expected, rtol=1e-6, atol=1e-30)


# ---- decoding


def combined(coefficients: Floats, basis: Floats) -> Floats:
    """Coefficients (N, n) times basis rows (n, m), one operation of float32 at a time, the first row first."""
    sums = np.zeros((coefficients.shape[0], basis.shape[1]), np.float32)
    for row, column in np.ndindex(sums.shape):
        total = np.float32(coefficients[row, 0] * basis[0, column])
        for k in range(1, basis.shape[0]):
            total = np.float32(total + np.float32(coefficients[row, k] * basis[k, column]))
        sums[row, column] = total
    return sums


def assert_same_bits(found: Floats, expected: Floats) -> None:
    assert found.dtype == expected.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@given(st.integers(-400, 400), st.lists(st.integers(-(2**40), 2**40), max_size=20))
def test_scalar_is_one_product(code: int, levels: list[int]) -> None:
    array = np.array(levels, np.int64).reshape(-1, 1)
    found = Scalar((code,)).decode(array)
    assert_same_bits(
        found, np.array([[np.float32(level) * step_of(code)] for level in levels], np.float32).reshape(-1, 1)
    )


@given(st.data())
def test_kernels_are_sums_in_the_order_of_the_page(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 5), (4, 3)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = math.prod(size)
    levels = levels_of(rng, data.draw(st.integers(0, 5)), count, reach=data.draw(st.sampled_from([1, 40, 1 << 24])))
    if data.draw(st.booleans()):
        frequencies = int(dft(*size).classes[-1]) + 1
        codes = tuple(data.draw(st.lists(st.integers(-99, 99), min_size=frequencies, max_size=frequencies)))
        decoder, basis = Kernels(codes, size), dft(*size).basis
        steps = np.array([step_of(codes[index]) for index in dft(*size).classes], np.float32)
    else:
        matrix = rng.standard_normal((count, count)).astype("<f2")
        decoder, basis = Kernels((data.draw(st.integers(-99, 99)),), size, matrix.tobytes()), matrix.astype(np.float32)
        steps = np.full(count, step_of(decoder.step_codes[0]))
    found = decoder.decode(levels)
    assert_same_bits(found, combined(levels.astype(np.float32) * steps, basis))
    reference = (levels * steps.astype(np.float64)) @ basis.astype(np.float64)
    scale = (np.abs(levels) * steps.astype(np.float64)) @ np.abs(basis).astype(np.float64)
    assert (np.abs(found - reference) <= 2.0**-23 * (count + 1) * scale).all()


@given(st.data())
def test_grids_go_along_rows_and_then_along_columns(data: st.DataObject) -> None:
    image = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    size = tuple(data.draw(st.integers(1, side)) for side in image)
    margin, code = data.draw(st.integers(0, (min(image) - 1) // 2)), data.draw(st.integers(-99, 99))
    decoder = Grid((code,), (size[0], size[1]), image, margin)
    levels = levels_of(
        np.random.default_rng(data.draw(st.integers(0, 2**32))), data.draw(st.integers(0, 4)), math.prod(size)
    )
    down, across = bumps(image[0], size[0], margin), bumps(image[1], size[1], margin)
    expected = np.zeros((len(levels), math.prod(image)), np.float32)
    for row, coefficients in enumerate(levels.astype(np.float32) * step_of(code)):
        lines = combined(coefficients.reshape(size), np.ascontiguousarray(across.T))  # (grid height, width)
        expected[row] = combined(np.ascontiguousarray(lines.T), np.ascontiguousarray(down.T)).T.ravel()
    found = decoder.decode(levels)
    assert_same_bits(found, expected)
    wide = (levels * float(step_of(code))) @ np.kron(down.astype(np.float64), across.astype(np.float64)).T
    np.testing.assert_allclose(found, wide, rtol=1e-5, atol=1e-5 * float(np.abs(wide).max(initial=1e-30)))


def test_what_overflows_is_not_finite_and_gives_no_warning() -> None:
    assert np.isinf(Scalar((MOST_CODE,)).decode(np.array([[1 << 30]]))).all()
    assert not np.isfinite(Kernels((MOST_CODE,) * 5, (3, 3)).decode(np.full((1, 9), 1 << 30))).all()
    assert not np.isfinite(Grid((MOST_CODE,), (2, 2), (4, 4), 0).decode(np.full((1, 4), 1 << 30))).all()
