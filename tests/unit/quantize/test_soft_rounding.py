"""Soft rounding: its identities, its inverse, the mean of what it stands for, and a sharpness that all share."""

import math

import pytest
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.quantize.sharpness import Sharpness
from fewbits.quantize.soft_rounding import soft_round, soft_round_inverse, soft_round_mean

SHARPNESSES = [0.0, 5e-4, 0.01, 1.0, 4.0, 8.0, 12.0, 100.0]
VALUES = torch.linspace(-3, 3, 6001)


@pytest.mark.parametrize("sharpness", SHARPNESSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_finds_its_way_back(sharpness: float, dtype: torch.dtype) -> None:
    values = VALUES.to(dtype)
    off = (soft_round_inverse(soft_round(values, sharpness), sharpness) - values).abs().max()
    assert off < (1e-3 if dtype == torch.float32 else 1e-4)  # the reference's 9e-4 at 12
    rounded = soft_round(values, sharpness)
    assert (rounded[1:] >= rounded[:-1]).all()


@pytest.mark.parametrize("sharpness", SHARPNESSES)
def test_it_is_periodic_and_odd_and_keeps_integers_and_halves(sharpness: float) -> None:
    values = VALUES.double()
    torch.testing.assert_close(soft_round(values + 3, sharpness), soft_round(values, sharpness) + 3, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft_round(-values, sharpness), -soft_round(values, sharpness), rtol=0, atol=1e-12)
    halves = torch.arange(-8, 9).double() / 2
    torch.testing.assert_close(soft_round(halves, sharpness), halves, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft_round_inverse(halves, sharpness), halves, rtol=0, atol=1e-8)


def test_it_goes_from_the_identity_to_rounding() -> None:
    assert torch.equal(soft_round(VALUES, 0.0), VALUES)
    torch.testing.assert_close(soft_round(VALUES, 0.01), VALUES, rtol=0, atol=1e-5)
    away = VALUES[(VALUES - VALUES.floor() - 0.5).abs() > 0.2]
    torch.testing.assert_close(soft_round(away, 12.0), away.round(), rtol=0, atol=0.01)
    assert torch.equal(soft_round(VALUES, 1e9), soft_round(VALUES, 12.0))


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 10.0])
def test_the_mean_of_what_stands_for_a_value(sharpness: float) -> None:
    """Against a mean of draws: y uniform over some units, those whose s(y) + u is near z."""
    generator = torch.Generator().manual_seed(1)
    y = torch.rand(4_000_000, generator=generator, dtype=torch.float64) * 4 - 2
    z = soft_round(y, sharpness) + torch.rand(y.shape, generator=generator, dtype=torch.float64) - 0.5
    for at in (-0.4, 0.0, 0.13, 0.5):
        near = (z - at).abs() < 0.01
        assert abs(float(y[near].mean()) - float(soft_round_mean(torch.tensor(at), sharpness))) < 0.01


@pytest.mark.parametrize("function", [soft_round, soft_round_inverse, soft_round_mean])
@pytest.mark.parametrize("sharpness", [0.0, 1e-3, 1.0, 12.0, 1e9])
def test_gradients_are_finite_everywhere(function, sharpness: float) -> None:  # type: ignore[no-untyped-def]
    values = torch.cat([torch.arange(-4, 5) / 2, torch.tensor([0.49999997, -1e-30, 1e7, 1e30])]).requires_grad_()
    sharp = torch.tensor(sharpness, requires_grad=True)
    function(values, sharp).sum().backward()
    assert values.grad is not None and values.grad.isfinite().all()
    assert sharp.grad is not None and sharp.grad.isfinite()


def test_gradients_are_those_of_the_function() -> None:
    values = torch.tensor([-1.3, -0.2, 0.1, 0.45, 2.7], dtype=torch.float64, requires_grad=True)
    sharp = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    for function in (soft_round, soft_round_inverse, soft_round_mean):
        assert torch.autograd.gradcheck(function, (values, sharp))


def test_half_precision_is_computed_in_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        values = VALUES[::100].to(dtype)
        found = soft_round_inverse(values, 8.0)
        assert found.dtype == dtype
        torch.testing.assert_close(found, soft_round_inverse(values.float(), 8.0).to(dtype), rtol=0, atol=0)


# ---- sharpness


def run_of(sharpness: Sharpness, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        found.append(float(sharpness().detach()))
        sharpness.advance()
    return found


def test_it_rises_as_asked_and_stays() -> None:
    assert run_of(Sharpness(1, 9, 4), 7) == [1, 3, 5, 7, 9, 9, 9]
    assert run_of(Sharpness(1, 16, 4, kind="exponential"), 6) == pytest.approx([1, 2, 4, 8, 16, 16])
    assert run_of(Sharpness(last=5), 2) == [5, 5]


def test_it_is_learned_after_the_ramp() -> None:
    sharpness = Sharpness(0, 3, 2, most_learned=4)
    optimizer = torch.optim.SGD(sharpness.parameters(), lr=0.5)
    values = torch.tensor([0.3, 1.2])
    for step in range(4):
        assert sharpness.is_learned == (step >= 2)
        now: Tensor = sharpness()
        if now.requires_grad:
            optimizer.zero_grad()
            (soft_round(values, now) - values.round()).square().sum().backward()
            optimizer.step()
        sharpness.advance()
    assert 3.0 < float(sharpness().detach()) < 4.0


def test_a_run_resumes_where_it_was() -> None:
    first, second = Sharpness(1, 9, 4), Sharpness(1, 9, 4)
    run_of(first, 3)
    second.load_state_dict(first.state_dict())
    assert float(second()) == float(first()) == 7


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": -1},
        {"first": 5, "last": 3},
        {"last": math.inf},
        {"kind": "cosine"},
        {"first": 0, "kind": "exponential"},
        {"num_steps": -1},
        {"last": 5, "most_learned": 4},
    ],
)
def test_what_is_no_schedule_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidArgument):
        Sharpness(**arguments)  # type: ignore[arg-type]
