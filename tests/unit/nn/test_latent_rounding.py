"""Roundings of latents in training: what they show, how they sharpen, and networks that are trained with them."""

import copy

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits.nn.attached import Attached
from fewbits.nn.latent_rounding import ROUNDINGS, LatentRounding
from fewbits.quantize.soft_rounding import soft_round

LIMIT = torch.tensor(1000.0)


def test_soft_rounding_becomes_rounding() -> None:
    rounding = LatentRounding("soft", 12.0, 4)
    latents = torch.linspace(-2.4, 2.4, 49)
    off: list[float] = []
    for _ in range(6):
        off.append(float((rounding(latents, LIMIT) - latents.round()).abs().mean()))
        rounding.advance()
    assert off == sorted(off, reverse=True) and off[0] > 0.2 > 0.07 > off[4] == off[5]


def test_universal_quantisation_shows_the_mean_of_what_a_decoder_would_see() -> None:
    torch.manual_seed(0)
    rounding = LatentRounding("universal", 4.0, 1)
    latents = torch.full((200_000,), 0.3, requires_grad=True)
    first = rounding(latents, LIMIT)
    rounding.advance()
    second = rounding(latents, LIMIT)
    assert first.detach().std() > 0.2 and second.detach().std() > 0.15
    for sharpness, found in ((1.0, first), (4.0, second)):
        (slope,) = torch.autograd.grad(found.sum(), latents)
        (expected,) = torch.autograd.grad(soft_round(latents, sharpness).sum(), latents)
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)  # that of the mean after it is 1


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_levels_stay_within_their_limit_and_gradients_are_finite(kind: str) -> None:
    latents = torch.tensor([0.0, 0.5, -0.5, 7.0, -1e30, 1e30], requires_grad=True)
    found = LatentRounding(kind, 12.0, 1)(latents, torch.tensor(5.0))
    assert float(found.detach().abs().max()) <= 5
    found.sum().backward()
    assert latents.grad is not None and latents.grad.isfinite().all()


def trained(kind: str, steps: int = 60) -> tuple[nn.Module, Attached, torch.optim.Optimizer, Tensor, Tensor]:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(64, 12), torch.randint(3, (64,))
    config = fewbits.EprConfig(rounding=kind, sharpness_steps=40, first_steps={"*": 0.1}, average=0.9)
    latents = fewbits.attach(network, fewbits.Epr(config), rate_weight=1e-3)
    optimizer = torch.optim.Adam(latents.parameter_groups(5e-2))
    train(network, latents, optimizer, x, y, steps)
    return network, latents, optimizer, x, y


def train(network: nn.Module, latents: Attached, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int):
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(x), y) + latents.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ROUNDINGS)
def test_a_network_learns_and_its_file_has_whole_levels(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    network, latents, _, x, y = trained(kind, 200)
    network.eval()
    with torch.no_grad():
        wrong = float((network(x).argmax(1) != y).float().mean())
        assert wrong < 0.3  # by chance two thirds
        expected = {name: value.clone() for name, value in latents.plain_state().items()}
    fewbits.save(network, tmp_path / "net.fewbits", keep_units=True)
    loaded = fewbits.load(tmp_path / "net.fewbits")
    for name, value in loaded.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["soft", "universal"])
def test_a_run_resumes_with_the_sharpness_it_had(kind: str) -> None:
    network, latents, optimizer, x, y = trained(kind, 20)
    states = copy.deepcopy((latents.state_dict(), optimizer.state_dict()))
    generator = torch.get_rng_state()
    train(network, latents, optimizer, x, y, 5)
    again, other, fresh, _, _ = trained(kind, 0)
    other.load_state_dict(states[0])
    fresh.load_state_dict(states[1])
    torch.set_rng_state(generator)
    train(again, other, fresh, x, y, 5)
    for first, second in zip(latents.representation.parameters(), other.representation.parameters(), strict=True):
        assert torch.equal(first, second)
