"""Latents that are trained settle: in the middles of their cells, and at levels that no longer change."""

import pytest
import torch
from torch import Tensor, nn

from fewbits.nn import tuning
from fewbits.nn.tuning import Task, tune
from fewbits.quantize.noise import straight_through_round

STEP, STEPS = 0.25, 200


class Rounded(nn.Module):
    """Latents of one matrix, priced by their magnitudes."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.latents = nn.Parameter(weights.flatten() / STEP)

    def forward(self) -> Tensor:
        return straight_through_round(self.latents, self.latents.new_tensor(100.0)) * STEP

    def bits(self) -> Tensor:
        return self.latents.abs().sum()

    def refit(self) -> float:
        return float(self.latents.detach().round().abs().sum())


def trained() -> tuple[Tensor, int]:
    """Latents after training a linear module of correlated inputs, and how many levels changed in the last tenth."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(24, 16)
    with torch.no_grad():
        module.weight.copy_(torch.randn(16, 24, generator=generator))
    mixing = torch.randn(24, 24, generator=generator)
    batches = [torch.randn(6, 24, generator=generator) @ mixing for _ in range(40)]
    part = Rounded(module.weight.detach())
    before: list[Tensor] = []

    def watch(_: str, done: int, total: int) -> None:
        if done == total * 9 // 10:
            before.append(part.latents.detach().round())

    task = Task(module, batches, None, {"bias": module.bias.detach()})
    tune(task, {"weight": [part]}, slope=1e-6, steps=STEPS, seed=0, progress=watch)
    latents = part.latents.detach()
    return latents, int((latents.round() != before[0]).sum())


def test_latents_are_drawn_to_the_middles_of_their_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(latents: Tensor) -> float:
        return float((latents - latents.round()).abs().mean())

    drawn, changed = trained()
    monkeypatch.setattr(tuning, "_DRAWN", 0.0)
    left, jumping = trained()
    assert off(drawn) < 0.9 * off(left)
    assert 4 * changed < jumping
