"""SIC: what is coded by columns and what is not, its settings, the loss it minimises, tiles, budgets, payloads."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import fewbits
from fewbits.chunk import Chunk
from fewbits.encode import decode
from fewbits.method import Curvature, Source
from fewbits.methods.ecsq import Ecsq, steps_of
from fewbits.methods.sic import Sic, SicConfig
from fewbits.methods.sic.payload import MOST_SCALE_CODE, Written, payload_of, scales_of, written_of
from fewbits.methods.sic.problem import factor_of
from fewbits.native import core
from fewbits.quantize.rounding import BIT_WORTH, equal_slope_step, short_float

needs_core = pytest.mark.skipif(
    core() is None, reason="the code that is written out takes minutes, or is compared with"
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(columns: int, correlation: float = 0.9) -> NDArray[np.float64]:
    """Inputs of which neighbours are alike, with a trace of 1."""
    places = np.arange(columns)
    return correlation ** np.abs(places[:, None] - places) / columns


def curvature(rows: int, columns: int, **given: float) -> Curvature:
    return Curvature(correlated(columns, **given), np.full(rows, 1 / rows))


def encoded(
    tensors: Mapping[str, Tensor],
    statistics: Mapping[str, Any],
    rate_weight: float = 0.01,
    config: SicConfig | None = None,
) -> list[Chunk]:
    return list(Sic(config).encode(Source(tensors, None, statistics), rate_weight=rate_weight, seed=0))


def loss(found: Tensor, weight: Tensor, known: Curvature) -> float:
    """What the errors of a matrix cost."""
    errors = (found.double() - weight.double()).reshape(weight.shape[0], -1).numpy()
    return float(np.einsum("r,ri,ij,rj->", known.outputs, errors, known.inputs, errors, optimize=True))


CONFIGS = [SicConfig(*flags) for flags in itertools.product((True, False), repeat=5)]
CONFIGS = CONFIGS if core() is not None else CONFIGS[::7]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "".join(str(int(f)) for f in config.to_json().values()))
def test_every_setting_comes_back_near_and_says_what_it_takes(config: SicConfig) -> None:
    tensors = {"weight": gaussian(80, 40), "kernels": gaussian(30, 4, 3, 3, seed=1).to(torch.bfloat16)}
    known = {"weight": curvature(80, 40), "kernels": curvature(30, 36)}
    for rate_weight in (1e-4, 0.01, 1.0):
        (chunk,) = encoded(tensors, known, rate_weight, config)
        assert chunk.method == "sic" and chunk.config == config.to_json()
        found = decode([chunk])
        for (name, tensor), each in zip(tensors.items(), chunk.losses, strict=True):
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            error = float((found[name].double() - tensor.double()).square().sum())
            assert each.squared_error == pytest.approx(error)
            assert each.energy == pytest.approx(float(tensor.double().square().sum()))
            if rate_weight < 0.1:
                assert loss(found[name], tensor, known[name]) < 0.12
        written = len(chunk.payload)
        assert abs(sum(each.bits for each in chunk.losses) / 8 - written) <= 0.01 * written + 16


@needs_core
def test_a_large_matrix_says_what_its_chunks_take() -> None:
    for rate_weight in (1e-4, 0.01, 1.0):
        (chunk,) = encoded({"weight": gaussian(1500, 100)}, {"weight": curvature(1500, 100)}, rate_weight)
        assert abs(chunk.losses[0].bits / 8 - len(chunk.payload)) <= 0.001 * len(chunk.payload) + 16


@needs_core
@pytest.mark.parametrize("trellis", [True, False])
@pytest.mark.parametrize("budget", [3000, 6000])
def test_feedback_costs_less_than_weighted_rounding_of_the_same_size(
    trellis: bool, budget: int, tmp_path: Path
) -> None:
    tensors, known = {"weight": gaussian(200, 64)}, {"weight": curvature(200, 64)}
    losses: list[float] = []
    for feedback in (True, False):
        path, method = tmp_path / f"{feedback}.fewbits", Sic(SicConfig(feedback=feedback, trellis=trellis))
        report = fewbits.compress(tensors, path, budget=budget, method=method, statistics=known)
        assert 0.95 * budget <= report.size <= budget
        losses.append(loss(fewbits.load(path)["weight"], tensors["weight"], known["weight"]))
    assert losses[0] < 0.5 * losses[1]  # their inputs have a bit less than they seem to, each


@needs_core
def test_the_trellis_and_own_steps_of_columns_cost_less(tmp_path: Path) -> None:
    tensors = {"weight": gaussian(400, 48)}
    scales = 2.0 ** np.linspace(-3, 3, 48)
    known = {"weight": Curvature(correlated(48) * np.outer(scales, scales), np.full(400, 1 / 400))}
    losses: list[float] = []
    for config in (SicConfig(), SicConfig(trellis=False), SicConfig(column_steps=False)):
        path = tmp_path / "file.fewbits"
        fewbits.compress(tensors, path, budget=7000, method=Sic(config), statistics=known)
        losses.append(loss(fewbits.load(path)["weight"], tensors["weight"], known["weight"]))
    assert losses[0] < 0.9 * losses[1]
    assert losses[0] < 0.5 * losses[2]


@needs_core
def test_rows_that_matter_more_have_finer_steps() -> None:
    weight, outputs = gaussian(128, 64), np.repeat([64.0, 1.0], 64)
    known = Curvature(correlated(64), outputs / outputs.sum())
    ratios: list[float] = []
    for row_weights in (True, False):
        found = decode(encoded({"weight": weight}, {"weight": known}, 0.001, SicConfig(row_weights=row_weights)))
        errors = (found["weight"] - weight).square().mean(1)
        ratios.append(float(errors[64:].mean() / errors[:64].mean()))
    assert ratios[0] == pytest.approx(64, rel=0.15)
    assert ratios[1] == pytest.approx(1, rel=0.15)


def test_errors_of_columns_count_alike() -> None:
    weight, scales = gaussian(300, 32), 2.0 ** np.linspace(-2, 2, 32)
    known = Curvature(np.diag(scales**2), np.full(300, 1 / 300))
    found = decode(encoded({"weight": weight}, {"weight": known}, 0.003))["weight"]
    costs = (found - weight).double().square().mean(0).numpy() * scales**2
    np.testing.assert_allclose(costs, costs.mean(), rtol=0.35)


def test_what_has_no_curvature_is_coded_as_by_ecsq() -> None:
    tensors = {"weight": gaussian(40, 30), "norm": gaussian(60), "counter": torch.arange(5)}
    rows = np.linspace(1, 2, 40)
    for known in ({}, {"weight": rows}, {"weight": 3.0, "norm": 0.5}):
        source = Source(tensors, None, known)
        assert encoded(tensors, known) == list(Ecsq().encode(source, rate_weight=0.01, seed=0))


def test_beside_matrices_the_others_are_coded_as_by_ecsq() -> None:
    tensors = {"weight": gaussian(40, 30), "norm": gaussian(60), "counter": torch.arange(5)}
    known = {"weight": curvature(40, 30), "norm": 2.0}
    others = Source({"norm": tensors["norm"], "counter": tensors["counter"]}, None, {"norm": 2.0}, 40 * 30 + 60)
    first, *rest = encoded(tensors, known)
    assert [spec.name for spec in first.tensors] == ["weight"]
    assert rest == list(Ecsq().encode(others, rate_weight=0.01, seed=0))


@pytest.mark.parametrize("shape", [(15, 40), (16, 15), (1, 400)])
def test_matrices_that_are_too_small_have_the_step_of_their_mean_curvature(shape: tuple[int, int]) -> None:
    known = curvature(*shape)
    (chunk,) = encoded({"weight": gaussian(*shape)}, {"weight": known}, 0.01)
    share = np.trace(known.inputs) * known.outputs.sum() / np.prod(shape)
    assert chunk.method == "ecsq"
    step = np.sqrt(0.01 / np.prod(shape) / BIT_WORTH / share)
    assert steps_of(chunk)["weight"] == pytest.approx(step, rel=1e-3)


def test_of_what_no_loss_was_felt_the_step_is_the_root_mean_square() -> None:
    tensor = gaussian(1000, seed=3)
    root = float(tensor.double().square().mean().sqrt())
    assert equal_slope_step(1000 * root**2, 1000, 0.3, 77, 0.0) == short_float(root)
    tensors, known = {"weight": gaussian(40, 30), "dead": tensor}, {"weight": curvature(40, 30), "dead": 0.0}
    found = [decode(encoded(tensors, known, rate_weight))["dead"] for rate_weight in (1e-6, 0.01, 100.0)]
    assert found[0].equal(found[1]) and found[1].equal(found[2])
    assert 0.05 < float((found[0] - tensor).square().mean()) < 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_kept_exactly(value: float) -> None:
    tensors = {"weight": gaussian(40, 30), "broken": gaussian(40, 30, seed=1)}
    tensors["broken"][7, 9] = value
    known = {name: curvature(40, 30) for name in tensors}
    chunks = encoded(tensors, known)
    assert [(chunk.method, [spec.name for spec in chunk.tensors]) for chunk in chunks] == [
        ("sic", ["weight"]),
        ("lossless", ["broken"]),
    ]
    assert "NaN or Inf" in chunks[1].losses[0].note
    assert decode(chunks)["broken"].view(torch.int32).equal(tensors["broken"].view(torch.int32))


def test_matrices_out_of_reach_or_range_fall_back_and_the_others_do_not() -> None:
    far, over = gaussian(40, 30, seed=1), torch.full((40, 30), 65504.0, dtype=torch.float16)
    far[3, 4] = 1e12  # more than 2^20 steps
    over *= gaussian(40, 30).sign()
    tensors = {"weight": gaussian(40, 30), "far": far, "over": over, "huge": gaussian(40, 30).double() * 1e37}
    known = {name: curvature(40, 30) for name in tensors}
    known["over"] = Curvature(known["over"].inputs / 65504.0**2, known["over"].outputs)
    chunks = encoded(tensors, known, 0.1)
    by_columns = {spec.name for chunk in chunks if chunk.method == "sic" for spec in chunk.tensors}
    assert by_columns == {"weight"}
    found = decode(chunks)
    assert all(found[name].isfinite().all() for name in tensors)
    assert found["far"][3, 4] == pytest.approx(1e12)


def test_a_tile_that_cannot_be_coded_takes_its_tensor_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.plan.TILE", 1000)
    monkeypatch.setattr("fewbits.plan.SMALL", 1000)
    weight = gaussian(100, 30)
    weight[90, 2] = 1e12
    assert "sic" not in [chunk.method for chunk in encoded({"weight": weight}, {"weight": curvature(100, 30)})]
    weight[90, 2] = 1.0
    assert {chunk.method for chunk in encoded({"weight": weight}, {"weight": curvature(100, 30)})} == {"sic"}


@pytest.mark.parametrize("rank", [1, 5, 29])
def test_a_singular_covariance_is_damped_until_it_is_none(rank: int) -> None:
    mixed = np.random.default_rng(rank).standard_normal((30, rank))
    inputs = mixed @ mixed.T / rank
    factor = factor_of(inputs)
    assert np.array_equal(factor, np.triu(factor)) and (np.diag(factor) > 0).all()
    np.testing.assert_allclose(factor @ factor.T, inputs, atol=1e-4 * np.trace(inputs))
    weight, known = gaussian(60, 30), Curvature(inputs, np.full(60, 1 / 60))
    nothing = loss(torch.zeros(60, 30), weight, known)
    chunks = encoded({"weight": weight}, {"weight": known}, 1e-3 * nothing)
    assert loss(decode(chunks)["weight"], weight, known) < 0.05 * nothing


def test_a_factor_is_upper_triangular_and_makes_its_covariance() -> None:
    inputs = correlated(50)
    factor = factor_of(inputs)
    assert np.array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor @ factor.T, inputs, rtol=1e-9, atol=1e-12)


@needs_core
@pytest.mark.parametrize(("rows", "columns"), [(300, 64), (1000, 64), (64, 200), (200, 400)])
def test_a_survey_says_what_is_written_to_15_percent_over_five_octaves(rows: int, columns: int) -> None:
    rng = np.random.default_rng(5)
    of_columns, of_rows, outputs = (2.0 ** rng.normal(size=size) for size in (columns, rows, rows))
    tensors = {
        "weight": gaussian(rows, columns) * torch.from_numpy(of_rows[:, None]).float(),
        "bias": gaussian(rows, seed=1),
    }
    inputs = correlated(columns) * np.outer(of_columns, of_columns)
    known = {"weight": Curvature(inputs / np.trace(inputs), outputs / outputs.sum())}
    survey = Sic().survey(Source(tensors, None, known))
    for octave in range(3, 10):
        written = sum(len(chunk.payload) for chunk in encoded(tensors, known, 2.0**-octave))
        assert survey.bits(2.0**-octave) / 8 == pytest.approx(written, rel=0.15)


def test_tiles_are_what_each_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.plan.TILE", 2000)
    monkeypatch.setattr("fewbits.plan.SMALL", 100)
    weight, rng = gaussian(170, 30), np.random.default_rng(0)
    outputs = rng.uniform(0.1, 1, 170)
    known = Curvature(correlated(30), outputs / outputs.sum())
    chunks = encoded({"weight": weight}, {"weight": known})
    assert [chunk.span for chunk in chunks] == [(0, 1980), (1980, 3960), (3960, 5100)]
    for chunk, rows in zip(chunks, (slice(0, 66), slice(66, 132), slice(132, 170)), strict=True):
        part, own = weight[rows], Curvature(known.inputs, known.outputs[rows])
        source = Source({"weight": part}, None, {"weight": own}, weight.numel())
        (alone,) = Sic().encode(source, rate_weight=0.01, seed=0)
        assert (alone.payload, alone.losses) == (chunk.payload, chunk.losses)
        assert decode([alone])["weight"].equal(decode(chunks)["weight"][rows])


@pytest.mark.parametrize("rows", [20, 383, 384, 1535, 1536, 6143, 6144, 9000])
def test_paths_are_as_many_as_leave_each_some_elements_of_a_column(rows: int) -> None:
    (chunk,) = encoded({"weight": gaussian(rows, 13)}, {"weight": curvature(rows, 13)}, 0.3)
    (written,) = written_of(chunk)
    assert written.matrix.num_paths == max(paths for paths in (1, 2, 4, 8, 16, 32) if paths == 1 or 192 * paths <= rows)


@needs_core
@pytest.mark.parametrize("trellis", [True, False])
def test_the_core_writes_what_is_written_out(trellis: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, known = {"weight": gaussian(70, 20)}, {"weight": curvature(70, 20)}
    files: list[bytes] = []
    for isa in ("", "numpy"):
        monkeypatch.setenv("FEWBITS_ISA", isa)
        (chunk,) = encoded(tensors, known, 0.01, SicConfig(trellis=trellis))
        files.append(chunk.payload)
    assert files[0] == files[1]


def test_a_payload_is_read_as_it_was_written() -> None:
    tensors = {"weight": gaussian(80, 40), "kernels": gaussian(30, 4, 3, 3, seed=1)}
    (chunk,) = encoded(tensors, {"weight": curvature(80, 40), "kernels": curvature(30, 36)}, 0.3)
    found: list[Written] = written_of(chunk)
    assert payload_of(found, wide=False) == chunk.payload
    wide = chunk._replace(payload=payload_of(found, wide=True))
    assert len(wide.payload) > len(chunk.payload)
    assert all(decode([wide])[name].equal(tensor) for name, tensor in decode([chunk]).items())


def test_scales_are_the_roots_of_powers_of_2() -> None:
    codes = np.arange(-MOST_SCALE_CODE, MOST_SCALE_CODE + 1).reshape(3, -1)
    np.testing.assert_allclose(scales_of(codes), 2.0 ** (codes / 8), rtol=2**-24)
    assert scales_of(np.array([-8, 0, 80], np.int32)).tolist() == [0.5, 1.0, 1024.0]
    assert scales_of(codes).dtype == np.float32


@needs_core
def test_a_budget_is_met_and_what_comes_back_is_what_was_told(tmp_path: Path) -> None:
    tensors = {"weight": gaussian(200, 100), "wide": gaussian(64, 300, seed=1), "bias": gaussian(200, seed=2)}
    known = {"weight": curvature(200, 100), "wide": curvature(64, 300), "bias": 0.02}
    path = tmp_path / "file.fewbits"
    report = fewbits.compress(tensors, path, budget=12_100, method="sic", statistics=known)
    assert 12_000 <= report.size == path.stat().st_size <= 12_100
    found = fewbits.load(path)
    for each in report.tensors:
        error = (found[each.name] - tensors[each.name]).norm() / tensors[each.name].norm()
        assert each.relative_error == pytest.approx(float(error), rel=1e-4)


def test_what_costs_more_than_zeros_would_is_zeros() -> None:
    weight, known = gaussian(300, 64), curvature(300, 64)
    energy = loss(torch.zeros_like(weight), weight, known)
    for rate_weight in (1e3, 1e6):
        (chunk,) = encoded({"weight": weight}, {"weight": known}, rate_weight)
        assert loss(decode([chunk])["weight"], weight, known) <= energy * (1 + 1e-12)
        assert len(chunk.payload) < 40


@needs_core
def test_rows_of_more_classes_than_a_payload_has_are_coded_otherwise() -> None:
    rng = np.random.default_rng(0)
    weighted, felt = 2.0 ** rng.uniform(-12, 12, (2, 12_000))
    weight = torch.from_numpy((weighted / felt).astype(np.float32))[:, None].expand(-1, 93)
    (chunk,) = encoded({"weight": weight}, {"weight": Curvature(np.eye(93), felt**2)}, 1e-3)
    assert chunk.method != "sic"
