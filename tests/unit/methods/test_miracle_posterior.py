"""Posteriors of `miracle`: by divergence their divergence is what they are given, however extreme the parameters."""

import math

import pytest
import torch
from torch import Tensor

from fewbits.methods.miracle.group import MiracleGroup, Settings, Start
from fewbits.methods.miracle.layout import Blocks, Piece
from fewbits.methods.miracle.posterior import (
    divergence_of,
    forward_channel,
    of_divergence,
    raw_means_of,
    variance_of,
)

DOUBLE = torch.float64


def group(
    bits: int = 8, num_blocks: int = 7, *, size: int = 50, slack: float = 0.0, parameterisation: str = "divergence"
) -> MiracleGroup:
    settings = Settings(bits, slack, parameterisation == "divergence", 1e-3, 0.25, "shared", "mrc", "sample")
    piece = Piece((size,), (size,), 1)
    values = torch.randn(size, dtype=DOUBLE, generator=torch.Generator().manual_seed(3)).numpy()
    return MiracleGroup([Start(piece, values, 1.0, 1.5)], [piece], num_blocks, 5, settings)


def true_divergence(means: Tensor, sds: Tensor) -> Tensor:
    """Of Gaussians from the standard normal one, in float64, without cancellation at either end."""
    v = sds.double().square()
    log_variance = torch.where(v > 0.5, torch.log1p(v - 1), v.log())
    return 0.5 * (means.double().square() + (v - 1) - log_variance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (DOUBLE, 1e-12)])
def test_the_divergence_is_the_one_asked_for(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    divergences = (torch.rand(4000, generator=generator, dtype=DOUBLE) * 18 - 14).exp2().to(dtype)
    raw = (torch.randn(4000, generator=generator, dtype=DOUBLE) * 4).to(dtype)
    raw[:6] = torch.tensor([0.0, 1e-30, 40.0, -1e30, 1e-4, -9.0], dtype=dtype)
    means, sds = of_divergence(raw, divergences)
    error = (true_divergence(means, sds) - divergences.double()).abs()
    assert (error <= tolerance * (1 + divergences.double())).all()
    assert (sds > 0).all() and (sds <= 1).all() and means.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (DOUBLE, 1e-12)])
@pytest.mark.parametrize("extreme", [0.0, 1.0, 20.0])
def test_a_blocks_divergence_is_its_budget_for_any_parameters(
    dtype: torch.dtype, tolerance: float, extreme: float
) -> None:
    made = group().to(dtype)
    with torch.no_grad():
        made.raw_means.add_(extreme * torch.randn(made.raw_means.shape, generator=torch.Generator().manual_seed(1)))
        made.spreads.add_(extreme * torch.randn(made.spreads.shape, generator=torch.Generator().manual_seed(2)))
    found = made.posterior().divergences.sum(1)
    torch.testing.assert_close(found, torch.full_like(found, 8 * math.log(2)), rtol=tolerance, atol=0)


def test_slack_is_taken_from_the_budget() -> None:
    found = group(bits=8, slack=2.5).posterior().divergences.sum(1)
    torch.testing.assert_close(found, torch.full_like(found, 5.5 * math.log(2)), rtol=1e-6, atol=0)


def test_variances_lie_above_0_and_reach_1_only_where_nothing_is_sent() -> None:
    excess = torch.cat([torch.zeros(1, dtype=DOUBLE), torch.logspace(-16, 2.8, 500, dtype=DOUBLE)])
    variances = variance_of(excess)
    assert variances[0] == 1 and (variances > 0).all() and (variances <= 1).all()
    assert (variances[excess > 1e-10].diff() < 0).all()
    # It is W of the definition: v - log v = 1 + excess.
    torch.testing.assert_close(variances - variances.log() - 1, excess, rtol=1e-9, atol=1e-14)


def test_the_branch_point_has_finite_gradients() -> None:
    divergences = torch.tensor([1e-12, 1e-6, 1.0, 5.0, 9.0], dtype=DOUBLE, requires_grad=True)
    raw = torch.tensor([0.0, 25.0, 30.0, -40.0, 1e3], dtype=DOUBLE, requires_grad=True)  # tanh is 1: excess is 0
    means, sds = of_divergence(raw, divergences)
    (means.sum() + sds.sum()).backward()
    assert sds[1:].detach().allclose(torch.ones(4, dtype=DOUBLE), atol=1e-6)
    assert raw.grad is not None and raw.grad.isfinite().all()
    assert divergences.grad is not None and divergences.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(4)
    raw = torch.randn(20, generator=generator, dtype=DOUBLE, requires_grad=True)
    divergences = (0.05 + 3 * torch.rand(20, generator=generator, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(of_divergence, (raw, divergences), eps=1e-7, atol=1e-6)


def test_means_are_found_again_as_far_as_the_divergence_reaches() -> None:
    divergences = torch.full((5,), 0.5, dtype=DOUBLE)  # means reach 1
    means = torch.tensor([0.0, 0.3, -0.9, 0.98, 5.0], dtype=DOUBLE)
    found, _ = of_divergence(raw_means_of(means, divergences), divergences)
    torch.testing.assert_close(found, means.clamp(-0.999, 0.999))


@pytest.mark.parametrize("bits", [0.25, 1.0, 6.0])
def test_the_channel_that_training_starts_from_spends_its_bits_on_the_mean(bits: float) -> None:
    values = torch.randn(200_000, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
    means, log_sds = forward_channel(values, bits)
    marginal = 0.5 * math.log(1 - 2 ** (-2 * bits))  # the standard deviation that its output has
    found = divergence_of(means / math.exp(marginal), log_sds - marginal).mean() / math.log(2)
    assert float(found) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize(("num_values", "num_blocks"), [(50, 7), (64, 8), (9, 9), (1, 1), (1000, 3), (0, 0)])
def test_blocks_hold_every_value_once_and_differ_by_at_most_one(num_values: int, num_blocks: int) -> None:
    blocks = Blocks.of(num_values, num_blocks, 11)
    places = blocks.places()
    sizes = (places >= 0).sum(1)
    assert sorted(places[places >= 0].tolist()) == list(range(num_values))
    assert blocks.num_blocks == num_blocks and (not num_blocks or sizes.max() - sizes.min() <= 1)
    assert blocks.width == (sizes.max() if num_blocks else 0)


@pytest.mark.parametrize("parameterisation", ["divergence", "deviation"])
def test_training_starts_at_the_budget(parameterisation: str) -> None:
    made = group(parameterisation=parameterisation)
    with torch.no_grad():
        spent = made.posterior().divergences.sum(1)
    torch.testing.assert_close(spent, torch.full_like(spent, made.budget), rtol=1e-4, atol=0)


def test_penalties_rise_above_the_budget_and_fall_below() -> None:
    made = group(parameterisation="deviation")
    with torch.no_grad():
        made.raw_means.zero_()
        made.spreads.zero_()  # the prior: nothing is spent
        made.raw_means[2] = 9.0
    made.steer()
    expected = torch.full((7,), 1e-3 / 1.25)
    expected[2] = 1e-3 * 1.25
    torch.testing.assert_close(made.penalties, expected)
    by_construction = group()
    by_construction.steer()
    assert (by_construction.penalties == 1e-3).all()
