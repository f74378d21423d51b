"""How ecsq chooses levels: by a trellis where it costs less, by rounding else; samples, classes of rows, low rates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fewbits
from fewbits.method import Source
from fewbits.methods.ecsq.config import EcsqConfig
from fewbits.methods.ecsq.payload import described, description
from fewbits.methods.ecsq.quantiser import LEAST_TRELLIS, Quantiser
from fewbits.models.fit import Spectrum, bits_of_each, fit_values, model_cost
from fewbits.quantize.weights import Weights


def weights_of(values: NDArray[np.float64]) -> Weights:
    return Weights(values.astype(np.float32).ravel().view(np.uint32), "float32")


def gaussian(*shape: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


@given(st.integers(0, 1 << 32), st.sampled_from([0.3, 2.0, 40.0, 3e4]), st.integers(-5, 5))
def test_each_integer_costs_what_a_spectrum_of_it_does(seed: int, scale: float, centre: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.laplace(size=400) * scale).astype(np.int64) + centre
    values[:3] = (10_000, -90_000, 1 << 40)  # escapes
    model = fit_values(values).models.models[0]
    bits = bits_of_each(model, values)
    for value, each in zip(values[:40], bits[:40], strict=True):
        assert each == pytest.approx(model_cost(model, Spectrum.of(np.array([value]))) / 65536)


@pytest.mark.parametrize("step", [0.2, 1.0, 2.5])
def test_gaussian_weights_go_by_a_trellis_which_costs_less(step: float) -> None:
    weights = weights_of(gaussian(64, 64))
    first, second = Quantiser(EcsqConfig()).candidates(weights, step, 64)
    assert first.points.corrections is not None
    assert second.points.corrections is None
    assert first.cost(step) < second.cost(step)


def test_weights_on_a_grid_go_by_rounding() -> None:
    values = np.random.default_rng(2).integers(-1, 2, (64, 64)) * 0.5
    best = Quantiser(EcsqConfig()).candidates(weights_of(values), 0.5, 64)[0]
    assert best.points.corrections is None
    assert best.distortion.error == 0


def test_few_weights_and_those_told_not_to_have_no_trellis() -> None:
    few = weights_of(gaussian(LEAST_TRELLIS - 1))
    assert len(Quantiser(EcsqConfig()).candidates(few, 0.5, 1)) == 1
    many = weights_of(gaussian(LEAST_TRELLIS))
    assert len(Quantiser(EcsqConfig()).candidates(many, 0.5, 1)) == 2
    assert len(Quantiser(EcsqConfig(trellis=False)).candidates(many, 0.5, 1)) == 1


def test_weights_out_of_reach_of_one_way_go_the_other() -> None:
    values = gaussian(2000)
    values[7] = 3e6  # a trellis reaches 2^20 steps, rounding 2^30
    found = Quantiser(EcsqConfig()).candidates(weights_of(values), 1.0, 1)
    assert [each.points.corrections for each in found] == [None]


def test_a_sample_gives_nearly_what_the_whole_would() -> None:
    values = np.random.default_rng(3).laplace(size=(600, 512))  # more than a sample is taken of
    quantiser = Quantiser(EcsqConfig())
    sampled = quantiser.candidates(weights_of(values), 2.0, 600)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewbits.methods.ecsq.quantiser._SAMPLED", 1 << 30)
        whole = quantiser.candidates(weights_of(values), 2.0, 600)[0]
    assert sampled.points.corrections is not None and whole.points.corrections is not None
    assert sampled.cost(2.0) == pytest.approx(whole.cost(2.0), rel=0.005)


def test_rows_of_two_scales_have_classes_in_a_large_trellis_too() -> None:
    values = gaussian(1024, 512) * np.where(np.arange(1024) % 2, 1.0, 0.1)[:, None]
    best = Quantiser(EcsqConfig()).candidates(weights_of(values), 1.0, 1024)[0]
    assert best.points.corrections is not None
    assert best.fit.classes is not None
    plain = Quantiser(EcsqConfig(row_classes=False)).candidates(weights_of(values), 1.0, 1024)[0]
    assert best.cost(1.0) < plain.cost(1.0)


@pytest.mark.parametrize("bits", [0.1, 0.3, 0.5, 0.8])
def test_any_rate_can_be_had_down_to_a_tenth_of_a_bit(bits: float, tmp_path) -> None:
    matrix = torch.from_numpy(gaussian(400, 400).astype(np.float32))
    budget = int(bits * matrix.numel() / 8)
    report = fewbits.compress({"matrix": matrix}, tmp_path / "matrix.fewbits", budget=budget)
    assert 0.97 * budget <= report.size <= budget  # where one search more or less is made, the rate leaps a little
    bound = 2.0 ** (-2 * 8 * report.size / matrix.numel())
    assert report.overall_error**2 <= bound * 2 ** (2 * 0.1)  # a tenth of a bit above Shannon's bound


def test_many_small_tensors_are_surveyed_as_one(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    tensors = {f"{i}": torch.from_numpy(rng.normal(size=(8, 9)) * 2.0 ** (i % 7)).float() for i in range(300)}
    tensors |= {"zeros": torch.zeros(5, 5), "large": torch.from_numpy(rng.normal(size=(50, 60))).float()}
    merged = fewbits.Ecsq().survey(Source(tensors))
    monkeypatch.setattr("fewbits.methods.ecsq.surveys._MOST_SMALL", 1 << 30)
    apart = fewbits.Ecsq().survey(Source(tensors))
    for rate_weight in (1e-4, 1e-2, 0.3, 3.0):
        # Each with an ideal table of its own, 72 numbers seem to take up to a seventh less than they can.
        assert apart.bits(rate_weight) <= merged.bits(rate_weight) <= 1.16 * apart.bits(rate_weight)
    monkeypatch.undo()
    report = fewbits.compress(tensors, tmp_path / "many.fewbits", budget=20_000)
    assert 19_800 <= report.size <= 20_000


def test_a_description_is_read_as_it_was_written(tmp_path) -> None:
    tensors = {"a": torch.from_numpy(gaussian(50, 41)), "b": torch.from_numpy(gaussian(30, 30)), "c": torch.ones(7)}
    path = tmp_path / "file.fewbits"
    fewbits.compress(tensors, path, bits=3.0)
    with fewbits.container.Reader(path) as reader:
        for number in range(len(reader.parts)):
            chunk = reader.read_chunk(number)
            if chunk.method != "ecsq":
                continue
            found, end = described(chunk)
            written = b"".join(description(each.points, each.array.models) for each in found)
            assert chunk.payload[:end] == written
