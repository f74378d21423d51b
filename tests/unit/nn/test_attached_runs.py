"""Whole runs behind attach: compiled, mixed precision, accumulated, resumed, steered, refined, from a file."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

import fewbits
from fewbits import Epr, EprConfig, InvalidArgument, attach
from fewbits.nn.attached import Attached

CONFIGS = {
    "adaptive": EprConfig(refresh=5, first_steps={"*": 0.05}),
    "densities": EprConfig(rate="deep_factorized", decoders={"0.weight": "dft"}, first_steps={"*": 0.05}),
    "basis": EprConfig(rate="laplace", decoders={"0.weight": "matrix"}, average=0.0, first_steps={"*": 0.05}),
}


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def examples(count: int = 64) -> tuple[Tensor, Tensor]:
    """Images with a bright corner, and which one."""
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(3, (count,), generator=generator)
    images = 0.3 * torch.randn(count, 1, 8, 8, generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, 3 * (label // 2) : 3 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1
    return images, labels


def attached(config: EprConfig, **settings: Any) -> tuple[nn.Sequential, Attached]:
    torch.manual_seed(1)
    net = network()
    return net, attach(net, Epr(config), **({"rate_weight": 0.3} | settings))


def train(net: nn.Module, latents: Attached, optimizer: torch.optim.Optimizer, steps: int, parts: int = 1) -> float:
    images, labels = examples()
    total = 0.0
    for _ in range(steps):
        optimizer.zero_grad()
        for some, which in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            loss = (cross_entropy(net(some), which) + latents.rate_loss()) / parts
            loss.backward()
            total = loss.item()
        optimizer.step()
    return total


def adam(latents: Attached) -> torch.optim.Optimizer:
    return torch.optim.Adam(latents.parameter_groups(densities=1e-2))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_learns_and_shrinks(name: str) -> None:
    net, latents = attached(CONFIGS[name])
    before = latents.num_bytes()
    train(net, latents, adam(latents), 120)
    images, labels = examples(200)
    assert float((net.eval()(images).argmax(1) == labels).float().mean()) > 0.9
    assert latents.num_bytes() < 0.85 * before


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("name", CONFIGS)
def test_the_forward_compiles_without_a_graph_break_and_computes_the_same(name: str) -> None:
    net, latents = attached(CONFIGS[name])
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    images, _ = examples()
    torch.manual_seed(5)
    plain, bits = net(images), latents.bits()
    torch.manual_seed(5)
    assert torch.allclose(compiled(images), plain, atol=1e-5)
    if name == "adaptive":  # the others draw noise, which compilers draw in their own order
        assert torch.allclose(latents.bits(), bits)
    first = [parameter.detach().clone() for parameter in latents.representation.parameters()]
    train(compiled, latents, adam(latents), 2)  # type: ignore[arg-type]
    assert any(not torch.equal(a, b) for a, b in zip(first, latents.representation.parameters(), strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_mixed_precision_trains_finite_latents(name: str) -> None:
    net, latents = attached(CONFIGS[name])
    optimizer = adam(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = train(net, latents, optimizer, 10)
    assert loss < 5
    assert all(bool(parameter.isfinite().all()) for parameter in latents.representation.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in latents.representation.parameters())


def test_gradients_add_up_over_the_parts_of_a_batch() -> None:
    gradients: list[list[Tensor]] = []
    for parts in (1, 4):
        net, latents = attached(EprConfig(refresh=1000))
        images, labels = examples()
        for some, which in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            ((cross_entropy(net(some), which) + latents.rate_loss()) / parts).backward()
        gradients.append([parameter.grad.clone() for parameter in latents.representation.parameters()])  # type: ignore[union-attr]
    for one, four in zip(*gradients, strict=True):
        assert torch.allclose(one, four, atol=1e-6)


@pytest.mark.parametrize("settings", [{"warm_up": 30}, {"budget": 300, "num_steps": 100}], ids=["warm-up", "budget"])
def test_a_run_goes_on_from_its_state_as_if_never_stopped(settings: dict[str, Any]) -> None:
    def half(net: nn.Module, latents: Attached, optimizer: torch.optim.Optimizer) -> None:
        train(net, latents, optimizer, 37)

    net, latents = attached(CONFIGS["adaptive"], **settings)
    optimizer = adam(latents)
    half(net, latents, optimizer)
    kept = io.BytesIO()
    torch.save({"latents": latents.state_dict(), "optimizer": optimizer.state_dict()}, kept)
    half(net, latents, optimizer)

    again, resumed = attached(CONFIGS["adaptive"], **settings)
    optimizer = adam(resumed)
    state = torch.load(io.BytesIO(kept.getvalue()), weights_only=True)
    resumed.load_state_dict(state["latents"])
    optimizer.load_state_dict(state["optimizer"])
    half(again, resumed, optimizer)
    for name, value in latents.representation.state_dict().items():
        assert torch.equal(resumed.representation.state_dict()[name], value), name
    assert resumed.control.weight() == latents.control.weight()


def damaged(state: dict[str, Any], how: str) -> dict[str, Any]:
    state = copy.deepcopy(state)
    tensors = state["representation"]
    name = next(name for name in tensors if name.endswith("latents"))
    if how == "part missing":
        del state["control"]
    elif how == "tensor missing":
        del tensors[name]
    elif how == "other shape":
        tensors[name] = tensors[name][:1]
    elif how == "not numbers":
        tensors[name][0] = torch.nan
    else:
        state["representation"] = None
    return state


@pytest.mark.parametrize("how", ["part missing", "tensor missing", "other shape", "not numbers", "no state"])
def test_a_damaged_state_is_refused_and_nothing_changes(how: str) -> None:
    _, latents = attached(CONFIGS["adaptive"])
    before = copy.deepcopy(latents.state_dict())
    with pytest.raises(InvalidArgument):
        latents.load_state_dict(damaged(before, how))
    for name, value in before["representation"].items():
        assert torch.equal(latents.state_dict()["representation"][name], value)


def test_a_budget_is_met_within_two_percent_after_refining() -> None:
    budget = 200
    net, latents = attached(EprConfig(refresh=10, first_steps={"*": 0.1}), budget=budget, num_steps=250)
    train(net, latents, adam(latents), 250)
    assert 0.6 * budget < latents.num_bytes() < 1.6 * budget  # a tiny network: a few levels are some per cent
    images, labels = examples()
    batches = list(zip(images.split(16), labels.split(16), strict=True))
    done = latents.refine(batches, lambda batch: cross_entropy(net(batch[0]), batch[1]), batch_size=16, budget=budget)
    assert done.bytes_after == latents.num_bytes() <= budget


@pytest.mark.parametrize("share", [0.98, 0.9, 0.7])
def test_refining_to_a_budget_stops_there_however_many_moves_it_makes_at_once(share: float) -> None:
    net, latents = attached(EprConfig(refresh=10, first_steps={"*": 0.02}), rate_weight=1e-3)
    train(net, latents, adam(latents), 20)
    images, labels = examples()
    batches = list(zip(images.split(16), labels.split(16), strict=True))
    budget = int(share * latents.num_bytes())
    done = latents.refine(batches, lambda batch: cross_entropy(net(batch[0]), batch[1]), batch_size=16, budget=budget)
    assert 0.98 * budget <= done.bytes_after <= budget


def test_refining_lowers_loss_plus_rate_and_keeps_everything_exact() -> None:
    net, latents = attached(EprConfig(refresh=10))
    train(net, latents, adam(latents), 60)
    images, labels = examples()
    batches = list(zip(images.split(16), labels.split(16), strict=True))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(net(batch[0]), batch[1])

    done = latents.refine(batches, loss, batch_size=16)
    price = 8 * latents.control.rate_weight / latents.representation.num_weights
    assert done.num_moves > 0
    assert done.loss_after + price * done.bytes_after < done.loss_before + price * done.bytes_before
    with torch.no_grad():
        assert sum(float(loss(batch)) for batch in batches) / len(batches) != done.loss_after  # it still trains, noisy
        net.eval()
        assert sum(float(loss(batch)) for batch in batches) / len(batches) == done.loss_after


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_saved_untouched_again_has_the_same_bytes_and_can_be_trained_on(
    name: str, bare: bool, tmp_path: Path
) -> None:
    net, latents = attached(CONFIGS[name], seed=7)
    train(net, latents, adam(latents), 40)
    fewbits.save(net, tmp_path / "one.fewbits", bare=bare)
    loaded = network()
    again = fewbits.load(tmp_path / "one.fewbits", into=loaded, keep_latents=True)
    fewbits.save(loaded, tmp_path / "two.fewbits", bare=bare)
    assert (tmp_path / "one.fewbits").read_bytes() == (tmp_path / "two.fewbits").read_bytes()
    images, _ = examples()
    assert torch.allclose(loaded.eval()(images), net.eval()(images), atol=1e-5)
    loaded.train()
    train(loaded, again, adam(again), 40)
    fewbits.save(loaded, tmp_path / "three.fewbits", bare=bare)
    assert (tmp_path / "one.fewbits").read_bytes() != (tmp_path / "three.fewbits").read_bytes()


def test_keeping_latents_needs_a_module_and_latents(tmp_path: Path) -> None:
    fewbits.compress(network(), tmp_path / "exact.fewbits", lossless=True)
    with pytest.raises(InvalidArgument, match="into"):
        fewbits.load(tmp_path / "exact.fewbits", keep_latents=True)
    with pytest.raises(InvalidArgument, match="latents"):
        fewbits.load(tmp_path / "exact.fewbits", into=network(), keep_latents=True)
    fewbits.compress(network(), tmp_path / "ecsq.fewbits", bits=4.0)
    with pytest.raises(InvalidArgument, match="ecsq"):
        fewbits.load(tmp_path / "ecsq.fewbits", into=network(), keep_latents=True)


def test_a_run_that_diverges_says_which_tensor() -> None:
    net, latents = attached(CONFIGS["adaptive"])
    images, _ = examples()
    with torch.no_grad():
        next(module for name, module in latents.representation.named_parameters() if "1.latents" in name)[0] = torch.nan
    net(images)
    with pytest.raises(InvalidArgument, match=r"0\.bias"):
        latents.rate_loss()


REFUSED: dict[str, Callable[[nn.Sequential], object]] = {
    "no price": lambda net: attach(net, Epr()),
    "negative": lambda net: attach(net, Epr(), rate_weight=-1.0),
    "not a number": lambda net: attach(net, Epr(), rate_weight=float("nan")),
    "no steps for a budget": lambda net: attach(net, Epr(), budget=500),
    "budget below what exists": lambda net: attach(net, Epr(), budget=3, num_steps=10),
    "no budget at all": lambda net: attach(net, Epr(), budget=0, num_steps=10),
    "no free weight for a budget": lambda net: attach(net, Epr(), budget=500, num_steps=10, rate_weight=0.0),
    "negative warm-up": lambda net: attach(net, Epr(), rate_weight=1.0, warm_up=-1),
    "decoder without kernels": lambda net: attach(net, Epr(EprConfig(decoders={"4.weight": "dft"})), rate_weight=1.0),
    "parametrised": lambda net: attach(
        nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3))), Epr(), rate_weight=1.0
    ),
    "frozen": lambda net: attach(net.requires_grad_(False), Epr(), rate_weight=1.0),
    "no parameters": lambda net: attach(nn.ReLU(), Epr(), rate_weight=1.0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_input_is_refused_and_the_module_left_as_it_was(what: str) -> None:
    net = network()
    names = [name for name, _ in net.named_parameters()]
    with pytest.raises(InvalidArgument):
        REFUSED[what](net)
    assert [name for name, _ in net.named_parameters()] == names
    assert net(examples()[0]).shape == (64, 3)
