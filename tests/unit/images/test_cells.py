"""Cells are universal quantisation of soft-rounded latents, written in whole numbers."""

import pytest
import torch

from fewbits.images.cells import Cells
from fewbits.images.fixed_point import VALUE
from fewbits.images.rounding import DITHERED, ROUNDINGS, quantized
from fewbits.models.location_scale import standard_bits
from fewbits.quantize.soft_rounding import soft_round, soft_round_mean
from fewbits.quantize.universal import universal_quantize

BITS = 4


def dither_of(levels: torch.Tensor) -> torch.Tensor:
    return (levels.double() + 0.5) / (1 << BITS) - 0.5


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 4.0, 10.0])
def test_they_are_what_universal_quantisation_sends_and_reconstructs(sharpness: float) -> None:
    torch.manual_seed(0)
    cells = Cells.dithered(BITS, sharpness)
    latents = torch.randint(-5 * VALUE, 5 * VALUE, (20_000,)).double()
    levels = torch.randint(1 << BITS, latents.shape)
    noise = dither_of(levels)
    found = cells.indices(latents, levels)
    expected = universal_quantize(soft_round(latents / VALUE, sharpness), noise)
    # Offsets are counted in 2^-10: what lies that near to the edge of a cell may fall into the next one.
    differ = found != expected
    assert float(differ.double().mean()) < 0.002
    middles = cells.middles(found, levels) / VALUE
    assert torch.allclose(middles[~differ], soft_round_mean(expected + noise, sharpness)[~differ], atol=1.1 / VALUE)


def test_without_a_dither_they_are_those_of_rounding() -> None:
    latents = torch.arange(-3 * VALUE, 3 * VALUE).double()
    levels = torch.zeros(len(latents), dtype=torch.int64)
    cells = Cells.rounding()
    assert cells.level_bits == 0
    assert cells.indices(latents, levels).equal(torch.floor(latents / VALUE + 0.5).long())
    assert cells.middles(cells.indices(latents, levels), levels).equal(torch.floor(latents / VALUE + 0.5) * VALUE)


@pytest.mark.parametrize("sharpness", [0.0, 4.0, 10.0])
def test_a_latent_lies_in_the_cell_that_it_is_given(sharpness: float) -> None:
    cells = Cells.dithered(BITS, sharpness)
    assert cells.offsets.equal(cells.offsets.sort().values)
    latents = torch.arange(-2 * VALUE, 2 * VALUE).double()
    for level in range(1 << BITS):
        levels = torch.full(latents.shape, level)
        lower = cells.indices(latents, levels) * VALUE + cells.offsets[level]
        assert bool(((lower <= latents) & (latents < lower + VALUE)).all())


def gaussian(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    return standard_bits("gaussian", lower / 1.3, upper / 1.3)


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_a_draw_in_eval_is_in_distribution_what_cells_make_of_it(kind: str) -> None:
    torch.manual_seed(3)
    latents = 1.3 * torch.randn(200_000, dtype=torch.float64)
    sharpness = 4.0
    seen = quantized(kind, latents, gaussian, sharpness=sharpness, level_bits=BITS)
    cells = Cells.dithered(BITS, sharpness * (kind == "soft")) if kind in DITHERED else Cells.rounding()
    levels = torch.randint(len(cells.offsets), latents.shape)
    counted = torch.floor(latents * VALUE + 0.5)
    indices = cells.indices(counted, levels)
    lower = indices + cells.offsets[levels] / VALUE
    middles = cells.middles(indices, levels) / VALUE
    assert float(gaussian(lower, lower + 1).mean()) == pytest.approx(float(seen.bits.mean()), rel=0.005)
    for found, expected in (((middles - latents).square(), (seen.values - latents).square()), (middles, seen.values)):
        assert float(found.mean()) == pytest.approx(float(expected.mean()), rel=0.01, abs=0.01)


@pytest.mark.parametrize("kind", [kind for kind in ROUNDINGS if kind in DITHERED])
def test_training_and_use_agree_where_there_is_a_dither(kind: str) -> None:
    torch.manual_seed(4)
    latents = 0.6 * torch.randn(300_000, dtype=torch.float64)
    draws = [quantized(kind, latents, gaussian, sharpness=6.0, training=training) for training in (True, False)]
    assert float(draws[0].bits.mean()) == pytest.approx(float(draws[1].bits.mean()), rel=0.005)
    errors = [float((draw.values - latents).square().mean()) for draw in draws]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


@pytest.mark.parametrize("kind", [kind for kind in ROUNDINGS if kind in DITHERED])
@pytest.mark.parametrize("scale", [0.03, 0.1])
def test_latents_that_are_nearly_always_zero_cost_in_training_what_they_cost_in_files(kind: str, scale: float) -> None:
    # All that such a latent costs is noise near ±1/2: a dither of sixteen levels has less of it than a continuous one.
    torch.manual_seed(5)
    latents = scale * torch.randn(400_000, dtype=torch.float64)
    cells = Cells.dithered(4, 8.0 * (kind == "soft"))

    def narrow(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
        return standard_bits("gaussian", lower / scale, upper / scale)

    seen = quantized(kind, latents, narrow, sharpness=8.0, level_bits=4, training=True)
    levels = torch.randint(16, latents.shape)
    lower = cells.indices(torch.floor(latents * VALUE + 0.5), levels) + cells.offsets[levels] / VALUE
    assert float(narrow(lower, lower + 1).mean()) == pytest.approx(float(seen.bits.mean()), rel=0.02, abs=1e-3)


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_gradients_reach_latents_and_are_finite_at_the_edges(kind: str) -> None:
    latents = torch.tensor([0.0, 0.5, -0.5, 1.0, 40.0, -1e4], requires_grad=True)
    seen = quantized(kind, latents, gaussian, sharpness=10.0, training=True)
    (seen.values.sum() + seen.bits.sum()).backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert bool((latents.grad[:5] != 0).any())
