"""Layers that compute from factors: what they give, what they hold, and that no weight is made on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fewbits
from fewbits.errors import InvalidArgument
from fewbits.methods.qswd import Qswd, QswdConfig
from fewbits.native import core
from fewbits.nn.factored import Factored, FactoredConv2d, FactoredEmbedding, FactoredLinear, SparseLevels, held_bytes
from fewbits.quantize.factors import Factors
from fewbits.quantize.tiling import Tiling

ISAS = ("numpy", *(isa for isa in ("scalar", "avx2", "avx512") if isa in (core().available_isas() if core() else ())))


def levels(rows: int, columns: int, share: float = 0.3, most: int = 5, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((rows, columns)) < share, rng.integers(-most, most + 1, (rows, columns)), 0)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FEWBITS_ISA", request.param)
    return request.param


@pytest.mark.parametrize("width", [0, 1, 2, 7, 8, 9, 31, 32, 33, 75])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 5), (9, 64), (5, 65), (130, 47), (64, 200)])
def test_products_are_those_of_the_dense_matrix(isa: str, rows: int, columns: int, width: int) -> None:
    matrix = levels(rows, columns)
    sparse = SparseLevels(matrix)
    other = torch.from_numpy(np.random.default_rng(1).standard_normal((columns, width)).astype(np.float32))
    expected = torch.from_numpy(matrix).double() @ other.double()
    assert torch.allclose(sparse(other).double(), expected, atol=1e-4)
    assert torch.equal(sparse.dense(slice(0, rows)), torch.from_numpy(matrix).float())


def test_nothing_and_everything_is_held(isa: str) -> None:
    for matrix in (levels(20, 30, share=0.0), levels(20, 30, share=1.1)):
        other = torch.randn(30, 3)
        assert torch.allclose(SparseLevels(matrix)(other), torch.from_numpy(matrix).float() @ other, atol=1e-4)


def test_rows_of_small_and_large_levels(isa: str) -> None:
    matrix = levels(20, 30, most=7)
    matrix[3:9] = levels(6, 30, most=127, seed=1)
    matrix[13, :3], matrix[19, 0] = (-8, 7, -128), 127
    sparse = SparseLevels(matrix)
    assert 0 < int(sparse.wide.sum()) < 20
    assert torch.equal(sparse(torch.eye(30)), torch.from_numpy(matrix).float())
    assert torch.equal(sparse.dense(slice(2, 15)), torch.from_numpy(matrix[2:15]).float())
    assert torch.equal(sparse.dense(torch.tensor([13, 4])), torch.from_numpy(matrix[[13, 4]]).float())
    assert torch.allclose(sparse(torch.ones(30, 1))[:, 0], torch.from_numpy(matrix).float().sum(1))


def test_levels_beyond_a_byte_are_not_kept_as_factors(tmp_path: Path) -> None:
    net = nn.Linear(60, 50)
    fewbits.compress(net, tmp_path / "n", bits=12.0, method="qswd")
    assert isinstance(fewbits.load(tmp_path / "n", keep_factors=True)["weight"], Tensor)
    assert torch.equal(
        fewbits.load(tmp_path / "n", keep_factors=True)["weight"], fewbits.load(tmp_path / "n")["weight"]
    )


def test_threads_share_the_rows() -> None:
    matrix, other = levels(512, 512, share=0.5), torch.randn(512, 64)
    sparse, before = SparseLevels(matrix), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = sparse(other)
        torch.set_num_threads(3)
        assert torch.equal(sparse(other), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    matrix, other = levels(40, 50), torch.randn(50, 6).to(dtype)
    found = SparseLevels(matrix)(other)
    assert found.dtype == dtype
    assert torch.allclose(
        found, torch.from_numpy(matrix).to(dtype) @ other, atol=0.5 if dtype == torch.bfloat16 else 1e-9
    )


def test_gradients_reach_the_input() -> None:
    sparse = SparseLevels(levels(12, 9))
    assert torch.autograd.gradcheck(sparse, torch.randn(9, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("what", ["bits", "starts", "wide", "values"])
def test_a_state_that_does_not_belong_together_is_refused(what: str, isa: str) -> None:
    sparse = SparseLevels(levels(12, 9))
    state = {name: value.clone() for name, value in sparse.state_dict().items()}
    SparseLevels(levels(12, 9, seed=0)).load_state_dict(state)
    state[what] = {
        "bits": state["bits"] ^ 2,
        "starts": state["starts"] + 1,
        "wide": state["wide"] + 1,
        "values": state["values"][:16],
    }[what]
    with pytest.raises((InvalidArgument, RuntimeError)):
        SparseLevels(levels(12, 9)).load_state_dict(state)


TILINGS = [Tiling("rows", 1), Tiling("rows", 6), Tiling("rows", 24), Tiling("columns", 4), Tiling("columns", 40)]


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("tiling", TILINGS)
def test_tensors_are_what_their_factors_say(tiling: Tiling, one_hot: bool, isa: str) -> None:
    rng = np.random.default_rng(3)
    count = 24 * 40 // tiling.height
    rank = min(2 * tiling.height, 5)
    coefficients = rng.integers(0, rank, count) if one_hot else levels(rank, count)
    codebook, exponents = rng.integers(-9, 10, (tiling.height, rank)), rng.integers(0, 3, rank)
    factors = Factors(tiling, 0.25, codebook, exponents, coefficients, one_hot)
    exact = torch.from_numpy(factors.values(24, 40))
    held = Factored([factors], (24, 40), torch.float32)
    assert torch.allclose(held.dense(), exact, atol=1e-4)
    other = torch.randn(40, 7)
    assert torch.allclose(held.multiply(other), exact @ other, atol=1e-2)
    indices = torch.tensor([23, 0, 7, 7])
    assert torch.allclose(held.looked_up(indices), exact[indices], atol=1e-4)


class Net(nn.Module):
    """Every kind of layer that has a form with factors, and some that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 64)
        self.conv = nn.Conv2d(16, 32, 3, stride=2, padding=1, dilation=2)
        self.grouped = nn.Conv2d(32, 48, 3, groups=4, padding="same", padding_mode="circular", bias=False)
        self.dense = nn.Linear(64, 96)
        self.norm = nn.LayerNorm(96)
        self.tied = nn.Linear(96, 96, bias=False)
        self.again = nn.Linear(96, 96)
        self.again.weight = self.tied.weight

    def forward(self, indices: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.again(self.tied(self.norm(self.dense(self.embedding(indices))))), self.grouped(self.conv(images))


class Shapes(TorchDispatchMode):
    """Notes the shapes of all tensors that are made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, Tensor) and each.is_floating_point():
                self.seen.add(tuple(each.shape))
        return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    fewbits.compress(Net(), tmp_path / "net.fewbits", bits=3.0, method="qswd")
    return tmp_path / "net.fewbits"


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randint(300, (2, 5)), torch.randn(2, 16, 19, 23)


def test_a_module_computes_the_same_from_factors(file: Path, isa: str) -> None:
    plain, kept = fewbits.load(file, into=Net()), fewbits.load(file, into=Net(), keep_factors=True)
    given = inputs()
    for found, expected in zip(kept(*given), plain(*given), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)
    assert isinstance(kept.embedding, FactoredEmbedding)
    assert isinstance(kept.conv, FactoredConv2d) and type(kept.grouped) is nn.Conv2d
    assert torch.allclose(kept.conv(given[1][0]), kept.conv(given[1])[0], atol=1e-5)
    assert isinstance(kept.dense, FactoredLinear)
    assert type(kept.again) is nn.Linear and kept.again.weight is kept.tied.weight
    assert torch.equal(kept.tied.weight, plain.tied.weight)


def test_no_weight_is_made(file: Path, isa: str) -> None:
    net = fewbits.load(file, into=Net(), keep_factors=True).eval()
    shapes = [plain.weight for plain in (Net().embedding, Net().conv, Net().dense)]
    forbidden = {tuple(weight.shape) for weight in shapes} | {(len(w), w[0].numel()) for w in shapes}
    forbidden |= {shape[::-1] for shape in forbidden}
    with Shapes() as noted, torch.no_grad():
        net(*inputs())
    assert noted.seen and not noted.seen & forbidden


def test_what_is_held_is_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(384, 1536, bias=False), nn.Linear(1536, 384, bias=False))
    fewbits.compress(net, tmp_path / "n", bits=2.0, method="qswd")
    kept = fewbits.load(tmp_path / "n", into=net, keep_factors=True)
    assert held_bytes(kept) <= 0.15 * 4 * 2 * 384 * 1536


def test_a_state_dict_of_factors(file: Path) -> None:
    tensors, plain = fewbits.load(file, keep_factors=True), fewbits.load(file)
    assert list(tensors) == list(plain)
    assert isinstance(tensors["dense.weight"], Factored) and tensors["dense.weight"].shape == (96, 64)
    assert torch.allclose(tensors["dense.weight"].dense(), plain["dense.weight"], atol=1e-5)
    assert torch.equal(tensors["tied.weight"], plain["tied.weight"])


def test_a_wrong_module_is_refused_and_left_alone(file: Path) -> None:
    net = nn.Linear(64, 96)
    with pytest.raises(InvalidArgument, match="does not fit"):
        fewbits.load(file, into=net, keep_factors=True)
    assert type(net) is nn.Linear


@pytest.mark.parametrize("family", ["svd", "vq"])
def test_special_cases_are_kept_as_factors_too(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(48, 64))
    fewbits.compress(net, tmp_path / "n", bits=3.0, method=Qswd(QswdConfig(family=family)))
    plain = fewbits.load(tmp_path / "n", into=nn.Sequential(nn.Linear(48, 64)))
    kept = fewbits.load(tmp_path / "n", into=net, keep_factors=True)
    given = torch.randn(3, 2, 48)
    assert torch.allclose(kept(given), plain(given), atol=1e-4)


def test_gradients_pass_the_layers(file: Path) -> None:
    plain, kept = fewbits.load(file, into=Net()), fewbits.load(file, into=Net(), keep_factors=True)
    indices, images = inputs()
    found = []
    for net in (plain, kept):
        given = images.clone().requires_grad_()
        net(indices, given)[1].square().sum().backward()
        found.append(given.grad)
    assert torch.allclose(found[0], found[1], atol=1e-3)
