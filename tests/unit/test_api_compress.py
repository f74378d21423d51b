"""compress: sizes are met, reports are right, nothing is left behind."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fewbits
from fewbits.api import parse_size
from fewbits.errors import InvalidArgument
from tests.laws import sources
from tests.unit.test_sources import TENSORS, sharded


def model(scale: int = 1) -> dict[str, Tensor]:
    """A state dict of about 240 kB × scale, with tensors of every kind."""
    rng = sources.generator(21)
    return {
        "embedding": sources.normal(rng, 150 * scale, 128, scale=0.05),
        "conv": sources.normal(rng, 32, 16, 3, 3, scale=0.1),
        "linear": sources.normal(rng, 256, 140, scale=0.02),
        "norm": 1 + sources.normal(rng, 256, scale=0.1),
        "bias": sources.normal(rng, 256, scale=0.01),
        "half": sources.normal(rng, 64, 16, dtype="float16"),
        "ids": torch.arange(128),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.fewbits"


@pytest.mark.parametrize("budget", ["9kB", "20kB", 30_000, "48kB", "0.1MB", "180 kB"])
def test_a_budget_is_met_and_used(budget: int | str, path: Path) -> None:
    report = fewbits.compress(model(), path, budget=budget)
    assert path.stat().st_size == report.size <= parse_size(budget)
    assert report.size >= 0.995 * parse_size(budget)


@pytest.mark.parametrize("bits", [0.6, 2.0, 3.7, 8, 14.5])
def test_bits_bound_the_payload_of_lossily_coded_weights(bits: float, path: Path) -> None:
    report = fewbits.compress(model(), path, bits=bits)
    info = fewbits.info(path)
    lossy = [tensor for tensor in info.tensors if tensor.method == "ecsq"]
    count = sum(int(np.prod(tensor.shape)) for tensor in lossy)
    assert count == report.num_weights > 60_000
    assert 0.99 * bits <= report.bits_per_weight <= bits
    assert sum(tensor.bits for tensor in lossy) / count == pytest.approx(bits, rel=0.02)


def test_estimated_and_actual_bits_are_side_by_side_and_agree(path: Path) -> None:
    for options in ({"budget": "20kB"}, {"bits": 2.5}, {"lossless": True}):
        report = fewbits.compress(model(), path, **options)
        assert abs(report.estimated_bits - report.actual_bits) <= 0.01 * report.actual_bits + 16 * 8
        assert fewbits.info(path).overhead["payload"] * 8 == report.actual_bits


def test_the_error_falls_as_the_budget_rises_and_is_the_real_one(path: Path) -> None:
    tensors, errors = model(), []
    for budget in (10_000, 20_000, 60_000):
        report = fewbits.compress(tensors, path, budget=budget)
        loaded = fewbits.load(path)
        lost = sum(((tensors[k].double() - loaded[k].double()) ** 2).sum() for k in tensors if k != "ids")
        energy = sum((tensors[k].double() ** 2).sum() for k in tensors if k != "ids")
        assert report.overall_error == pytest.approx(float((lost / energy).sqrt()), rel=1e-5)
        for tensor in report.tensors:
            w, w_hat = tensors[tensor.name].double(), loaded[tensor.name].double()
            assert tensor.relative_error == pytest.approx(float((w - w_hat).norm() / w.norm()), rel=1e-5, abs=1e-12)
        assert report.worst_error == max(tensor.relative_error for tensor in report.tensors)
        errors.append(report.overall_error)
    assert errors == sorted(errors, reverse=True)


def test_a_budget_above_the_lossless_size_keeps_everything_nearly_or_wholly(path: Path) -> None:
    tensors = model()
    lossless = fewbits.compress(tensors, path, lossless=True).size
    report = fewbits.compress(tensors, path, budget=10 * lossless)
    assert report.size <= 1.01 * lossless
    for name, tensor in fewbits.load(path).items():
        assert torch.equal(tensor, tensors[name])


def test_a_budget_too_small_says_the_smallest_possible_and_that_one_works(path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"the smallest possible is [\d,]+ bytes") as caught:
        fewbits.compress(model(), path, budget=50)
    assert not path.exists()
    smallest = int(str(caught.value).split("possible is ")[1].split()[0].replace(",", ""))
    assert fewbits.compress(model(), path, budget=smallest).size <= smallest
    assert fewbits.compress(model(), path, budget=f"{smallest + 40}B").size <= smallest + 40


def test_bits_too_few_say_the_fewest_possible_and_those_work(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="bits a weight") as caught:
        fewbits.compress(model(), path, bits=1e-9)
    fewest = float(str(caught.value).split("possible is ")[1].split()[0])
    assert fewbits.compress(model(), path, bits=fewest).bits_per_weight <= fewest


def test_fragile_tensors_stay_finer_than_large_ones(path: Path) -> None:
    report = fewbits.compress(model(4), path, bits=2.0)
    errors = {tensor.name: tensor.relative_error for tensor in report.tensors}
    assert errors["norm"] < errors["conv"] < errors["embedding"]


def test_statistics_move_bits_to_where_the_loss_is(path: Path) -> None:
    plain = fewbits.compress(model(), path, bits=2.0)
    stressed = fewbits.compress(model(), path, bits=2.0, statistics={"linear": 1e4, "embedding": 1.0})

    def error(report: fewbits.Report) -> float:
        return next(tensor.relative_error for tensor in report.tensors if tensor.name == "linear")

    assert error(stressed) < 0.5 * error(plain)
    with pytest.raises(InvalidArgument, match="'unknown'"):
        fewbits.compress(model(), path, bits=2.0, statistics={"unknown": 1.0})


def test_tensors_that_cannot_be_lossy_are_kept_and_the_report_says_why(path: Path) -> None:
    tensors = sources.edges() | {"float8": sources.normal(sources.generator(0), 300).to(torch.float8_e4m3fn)}
    report = fewbits.compress(tensors, path, bits=4.0)
    notes = {tensor.name: tensor.note for tensor in report.tensors if tensor.note}
    assert {"all NaN", "one NaN", "one Inf", "greatest", "float64 greatest", "float8"} <= set(notes)
    assert "NaN or Inf" in notes["all NaN"]
    assert fewbits.info(path).tensors[7].note == notes["all NaN"]
    loaded = fewbits.load(path)
    assert loaded["all NaN"].isnan().all()
    assert torch.equal(loaded["float64 greatest"], tensors["float64 greatest"])
    for name in ("float16 greatest", "bfloat16 greatest", "outliers", "denormals"):
        assert loaded[name].isfinite().all()


def test_only_nan_compresses_without_a_lossy_weight(path: Path) -> None:
    report = fewbits.compress({"a": torch.full((50,), float("nan"))}, path, bits=2.0)
    assert report.num_weights == 0
    assert fewbits.load(path)["a"].isnan().all()


def test_a_huge_vector_is_cut_into_tiles(path: Path) -> None:
    vector = torch.zeros(2**22 + 5)
    vector[::5000] = 1.0
    fewbits.compress({"vector": vector}, path, lossless=True)
    assert fewbits.info(path).num_parts == 2
    with fewbits.open(path) as archive:
        assert torch.equal(archive["vector"], vector)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_tiny_tensors_are_quick_and_small(count: int, path: Path) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.standard_normal((count, 4)).astype(np.float32))
    tensors = {f"layer.{i}.weight": values[i] for i in range(count)}
    start = time.perf_counter()
    fewbits.compress(tensors, path, lossless=True)
    loaded = fewbits.load(path)
    fewbits.verify(path)
    assert time.perf_counter() - start < 30 * count / 1000  # seconds; measured: 7 for each thousand
    assert list(loaded) == list(tensors)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    info = fewbits.info(path)
    assert info.overhead["other"] <= 64 + 8 * info.num_parts


def test_bits_are_met_beside_tensors_that_are_kept_exactly(path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "ids": torch.from_numpy(rng.integers(0, 2**40, 4000)),
        "broken": torch.full((9000,), float("nan")),
        "weight": sources.normal(sources.generator(0), 90, 100),
    }
    report = fewbits.compress(tensors, path, bits=2.0)
    assert 1.98 <= report.bits_per_weight <= 2.0
    assert report.num_weights == 9000


def test_empty_tensors_alone_fit_any_budget_that_holds_a_file(path: Path) -> None:
    tensors = {"a": torch.zeros(0), "b": torch.zeros(3, 0)}
    assert fewbits.compress(tensors, path, budget=1000).size < 120
    assert {name: tensor.shape for name, tensor in fewbits.load(path).items()} == {"a": (0,), "b": (3, 0)}


def test_a_small_model_has_little_overhead(path: Path) -> None:
    module = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2))
    report = fewbits.compress(module, path, bits=4.0)
    info = fewbits.info(path)
    assert info.overhead["other"] <= 64 + 8 * info.num_parts
    bare = fewbits.compress(module, path, bits=4.0, bare=True)
    assert bare.size - bare.actual_bits // 8 <= 24
    assert bare.size < report.size


def test_a_sharded_folder_gives_the_file_of_a_single_one(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    fewbits.compress(sharded(folder), path, bits=4.0)
    shards = load_file(folder / "model-1.safetensors") | load_file(folder / "model-2.safetensors")
    save_file({name: shards[name] for name in fewbits.load(path)}, tmp_path / "single.safetensors", {"format": "pt"})
    fewbits.compress(tmp_path / "single.safetensors", tmp_path / "single.fewbits", bits=4.0)
    single = fewbits.load(tmp_path / "single.fewbits")
    loaded = fewbits.load(path)
    assert set(single) == set(loaded) == set(TENSORS)
    assert all(torch.equal(single[name], tensor) for name, tensor in loaded.items())


def test_metadata_comes_back(path: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "m.safetensors", tmp_path / "back.safetensors"
    metadata = {"format": "pt", "note": "ümläut"}
    save_file(model(), source, metadata)
    fewbits.compress(source, path, lossless=True)
    assert fewbits.info(path).metadata == metadata
    fewbits.decompress(path, back)
    with safe_open(back, "pt") as file:
        assert file.metadata() == metadata


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_what_save_file_wrote_comes_back_identical(metadata: dict[str, str] | None, path: Path, tmp_path: Path) -> None:
    # Of several entries safetensors itself writes another order each time.
    source, back = tmp_path / "m.safetensors", tmp_path / "back.safetensors"
    save_file(model(), source, metadata)
    fewbits.compress(source, path, lossless=True)
    fewbits.decompress(path, back)
    assert back.read_bytes() == source.read_bytes()


def test_progress_is_reported(path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    fewbits.compress(model(), path, bits=2.0, progress=lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"survey", "encode"}
    assert all(1 <= done <= total for _, done, total in calls)


def test_nothing_but_the_file_is_written(tmp_path: Path) -> None:
    fewbits.compress(model(), tmp_path / "m.fewbits", budget="20kB")
    assert os.listdir(tmp_path) == ["m.fewbits"]
