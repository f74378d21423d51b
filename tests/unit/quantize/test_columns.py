"""Matrices by columns: the compiled core does what is written out, errors are fed back, levels find their way back."""

import dataclasses

import numpy as np
import pytest

from fewbits.native import core
from fewbits.quantize.columns import ColumnCoder, ColumnValues, ElementModels, RowFeedback, levels_by_model, row_order
from fewbits.quantize.trellis import MOST_PRICED
from fewbits.quantize.weights import Weights

needs_core = pytest.mark.skipif(core() is None, reason="compares the compiled core with the code that is written out")


def _coder(
    rng: np.random.Generator, num_rows: int, num_paths: int, num_models: int = 5, num_sums: int = 0
) -> ColumnCoder:
    prices = rng.random((num_models, 2 * MOST_PRICED + 1), np.float32)
    shifts = 0.25 + 0.1 * rng.standard_normal((num_models, 5)).astype(np.float32)
    codes = np.sort(rng.integers(-1, 3, num_rows).astype(np.int32))
    felt = rng.standard_normal((num_rows, num_sums)).astype(np.float32)
    return ColumnCoder(
        ElementModels(codes, num_models),
        (2.0 ** -codes.astype(np.float64)).astype(np.float32),
        2.0 ** np.arange(-2, 2),
        shifts,
        prices,
        np.zeros(num_paths, np.uint32),
        np.zeros((num_models, 4)),
        np.zeros((num_models, 4), np.int64),
        RowFeedback(felt, np.ascontiguousarray(felt.T / np.float32(num_rows))),
    )


