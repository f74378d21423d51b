"""Steps by row: how a tensor is cut where rows differ, and what a caller may say of rows."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewbits
from fewbits import InvalidArgument
from fewbits.chunk import TensorSpec
from fewbits.method import Source
from fewbits.methods.ecsq.steps import sensitivity_in, spans_of
from fewbits.plan import SMALL, TILE, tiles


@given(st.integers(1, 300_000), st.integers(1, 64), st.integers(0, 1000))
def test_runs_are_whole_rows_that_cover_all_and_are_not_short(num_rows: int, row_length: int, seed: int) -> None:
    spec = TensorSpec("t", "float32", (num_rows, row_length))
    sensitivity = np.exp(np.random.default_rng(seed).normal(size=num_rows).cumsum() * 0.05)
    spans = spans_of(spec, sensitivity)
    assert spans[0][0] == 0 and spans[-1][1] == spec.num_elements
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(start % row_length == 0 and stop - start <= TILE for start, stop in spans)
    ends = {stop for _, stop in tiles(spec)}
    assert all(stop - start >= SMALL or stop in ends for start, stop in spans)
    assert ends <= {stop for _, stop in spans}


def test_rows_alike_are_one_run_and_a_step_between_them_parts_them() -> None:
    spec = TensorSpec("t", "float32", (4000, 64))
    assert spans_of(spec, np.ones(4000)) == tiles(spec) == spans_of(spec, 3.0) == spans_of(spec, None)
    halves = np.repeat([4.0, 1.0], 2000)
    assert spans_of(spec, halves) == [(0, 128_000), (128_000, 256_000)]
    assert sensitivity_in(spec, halves, (0, 128_000)) == 4.0
    assert sensitivity_in(spec, halves, (0, 256_000)) == 2.5
    assert sensitivity_in(spec, None, (0, 64)) is None


def test_rows_longer_than_a_tile_are_cut_as_ever_and_an_empty_tensor_is_none() -> None:
    long = TensorSpec("t", "float32", (2, TILE + 5))
    assert spans_of(long, np.array([1.0, 9.0])) == tiles(long)
    assert sensitivity_in(long, np.array([1.0, 9.0]), (0, TILE)) == 1.0
    assert sensitivity_in(long, np.array([1.0, 9.0]), (TILE, 2 * TILE)) == 5.0
    empty = TensorSpec("t", "float32", (0, 5))
    assert spans_of(empty, np.ones(0)) == tiles(empty)
    assert sensitivity_in(empty, np.ones(0), (0, 0)) is None


def test_expected_bits_are_of_the_runs_steps(tmp_path: Any) -> None:
    rng = np.random.default_rng(1)
    tensors = {
        "t": torch.from_numpy(rng.normal(size=(4000, 64))).float(),
        "other": torch.from_numpy(rng.normal(size=(300, 300))).float(),
    }
    rows = np.repeat([64.0, 1.0], 2000)
    survey = fewbits.Ecsq().survey(Source(tensors, None, {"t": rows}))
    plain = fewbits.Ecsq().survey(Source(tensors, None, {"t": 1.0}))
    assert survey.bits(0.1) == pytest.approx(plain.bits(0.1) + 2000 * 64 * 3, rel=0.01)  # half the weights, 3 bits more
    path = tmp_path / "file.fewbits"
    report = fewbits.compress(tensors, path, budget=150_000, statistics={"t": torch.from_numpy(rows)})
    assert 149_000 <= report.size <= 150_000
    errors = (fewbits.load(path)["t"] - tensors["t"]).square().mean(1)
    assert float(errors[2000:].mean() / errors[:2000].mean()) == pytest.approx(64, rel=0.15)


def test_other_methods_take_the_mean(tmp_path: Any) -> None:
    tensors = {"t": torch.randn(64, 64, generator=torch.Generator().manual_seed(1))}
    rows = torch.linspace(0.5, 1.5, 64)
    one, other = tmp_path / "one.fewbits", tmp_path / "other.fewbits"
    fewbits.compress(tensors, one, bits=3.0, method="qswd", statistics={"t": rows})
    fewbits.compress(tensors, other, bits=3.0, method="qswd", statistics={"t": 1.0})
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("rows", [torch.ones(63), torch.zeros(64), torch.full((64,), float("nan")), torch.ones(0)])
def test_sensitivities_of_other_rows_are_refused(rows: torch.Tensor, tmp_path: Any) -> None:
    with pytest.raises(InvalidArgument, match="64 finite numbers"):
        fewbits.compress({"t": torch.randn(64, 64)}, tmp_path / "f.fewbits", bits=3.0, statistics={"t": rows})
    assert not list(tmp_path.iterdir())
