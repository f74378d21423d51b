"""QSWD's factors in training: products and gradients, masks, going on from files, budgets and refining."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import fewbits
from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.method import Source
from fewbits.methods.qswd import Qswd, QswdConfig
from fewbits.methods.qswd.latents import FactorLatents
from fewbits.methods.qswd.representation import QswdRepresentation
from fewbits.nn.attached import Attached

FAMILIES = ("sparse", "svd", "vq")


class Network(nn.Module):
    """Small, with what is factored, what is not, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv1(images)))
        return self.head(torch.relu(self.conv2(features)).mean((2, 3)))


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    found = Network()
    nn.init.normal_(found.norm.weight, 1.0, 0.3)
    nn.init.normal_(found.norm.bias)
    return found


def batch(seed: int = 0, count: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.randint(10, (count,), generator=generator)


def compressed(module: nn.Module, path: Path, family: str = "sparse", bits: float = 3.0, **settings: int) -> Path:
    config = QswdConfig(family=family, turns=3, **settings)
    fewbits.compress(module, path, bits=bits, method=Qswd(config))
    return path


def train(module: nn.Module, latents: Attached, steps: int = 20, rate: float = 1e-2) -> None:
    optimizer = torch.optim.Adam(module.parameters(), rate)
    latents.check(optimizer)
    for step in range(steps):
        images, labels = batch(step)
        loss = cross_entropy(module(images), labels) + latents.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def tiles_of(latents: Attached) -> list[FactorLatents]:
    assert isinstance(latents.representation, QswdRepresentation)
    return [tile for tile in latents.representation.tiles if isinstance(tile, FactorLatents)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tiling", [("rows", 4), ("columns", 9), ("rows", 16)])
def test_the_product_in_training_is_that_of_the_file(family: str, tiling: tuple[str, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = {"weight": torch.randn(16, 6, 3, 3, generator=generator)}
    config = QswdConfig(family=family, tilings=(tiling,) if family != "svd" else (), ranks=(3,), turns=2)
    representation = Qswd(config).represent(Source(tensors), rate_weight=0.1, seed=0)
    relaxed = representation.train()().values["weight"]
    exact = representation.eval()().values["weight"]
    assert relaxed.shape == exact.shape
    assert torch.allclose(relaxed, exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(decode(list(representation.chunks()))["weight"], exact)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_a_product_of_two_matrices(family: str) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = {"weight": torch.randn(24, 32, generator=generator)}
    representation = Qswd(QswdConfig(family=family, ranks=(4,), turns=2, mask_steps=0)).represent(
        Source(tensors), rate_weight=0.1, seed=0
    )
    wanted = torch.randn(24, 32, generator=generator)
    (representation.train()().values["weight"] * wanted).sum().backward()
    tile = representation.tiles[0]
    assert isinstance(tile, FactorLatents)
    factors = tile.factors()
    codebook = torch.from_numpy(factors.codebook).float().requires_grad_()
    scaled = codebook * torch.from_numpy(2.0**factors.exponents).float()
    if factors.one_hot:
        product = scaled[:, torch.from_numpy(factors.coefficients)]
    else:
        coefficients = torch.from_numpy(factors.coefficients).float().requires_grad_()
        product = scaled @ coefficients
    vectors = torch.from_numpy(factors.tiling.vectors(wanted.double().numpy())).float()
    (product * vectors * factors.step).sum().backward()
    assert tile.codebook.latents.grad is not None and codebook.grad is not None
    assert torch.allclose(tile.codebook.latents.grad, codebook.grad.T, rtol=1e-4, atol=1e-5)
    if tile.coefficients is not None and not factors.one_hot:
        grad = tile.coefficients.latents.grad
        assert grad is not None and coefficients.grad is not None
        assert torch.allclose(grad.reshape(coefficients.shape), coefficients.grad, rtol=1e-4, atol=1e-5)


def test_zeros_stay_until_the_mask_is_free(tmp_path: Path) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits", bits=1.5, mask_steps=10)
    latents = fewbits.load(path, into=module.train(), keep_latents=True, rate_weight=0.0)
    first = [tile.coefficients.latents.detach() == 0 for tile in tiles_of(latents) if tile.coefficients]
    train(module, latents, steps=10, rate=0.05)
    now = [tile.coefficients.latents.detach() == 0 for tile in tiles_of(latents) if tile.coefficients]
    assert any(zeros.any() for zeros in first)
    assert all(bool((b | ~a).all()) for a, b in zip(first, now, strict=True))
    train(module, latents, steps=2, rate=0.05)
    free = [tile.coefficients.latents.detach() == 0 for tile in tiles_of(latents) if tile.coefficients]
    assert any(bool((a & ~b).any()) for a, b in zip(first, free, strict=True))


def test_indices_of_vector_quantisation_stay_and_its_codebook_trains(tmp_path: Path) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits", "vq", bits=2.0)
    latents = fewbits.load(path, into=module.train(), keep_latents=True, rate_weight=0.0)
    before = [tile.factors() for tile in tiles_of(latents)]
    train(module, latents, steps=30, rate=0.2)
    after = [tile.factors() for tile in tiles_of(latents)]
    assert before and all((a.coefficients == b.coefficients).all() for a, b in zip(before, after, strict=True))
    assert any((a.codebook != b.codebook).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bare", [False, True])
def test_a_saved_file_is_gone_on_from_and_saved_again_with_the_same_bytes(
    tmp_path: Path, family: str, bare: bool
) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits", family)
    latents = fewbits.load(path, into=module.train(), keep_latents=True, rate_weight=0.01)
    assert {*latents.representation.names} == {name for name, _ in network().named_parameters()}
    train(module, latents)
    trained = tmp_path / "trained.fewbits"
    fewbits.save(module, trained, bare=bare)
    loaded = network()
    latents = fewbits.load(trained, into=loaded, keep_latents=True, rate_weight=latents.control.rate_weight)
    fewbits.save(loaded, tmp_path / "again.fewbits", bare=bare)
    assert (tmp_path / "again.fewbits").read_bytes() == trained.read_bytes()
    # And training goes on from there.
    train(loaded, latents, steps=2)
    fewbits.save(loaded, tmp_path / "more.fewbits", bare=bare)


def test_going_on_from_a_compressed_file_starts_from_its_very_factors(tmp_path: Path) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits")
    stored = fewbits.load(path)
    fewbits.load(path, into=module.eval(), keep_latents=True)
    state = module.eval()
    for name in ("conv1.weight", "conv2.weight", "head.weight"):
        layer, _, attribute = name.rpartition(".")
        assert torch.equal(getattr(state.get_submodule(layer), attribute).detach(), stored[name])
    # What ecsq has beside them is near: its step to the nearest that epr has.
    for name in ("conv2.bias", "norm.weight"):
        layer, _, attribute = name.rpartition(".")
        value = getattr(state.get_submodule(layer), attribute).detach()
        assert (value - stored[name]).norm() <= 0.2 * stored[name].norm()


def test_training_lowers_task_loss_and_rate_together(tmp_path: Path) -> None:
    module = network()
    images, labels = batch(0, 64)
    path = compressed(module, tmp_path / "a.fewbits", bits=3.0, mask_steps=20)
    latents = fewbits.load(path, into=module.train(), keep_latents=True, rate_weight=0.2)
    module.eval()
    with torch.no_grad():
        before, size = float(cross_entropy(module(images), labels)), latents.num_bytes()
    module.train()
    optimizer = torch.optim.Adam(latents.parameter_groups(latents=3e-2), fused=True)
    for _ in range(150):
        loss = cross_entropy(module(images), labels) + latents.rate_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
    with torch.no_grad():
        after = float(cross_entropy(module(images), labels))
    assert after < 0.9 * before
    assert latents.num_bytes() < 0.9 * size


def test_refining_makes_a_file_fit(tmp_path: Path) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits")
    latents = fewbits.load(path, into=module, keep_latents=True, rate_weight=0.01)
    train(module, latents)
    size = latents.num_bytes()
    done = latents.refine(
        [batch(0), batch(1)], lambda each: cross_entropy(module(each[0]), each[1]), batch_size=32, budget=size - 60
    )
    assert done.bytes_after <= size - 60 and done.num_moves > 0
    assert latents.num_bytes() == done.bytes_after


def test_a_budget_is_steered_to() -> None:
    module = network().train()
    budget = 2500
    latents = fewbits.attach(
        module, Qswd(QswdConfig(mask_steps=20, turns=3)), rate_weight=0.02, budget=budget, num_steps=200
    )
    before = latents.num_bytes()
    train(module, latents, steps=200, rate=5e-2)
    assert before > 1.3 * budget
    assert 0.8 * budget < latents.num_bytes() < 1.2 * budget


def test_a_loaded_file_is_steered_to_a_smaller_budget(tmp_path: Path) -> None:
    module = network().train()
    path = compressed(module, tmp_path / "a.fewbits", bits=4.0, mask_steps=20)
    budget = 2200
    latents = fewbits.load(
        path, into=module, keep_latents=True, rate_weight=0.1, budget=budget, num_steps=200, warm_up=10
    )
    before = latents.num_bytes()
    train(module, latents, steps=200, rate=5e-2)
    assert before > 1.1 * budget
    assert 0.8 * budget < latents.num_bytes() < 1.1 * before
    with pytest.raises(InvalidArgument, match="num_steps"):
        fewbits.load(path, into=network(), keep_latents=True, budget=budget)


def test_a_state_dict_resumes_a_run(tmp_path: Path) -> None:
    runs = []
    path = compressed(network(), tmp_path / "a.fewbits", mask_steps=5)
    for stop in (0, 4):
        module = network().train()
        latents = fewbits.load(path, into=module, keep_latents=True, rate_weight=0.01)
        optimizer = torch.optim.SGD(module.parameters(), 1e-2)
        for step in range(8):
            if step == stop and stop:
                state, rest = copy.deepcopy(latents.state_dict()), copy.deepcopy(module.norm.state_dict())
                module = network().train()
                latents = fewbits.load(path, into=module, keep_latents=True, rate_weight=0.01)
                latents.load_state_dict(state)
                module.norm.running_mean, module.norm.running_var = rest["running_mean"], rest["running_var"]
                optimizer = torch.optim.SGD(module.parameters(), 1e-2)
            images, labels = batch(step)
            loss = cross_entropy(module(images), labels) + latents.rate_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        runs.append(latents.state_dict()["representation"])
    for name, value in runs[0].items():
        assert torch.allclose(value, runs[1][name], rtol=1e-4, atol=1e-5), name


def test_without_the_core_a_draw_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = {"weight": torch.randn(24, 32, generator=generator), "bias": torch.randn(24, generator=generator)}
    representation = Qswd(QswdConfig(turns=2)).represent(Source(tensors), rate_weight=0.1, seed=0).train()
    with torch.no_grad():
        fused = representation()
        monkeypatch.setattr("fewbits.nn.relaxed.core", lambda: None)
        simple = representation()
    assert torch.equal(fused.values["weight"], simple.values["weight"])
    assert torch.allclose(fused.bits, simple.bits, rtol=1e-4)


def test_parts_without_factors_are_refused(tmp_path: Path) -> None:
    fewbits.compress(network(), tmp_path / "ecsq.fewbits", bits=3.0)
    with pytest.raises(InvalidArgument, match="no latents to train"):
        fewbits.load(tmp_path / "ecsq.fewbits", into=network(), keep_latents=True)
    with pytest.raises(InvalidArgument, match="none of these parts"):
        Qswd.resumed([])


def test_training_that_diverges_is_said(tmp_path: Path) -> None:
    module = network()
    path = compressed(module, tmp_path / "a.fewbits")
    latents = fewbits.load(path, into=module, keep_latents=True)
    tile = tiles_of(latents)[0]
    with torch.no_grad():
        tile.log_ratio.fill_(float("nan"))
    with pytest.raises(InvalidArgument, match=r"conv1\.weight"):
        latents.num_bytes()


def test_factors_found_again_from_a_noisy_start() -> None:
    """Descent by training, towards a product that is exactly sparse and quantised."""
    generator = torch.Generator().manual_seed(5)
    codebook = torch.randint(-4, 5, (16, 4), generator=generator).float()
    coefficients = torch.randint(-2, 3, (4, 64), generator=generator).float()
    coefficients[torch.rand(4, 64, generator=generator) < 0.6] = 0
    exact = codebook @ coefficients
    noisy = exact + 0.8 * torch.randn(16, 64, generator=generator)
    method = Qswd(QswdConfig(tilings=(("rows", 16),), ranks=(4,), mask_steps=0, average=0.0))
    representation = method.represent(Source({"weight": noisy}), rate_weight=0.05, seed=0).train()
    optimizer = torch.optim.Adam([one for one in representation.parameters() if one.requires_grad], 2e-2)
    with torch.no_grad():
        before = float(mse_loss(representation.eval()().values["weight"], exact))
    for _ in range(300):
        loss = mse_loss(representation.train()().values["weight"], exact)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        representation.update()
    with torch.no_grad():
        after = float(mse_loss(representation.eval()().values["weight"], exact))
    assert after < 0.5 * before
