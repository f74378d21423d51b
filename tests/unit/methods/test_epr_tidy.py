"""Units tidied at saving: the loaded network computes the same, and dead units take no bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits import Epr, EprConfig
from fewbits.nn.attached import Attached


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten()
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.last = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images))
        hidden = torch.relu(self.left(hidden)) + self.right(hidden)
        return self.last(hidden.mean((2, 3)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": convolutional,
    "depthwise": depthwise,
    "residual": Residual,
}
DECODERS = ("scalar", "dft", "matrix")


def attached(make: Callable[[], nn.Module], kind: str, seed: int) -> tuple[nn.Module, Attached]:
    """A network with coarse latents: many are 0, and some units dead."""
    torch.manual_seed(seed)
    net = make()
    kernels = [name for name, value in net.named_parameters() if value.ndim == 4]
    decoders = dict.fromkeys(kernels, kind) if kind != "scalar" else {}
    latents = fewbits.attach(net, Epr(EprConfig(decoders=decoders, average=0.0)), rate_weight=1.0)
    with torch.no_grad():
        for name, parameter in latents.representation.named_parameters():
            if name.endswith("latents"):
                parameter.copy_(torch.randint(-2, 3, parameter.shape) * (torch.rand(parameter.shape) < 0.2))
                if parameter.ndim > 1:
                    parameter[torch.rand(len(parameter)) < 0.3] = 0
    return net, latents


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loaded_network_computes_the_same(name: str, kind: str, tmp_path: Path) -> None:
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes: list[tuple[int, int]] = []
    for seed in range(8):
        net, _ = attached(NETWORKS[name], kind, seed)
        sizes.append(tuple(fewbits.save(net, tmp_path / f"{k}.fewbits", keep_units=k).size for k in (True, False)))  # type: ignore[arg-type]
        with torch.no_grad():
            expected = net.eval()(images)
            scale = float(expected.abs().max()) + 1e-6
            for keep in (True, False):
                loaded = fewbits.load(tmp_path / f"{keep}.fewbits", into=NETWORKS[name]()).eval()
                assert float((loaded(images) - expected).abs().max()) < 1e-5 * scale
    kept, tidied = map(sum, zip(*sizes, strict=True))
    assert tidied < kept


def test_training_goes_on_untidied(tmp_path: Path) -> None:
    net, latents = attached(convolutional, "scalar", 3)
    before = {name: value.clone() for name, value in latents.representation.state_dict().items()}
    fewbits.save(net, tmp_path / "net.fewbits")
    for name, value in latents.representation.state_dict().items():
        assert torch.equal(before[name], value), name