def _problem(rng: np.random.Generator, count: int, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = (3 * rng.standard_normal((count, num_rows))).astype(np.float32)
    feedback = np.triu(0.5 * rng.standard_normal((count, count)), 1).astype(np.float32)
    return columns, feedback, (0.5 + rng.random(count)).astype(np.float32)


@needs_core
@pytest.mark.parametrize("num_sums", [0, 1, 11])
@pytest.mark.parametrize(
    ("num_rows", "num_paths", "count"),
    [(1, 1, 3), (31, 2, 4), (300, 0, 3), (512, 8, 2), (513, 32, 3), (1100, 4, 2), (40, 32, 17), (64, 1, 9)],
)
def test_core_codes_as_written_out(monkeypatch, num_rows: int, num_paths: int, count: int, num_sums: int) -> None:
    results = []
    for isa in ("", "numpy"):
        monkeypatch.setenv("FEWBITS_ISA", isa)
        rng = np.random.default_rng(num_rows)
        coder = _coder(rng, num_rows, num_paths, num_sums=num_sums)
        columns, feedback, steps = _problem(rng, count, num_rows)
        first = coder.code(columns, feedback, steps)
        assert first is not None
        again, feedback, steps = _problem(rng, count, num_rows)  # states are carried on
        second = coder.code(again, feedback, steps)
        assert second is not None
        results.append((*first, *second, columns, again, coder.states, coder.totals, coder.counts))
    for native, written in zip(*results, strict=True):
        np.testing.assert_array_equal(native, written)


@needs_core
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("num_paths", [0, 1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize(("num_rows", "num_columns"), [(1, 1), (5, 33), (16, 70), (23, 9), (70, 16), (600, 17)])
def test_core_decodes_as_written_out(monkeypatch, dtype: str, num_rows: int, num_columns: int, num_paths: int) -> None:
    rng = np.random.default_rng(num_columns)
    values = _values(rng, num_rows, num_columns, num_paths)
    levels = rng.integers(-3, 4, num_rows * num_columns).astype(np.int32)
    results = []
    for isa in ("", "scalar", "numpy"):
        monkeypatch.setenv("FEWBITS_ISA", isa)
        weights = Weights(np.zeros(levels.size, {"float32": "u4", "float64": "u8"}.get(dtype, "u2")), dtype)
        assert values.write(weights, levels)
        results.append(weights.bits)
        assert not ColumnValues(
            values.models,
            values.codes,
            np.float32(1e38) * values.steps,
            values.row_scales,
            values.places,
            values.shifts,
            num_paths,
        ).write(weights, levels * 1000)
    for others in results[1:]:
        np.testing.assert_array_equal(results[0], others)


def _values(rng: np.random.Generator, num_rows: int, num_columns: int, num_paths: int) -> ColumnValues:
    return ColumnValues(
        ElementModels(np.sort(rng.integers(-1, 3, num_rows).astype(np.int32)), 6),
        rng.integers(-1, 6, num_columns).astype(np.int32),
        (0.5 + rng.random(num_columns)).astype(np.float32),
        (0.5 + rng.random(num_rows)).astype(np.float32),
        rng.permutation(num_rows).astype(np.int32),
        0.25 + 0.1 * rng.standard_normal((6, 5)).astype(np.float32),
        num_paths,
    )


@pytest.mark.parametrize("isa", ["", "numpy"])
def test_levels_decode_to_what_the_coder_left(monkeypatch, isa: str) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    rng = np.random.default_rng(0)
    coder = _coder(rng, 70, 4)
    columns, feedback, steps = _problem(rng, 20, 70)
    coded = coder.code(columns, feedback, steps)
    assert coded is not None
    codes, levels = coded
    places = rng.permutation(70).astype(np.int32)
    values = ColumnValues(coder.models, codes, steps, np.ones(70, np.float32), places, coder.shifts, 4)
    models = coder.models.of(codes)
    np.testing.assert_array_equal(values.counts, np.bincount(models.ravel(), minlength=5))
    weights = Weights(np.zeros(levels.size, np.uint32), "float32")
    assert values.write(weights, levels_by_model(coder.models, codes, levels))
    np.testing.assert_array_equal(weights.bits.view(np.float32).reshape(70, 20)[places].T, columns)


def test_rows_are_in_the_order_of_their_codes_then_of_their_places() -> None:
    assert row_order(np.array([3, -70_000, 3, 0, -70_000, 0], np.int32)).tolist() == [1, 4, 3, 5, 0, 2]
    codes = np.random.default_rng(3).integers(-2, 9, 500).astype(np.int32)
    np.testing.assert_array_equal(row_order(codes), np.argsort(codes, kind="stable"))
    assert row_order(codes).dtype == np.int32


@pytest.mark.parametrize("isa", ["", "numpy"])
def test_feedback_takes_errors_off_the_columns_after(monkeypatch, isa: str) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    rng = np.random.default_rng(1)
    covariance = np.corrcoef(rng.standard_normal((24, 8)) @ rng.standard_normal((8, 400)) + 0.1)
    covariance = covariance + 0.05 * np.eye(24)
    upper = np.linalg.cholesky(covariance[::-1, ::-1])[::-1, ::-1]
    weights = rng.standard_normal((200, 24))
    errors = []
    for factor in (upper, np.diag(np.sqrt(np.diag(covariance)))):
        coder = _coder(rng, 200, 1)
        coder.prices[:] = 0
        coder.shifts[:] = 0.25
        columns = np.ascontiguousarray((weights @ factor).T.astype(np.float32))
        shares = (factor / np.diag(factor)[:, None]).astype(np.float32)
        steps = np.diag(factor).astype(np.float32)  # one step in units of the weights
        assert coder.code(columns, shares, steps) is not None
        error = columns.T / steps - weights
        errors.append(float(np.einsum("ri,ij,rj->", error, covariance, error)))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("isa", ["", "numpy"])
@pytest.mark.parametrize("num_paths", [0, 1, 4])
def test_row_feedback_takes_errors_off_the_rows_after(monkeypatch, isa: str, num_paths: int) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    rng = np.random.default_rng(5)
    felt = rng.standard_normal((256, 3)).astype(np.float32)
    sums = []
    for scale in (0.0, 1.0):
        coder = _coder(np.random.default_rng(6), 256, num_paths)
        coder.prices[:] = 0
        coder.shifts[:] = 0.25 if num_paths else 0
        shares = np.empty((3, 256), np.float32)  # least squares: each segment undoes all that the ones before it did
        for start in range(0, 256, 32):
            part = felt[start : start + 32]
            shares[:, start : start + 32] = scale * np.linalg.solve(part.T @ part, part.T)
        coder = dataclasses.replace(coder, rows=RowFeedback(felt, shares))
        columns = (3 * np.random.default_rng(7).standard_normal((20, 256))).astype(np.float32)
        wanted = columns.copy()
        assert coder.code(columns, np.zeros((20, 20), np.float32), np.ones(20, np.float32)) is not None
        sums.append(float(np.square((columns - wanted) @ felt).sum()))
    # What the last segment does, nothing undoes; and of several paths some levels are others once more rows have come.
    assert sums[1] < 0.5 * sums[0]


@pytest.mark.parametrize("isa", ["", "numpy"])
def test_what_feedback_puts_out_of_reach_is_said(monkeypatch, isa: str) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    coder = _coder(np.random.default_rng(8), 64, 1)
    rows = RowFeedback(np.ones((64, 1), np.float32), np.full((1, 64), 1e9, np.float32))
    columns = np.full((1, 64), 0.4, np.float32)
    coder = dataclasses.replace(coder, rows=rows)
    assert coder.code(columns, np.zeros((1, 1), np.float32), np.ones(1, np.float32)) is None


@pytest.mark.parametrize("isa", ["", "numpy"])
@pytest.mark.parametrize("far", [2.0**20, np.nan, -np.inf])
def test_what_is_out_of_reach_is_said(monkeypatch, isa: str, far: float) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    rng = np.random.default_rng(2)
    columns = np.zeros((3, 40), np.float32)
    columns[1, 7] = far
    assert _coder(rng, 40, 2).code(columns, np.zeros((3, 3), np.float32), np.ones(3, np.float32)) is None
