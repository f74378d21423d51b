"""MIRACLE in a training loop: the bytes that were asked for, blocks that become final, the file that comes of it."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import fewbits
from fewbits.errors import InvalidArgument
from fewbits.methods.miracle import Miracle, MiracleConfig
from fewbits.methods.miracle.representation import MiracleRepresentation
from fewbits.nn.attached import Attached


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 3))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(256, 12, generator=generator)
    return inputs, torch.stack([inputs[:, :3].sum(1), inputs[:, 3] * 2, inputs[:, 4].abs()], 1)


def trained(module: nn.Module, latents: Attached, steps: int, rate: float = 2e-2) -> float:
    """Train for some steps; returns the last loss."""
    inputs, targets = data()
    optimizer = torch.optim.Adam(latents.parameter_groups(latents=rate, decoders=5e-3))
    loss = torch.zeros(())
    for _ in range(steps):
        loss = mse_loss(module(inputs), targets)
        optimizer.zero_grad()
        (loss + latents.rate_loss()).backward()
        optimizer.step()
    return float(loss.detach())


def miracle_of(latents: Attached) -> MiracleRepresentation:
    assert isinstance(latents.representation, MiracleRepresentation)
    return latents.representation


@pytest.mark.parametrize("budget", [200, 333, 600])
@pytest.mark.parametrize("parameterisation", ["divergence", "deviation"])
def test_a_budget_is_met_before_any_training(budget: int, parameterisation: str):
    latents = fewbits.attach(
        network(), Miracle(MiracleConfig(bits=10, parameterisation=parameterisation)), budget=budget
    )
    size = latents.num_bytes()
    assert budget - 0.01 * budget - 4 <= size <= budget
    trained(latents._module, latents, 3)
    assert size - 4 <= latents.num_bytes() <= budget  # priors' codes may take a byte less or more


def test_a_budget_below_what_there_is_is_refused():
    with pytest.raises(InvalidArgument, match="too small"):
        fewbits.attach(network(), Miracle(), budget=8)


@pytest.mark.parametrize("candidates", ["shared", "own"])
def test_training_goes_on_around_what_has_been_sent(candidates: str, tmp_path):
    module = network()
    latents = fewbits.attach(module, Miracle(MiracleConfig(bits=10, candidates=candidates)), budget=700, seed=3)
    representation = miracle_of(latents)
    first = trained(module, latents, 1)
    trained(module, latents, 400)
    at_once, straight = 8, network()
    steps = representation.steps
    # All at once, in a copy, is worse than going on in between.
    fewbits.save(module, tmp_path / "at_once.fewbits")
    while representation.open_steps:
        representation.commit_all(representation.open_steps[:at_once])
        if representation.open_steps:
            trained(module, latents, 10, 5e-3)
    report = fewbits.save(module, tmp_path / "sent.fewbits")
    assert len(steps) * 10 / 8 <= report.actual_bits / 8 <= 700
    inputs, targets = data()
    losses: dict[str, float] = {}
    for name in ("at_once", "sent"):
        fewbits.load(tmp_path / f"{name}.fewbits", into=straight)
        losses[name] = float(mse_loss(straight(inputs), targets).detach())
    assert losses["sent"] < 0.8 * losses["at_once"] < first
    assert torch.equal(module.eval()(inputs), straight.eval()(inputs))


def test_a_run_resumes_with_some_blocks_sent():
    method, module = Miracle(MiracleConfig(bits=8)), network()
    latents = fewbits.attach(module, method, budget=300, seed=5)
    trained(module, latents, 20)
    representation = miracle_of(latents)
    representation.commit_all(representation.steps[:10])
    again = network()
    resumed = fewbits.attach(again, method, budget=300, seed=5)
    resumed.load_state_dict(latents.state_dict())
    assert miracle_of(resumed).open_steps == representation.open_steps
    inputs, _ = data()
    assert torch.equal(module.eval()(inputs), again.eval()(inputs))


def test_zeros_stay_zeros_unless_they_are_named():
    module = network()
    with torch.no_grad():
        module[0].bias.zero_()
    plain = fewbits.attach(module, Miracle(MiracleConfig(bits=8)), budget=300)
    trained(module, plain, 3)
    plain.detach()
    assert not module[0].bias.any()
    named = fewbits.attach(module, Miracle(MiracleConfig(bits=8, first_priors={"*.bias": 0.1})), budget=300)
    trained(module, named, 3)
    named.detach()
    assert bool(module[0].bias.all())
