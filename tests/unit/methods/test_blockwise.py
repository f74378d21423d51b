"""`blockwise`: what was quantised in blocks comes back to the bit, or coarser by as much as a bit is worth."""

import itertools
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import fewbits
from fewbits.chunk import TensorSpec
from fewbits.cli.file_report import report_on
from fewbits.encode import decode
from fewbits.method import Curvature, Method, Source
from fewbits.methods.blockwise import Blockwise, gridded
from fewbits.methods.blockwise.payload import Blocks, blocks_of
from fewbits.methods.blockwise.quantiser import BlockQuantiser
from fewbits.methods.ecsq import Ecsq, EcsqConfig
from fewbits.methods.sic import Sic, SicConfig
from fewbits.quantize.block_grid import find_layout, read_grid
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of
from tests.laws import sources

SPEC = TensorSpec("w", "float32", (96, 256))


def matrix(seed: int = 0, *, offsets: bool = True) -> Tensor:
    return sources.on_grid(sources.normal(sources.generator(seed), 96, 256, scale=0.02), 32, 16, offsets=offsets)


def curvature(seed: int = 1) -> Curvature:
    """Inputs of means that are far from 0, so that errors of offsets add up along a row."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((2000, 256)) + 2 * rng.standard_normal(256)
    outputs = rng.uniform(0.2, 2, 96)
    return Curvature(inputs.T @ inputs / 2000 + 0.01 * np.eye(256), outputs / outputs.sum())


def quantiser_of(tensor: Tensor, known: Curvature | None = None) -> BlockQuantiser:
    weights = Weights(bits_of(tensor), "float32")
    layout = find_layout(weights, len(tensor))
    grid = layout and read_grid(weights, layout)
    assert grid
    return BlockQuantiser(weights, grid, known)


@pytest.mark.parametrize("offsets", [False, True])
def test_costs_and_bits_are_about_what_was_expected(offsets: bool) -> None:
    for known in (None, curvature()):
        quantiser = quantiser_of(matrix(offsets=offsets), known)
        unit = float(matrix().square().mean()) * (
            1.0 if known is None else float(np.trace(known.inputs)) / SPEC.num_elements
        )
        for slope in unit * np.array([1e-6, 1e-4, 1e-3, 1e-2]):
            candidate, expected = quantiser.candidate(slope), quantiser.rates.expected(slope)
            assert candidate is not None
            assert candidate.cost + slope * candidate.loss.bits == pytest.approx(expected.cost, rel=0.05)
            assert candidate.loss.bits == pytest.approx(expected.bits, rel=0.05)


def test_the_less_a_bit_is_worth_the_less_is_lost() -> None:
    quantiser = quantiser_of(matrix())
    found = [quantiser.candidate(slope) for slope in (1e-4, 1e-6, 1e-8, 1e-14, 0.0)]
    costs, bits = [each.cost for each in found if each], [each.loss.bits for each in found if each]
    assert len(costs) == 5
    assert costs == sorted(costs, reverse=True)
    assert bits == sorted(bits)
    assert costs[-2:] == [0, 0]


def test_offsets_make_up_for_what_others_of_their_row_missed() -> None:
    known = curvature()
    slope = 1e-4 * float(matrix().square().mean()) * float(np.trace(known.inputs)) / SPEC.num_elements
    fed_back = quantiser_of(matrix(), known)
    with mock.patch.object(np.linalg, "cholesky", lambda it: np.diag(np.sqrt(np.diag(it)))):
        alone = quantiser_of(matrix(), known)
    unit = fed_back.rates.units(slope)
    with mock.patch.object(type(alone.rates), "units", lambda self, slope: unit):
        first, second = fed_back.candidate(slope), alone.candidate(slope)
    assert first is not None
    assert second is not None
    assert first.cost < 0.7 * second.cost


def test_a_coarser_unit_saves_a_bit_a_block_and_takes_four_times_the_error() -> None:
    scales = quantiser_of(matrix()).rates.scales
    fine, coarse = scales.best(1e-9), scales.best(4e-9)
    assert coarse.exponent == fine.exponent + 1
    assert coarse.error == pytest.approx(4 * fine.error)
    assert fine.bits - coarse.bits == pytest.approx(scales.num_values)


def test_a_file_of_a_quantised_checkpoint_is_smaller_than_its_levels_and_scales(tmp_path: Path) -> None:
    tensors = {"w": matrix(), "b": torch.randn(96, generator=torch.Generator().manual_seed(0))}
    report = fewbits.compress(tensors, tmp_path / "w.fewbits", lossless=True)
    stored = SPEC.num_elements / 2 + SPEC.num_elements / 32 * 4  # 4 bits a level, two float16 a block
    assert (tmp_path / "w.fewbits").stat().st_size < 0.95 * stored + 4 * 96 + 500
    assert [tensor.method for tensor in report.tensors] == ["blockwise", "lossless"]
    assert report.worst_error == 0
    loaded = fewbits.load(tmp_path / "w.fewbits")
    for name, tensor in tensors.items():
        assert bits_of(loaded[name]).tobytes() == bits_of(tensor).tobytes()


@pytest.mark.parametrize("shape", [(96, 256), (400, 256)])  # in a group, and alone
@pytest.mark.parametrize("calibrated", [False, True])
def test_lossy_methods_code_on_the_grid_where_that_costs_less(
    shape: tuple[int, int], calibrated: bool, tmp_path: Path
) -> None:
    weight = sources.on_grid(sources.normal(sources.generator(3), *shape, scale=0.02), 32, 16, offsets=True)
    on, off = (Sic(), Sic(SicConfig(blockwise=False))) if calibrated else (Ecsq(), Ecsq(EcsqConfig(blockwise=False)))
    known = {"w": spread(curvature(), weight)} if calibrated else {}

    def coded(method: Method, bits: float) -> tuple[str, float]:
        report = fewbits.compress({"w": weight}, tmp_path / "w.fewbits", bits=bits, method=method, statistics=known)
        loaded = fewbits.load(tmp_path / "w.fewbits")["w"]
        cost = known["w"].cost(weight, loaded) if calibrated else float((loaded - weight).square().sum())
        return report.tensors[0].method, cost

    (id, cost), (otherwise, cost_otherwise) = coded(on, 4.5), coded(off, 4.5)
    assert (id, otherwise) == ("blockwise", off.id)
    assert cost < 0.3 * cost_otherwise
    assert coded(on, 2.0)[0] == off.id


def spread(known: Curvature, weight: Tensor) -> Curvature:
    """The same for all rows of a weight, which it costs 1 or so to lose."""
    rows = len(weight)
    lost = float(np.trace(known.inputs)) / 256 * float(weight.square().sum()) / rows
    return Curvature(known.inputs / lost, np.full(rows, 1 / rows))


@pytest.mark.parametrize("method", [Ecsq(), Sic()])
def test_surveys_know_of_grids(method: Method) -> None:
    weight = sources.on_grid(sources.normal(sources.generator(3), 400, 256, scale=0.02), 32, 16, offsets=True)
    statistics = {"w": spread(curvature(), weight)} if method.id == "sic" else {}
    source = Source({"w": weight}, None, statistics)
    survey = method.survey(source)
    rates = (1e-6, 1e-4, 1e-3, 1e-2)
    expected = [survey.bits(rate) for rate in rates]
    found = [8 * sum(len(each.payload) for each in method.encode(source, rate_weight=rate, seed=0)) for rate in rates]
    assert expected == pytest.approx(found, rel=0.12)
    assert all(one >= other for one, other in itertools.pairwise(expected))


def test_a_size_is_met_between_what_the_grid_takes_and_what_is_less(tmp_path: Path) -> None:
    """The grid leaves a gap of rates for each tensor, and a file of several tensors may fill it."""
    tensors = {str(seed): matrix(seed) for seed in range(12)}
    for bits in (4.6, 4.2, 3.8, 2.5):
        report = fewbits.compress(tensors, tmp_path / "w.fewbits", bits=bits)
        assert 0.9 * bits < report.bits_per_weight <= bits


def test_a_tensor_without_a_grid_everywhere_is_coded_as_ever() -> None:
    weight = matrix()
    weight[50, 37] += 0.37 * (weight[50, 32:64].unique().diff().amin())
    weights = Weights(bits_of(weight), "float32")
    found = gridded(SPEC, weights, [(0, SPEC.num_elements)])
    assert found is not None  # the sample does not see it
    assert found.rates() is None
    assert found.candidate(0.0) is None
    assert found.coded([0.0], 0) is None
    for method in (Blockwise(), Ecsq()):
        chunks = list(method.encode(Source({"w": weight}), rate_weight=1e-3, seed=0))
        assert {chunk.method for chunk in chunks} <= {"lossless", "ecsq"}


def test_scales_below_0_are_turned_where_they_are_told_in_whole_numbers() -> None:
    weight = -matrix(offsets=False)  # zeros below 0
    assert (weight == 0).any()
    quantiser = quantiser_of(weight)
    exact, coarse = quantiser.candidate(0.0), quantiser.candidate(1e-6)
    assert exact is not None
    assert coarse is not None
    assert exact.loss.squared_error == 0
    assert 0 < coarse.loss.squared_error < 1e-3 * coarse.loss.energy


def test_what_is_read_is_what_was_written() -> None:
    source = Source({"w": matrix()})
    for rate_weight in (0.0, 1e-3):
        (chunk,) = Blockwise().encode(source, rate_weight=rate_weight, seed=0)
        (blocks,) = blocks_of(chunk)
        assert blocks.is_exact == (rate_weight == 0)
        again = Weights(np.empty(SPEC.num_elements, np.uint32), "float32")
        assert blocks.write(again)
        assert again.bits.tobytes() == bits_of(decode([chunk])["w"]).tobytes()


def test_values_are_bounded_before_they_are_written() -> None:
    levels = np.array([[1 << 20, -3]], np.int32)
    for scale, offset, is_bounded in ((2047, 0, True), (2048, 0, False), (2047, 1 << 20, False)):
        blocks = Blocks(levels, np.array([scale], np.int32), np.array([offset], np.int32))
        assert blocks.are_bounded() == is_bounded


def test_a_report_says_how_a_file_is_made_again_to_the_bit(tmp_path: Path) -> None:
    for name, target in (("exact", {"lossless": True}), ("lossy", {"bits": 4.3})):
        fewbits.compress({"w": matrix()}, tmp_path / name, **target)
        command = report_on(tmp_path / name).command
        assert command is not None
        assert ("--lossless" in command) == (name == "exact")
