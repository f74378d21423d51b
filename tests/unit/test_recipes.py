"""What the recipes do to networks under way: dead units are left out and put back, and nothing else changes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fewbits
from tests.golden.independent_decoder import decode_file

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RECIPES))
    import models
    from epr import narrow

    yield models, narrow
    for name in [name for name in sys.modules if name == "models" or name.split(".")[0] == "epr"]:
        del sys.modules[name]


def attached(network: torch.nn.Module, **decoders: str) -> tuple[Any, torch.optim.Optimizer]:
    config = fewbits.EprConfig(
        first_steps={"*": 0.02}, decoders={name.replace("_", "."): k for name, k in decoders.items()}
    )
    num_weights = sum(parameter.numel() for parameter in network.parameters())
    latents = fewbits.attach(network, fewbits.Epr(config), rate_weight=1e-5 * num_weights)
    return latents, torch.optim.Adam(latents.parameter_groups())


def steps(network: torch.nn.Module, latents: Any, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        images, labels = torch.rand(16, 1, 28, 28, generator=generator), torch.randint(10, (16,), generator=generator)
        loss = torch.nn.functional.cross_entropy(network(images), labels) + latents.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def kill(latents: Any, name: str, axis: int, units: list[int], repeat: int = 1) -> None:
    (one,) = [one for one in latents.representation.latent_tensors() if one.spec.name == name]
    indices = torch.tensor([unit * repeat + i for unit in units for i in range(repeat)])
    for held in (one.latents, one.average):
        held.index_fill_(axis, indices, 0.2)


CASES = {
    "lenet300": ((30, 20), {}, [("fc2.weight", 1, [0, 7, 29], 1), ("fc3.weight", 1, [3], 1)], (27, 19)),
    "lenet5": (
        (6, 8, 12),
        {"conv2_weight": "dft"},
        [
            ("conv2.weight", 1, [2], 1),
            ("fc1.weight", 1, [0, 5], 16),
            ("fc1.weight", 0, [4, 11], 1),
            ("fc1.bias", 0, [4, 11], 1),
        ],
        (5, 6, 10),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_without_dead_units_as_if_they_were_there(recipes: Any, name: str) -> None:
    models, narrow = recipes
    units, decoders, dead, left = CASES[name]
    torch.manual_seed(0)
    network = models.NETWORKS[name](units)
    latents, optimizer = attached(network, **decoders)
    steps(network, latents, optimizer, 3, 0)
    for tensor, axis, indices, repeat in dead:
        kill(latents, tensor, axis, indices, repeat)
    live = narrow.live_units(network, latents)
    layers = models.UNIT_LAYERS[name]
    assert narrow.units_of(network, layers) == units and narrow.sizes_of(live, layers) == left
    smaller = models.NETWORKS[name](left)
    new_latents, new_optimizer = attached(smaller, **decoders)
    narrow.carry(latents, new_latents, live)
    narrow.carry_moments(latents, optimizer, new_latents, new_optimizer, live)
    images = torch.rand(5, 1, 28, 28)
    for training in (True, False):
        torch.testing.assert_close(
            smaller.train(training)(images), network.train(training)(images), rtol=1e-4, atol=1e-5
        )
    assert new_latents.control.rate_weight / new_latents.representation.num_weights == pytest.approx(1e-5)
    # One more step moves both alike: gradients, moments and what a bit is worth have come along.
    for one, its, by in ((network, latents, optimizer), (smaller, new_latents, new_optimizer)):
        one.train()
        steps(one, its, by, 1, 1)
    state, new_state = latents.state_dict()["representation"], new_latents.state_dict()["representation"]
    for tensor, key, _ in narrow.of_latents(latents, state):
        kept = narrow.kept_of(state[key].shape, tensor, live)
        torch.testing.assert_close(new_state[key], narrow.cut(state[key], kept), rtol=1e-3, atol=2e-4)


def test_a_narrow_network_fits_into_the_corner_of_a_wide_one(recipes: Any) -> None:
    _, narrow = recipes
    small = torch.arange(6.0).reshape(2, 3)
    wide = narrow.spread(small, (4, 5))
    assert torch.equal(wide[:2, :3], small) and wide.sum() == small.sum()


# ---- the committed networks


ARTIFACTS = sorted((RECIPES / "artifacts").glob("*.fewbits"))


def chosen_row(artifact: Path) -> dict[str, Any]:
    """The last row of the network that validation has chosen, which this file is; a baseline has a row of its own."""
    case, _, recipe = artifact.stem.partition("_")
    lines = (RECIPES.parent / "bench" / "results" / f"{case}.jsonl").read_text("utf-8").splitlines()
    names = (f"fewbits {recipe} chosen", recipe)
    return [row for row in map(json.loads, lines) if row["row"] in names][-1]


def network_of(artifact: Path) -> torch.nn.Module:
    sys.path.insert(0, str(RECIPES))
    try:
        from models import NETWORKS  # type: ignore[import-not-found]

        return next(NETWORKS[name]() for name in NETWORKS if name in artifact.stem)
    finally:
        sys.path.pop(0)
        del sys.modules["models"]


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda path: path.stem)
def test_a_committed_network_is_the_one_of_its_row(artifact: Path) -> None:
    assert artifact.stat().st_size == chosen_row(artifact)["measured"]["size"]
    fewbits.verify(artifact)
    assert fewbits.load(artifact, into=network_of(artifact)).state_dict()


# The second decoder takes long for the levels of a wide first layer, and for a network without loss.
LONG = ("lenet300", "resnet20_baseline")
BY_TIME = [
    pytest.param(path, marks=[pytest.mark.slow] * any(map(path.stem.__contains__, LONG)), id=path.stem)
    for path in ARTIFACTS
]


@pytest.mark.parametrize("artifact", BY_TIME)
def test_the_second_decoder_reads_a_committed_network(artifact: Path) -> None:
    loaded = fewbits.load(artifact, into=network_of(artifact)).state_dict()
    shapes = [
        (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), None) for name, tensor in loaded.items()
    ]
    second = decode_file(artifact.read_bytes(), module_tensors=shapes)
    assert list(second) == list(loaded)
    for name, tensor in loaded.items():
        assert second[name].tobytes() == tensor.numpy().tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda path: path.stem)
def test_a_committed_network_has_the_errors_of_its_row(artifact: Path, data_folder: Path) -> None:
    words = [sys.executable, RECIPES / "evaluate.py", artifact, "--data", data_folder, "--json"]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    measured = chosen_row(artifact)["measured"]
    errors = {
        name: error for name, error in measured.items() if name in ("test_error", "test1k_error", "validation_error")
    }
    assert errors == {name: found[f"{name}_percent"] for name in errors} and "validation_error" in errors
