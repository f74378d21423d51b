"""QSWD: what is factored and what is not, its families, budgets, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits.chunk import Chunk, TensorSpec
from fewbits.encode import decode
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import Source
from fewbits.methods.ecsq import Ecsq
from fewbits.methods.qswd import Qswd, QswdConfig
from fewbits.methods.qswd.payload import coded, read, write
from fewbits.quantize.factors import Factors
from fewbits.quantize.tiling import Tiling


def smooth_kernels(seed: int = 0) -> Tensor:
    """A convolution whose kernels have a few shapes, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.randn(3, 9, generator=generator)
    mixed = torch.randn(32, 24, 3, generator=generator) @ shapes
    return (mixed + 0.1 * torch.randn(32, 24, 9, generator=generator)).reshape(32, 24, 3, 3)


def encoded(tensors: dict[str, Tensor], rate_weight: float = 0.1, config: QswdConfig | None = None) -> list[Chunk]:
    return list(Qswd(config).encode(Source(tensors), rate_weight=rate_weight, seed=0))


def factors_of(chunks: list[Chunk]) -> dict[str, Factors]:
    return {n: f for chunk in chunks if chunk.method == "qswd" for n, f in Qswd().factors_of(chunk).items()}


def cost(chunks: list[Chunk], step: float) -> float:
    """Squared steps of error, and bits as they are worth."""
    error = sum(loss.squared_error for chunk in chunks for loss in chunk.losses)
    return error / step**2 + sum(8 * len(chunk.payload) for chunk in chunks) * np.log(2) / 6


def test_kernels_of_a_few_shapes_cost_less_than_scalar_quantisation() -> None:
    tensors = {"weight": smooth_kernels()}
    ours, scalar = encoded(tensors), list(Ecsq().encode(Source(tensors), rate_weight=0.1, seed=0))
    factors = factors_of(ours)["weight"]
    assert factors.tiling == Tiling("columns", 9)
    step = factors.step * 2.0 ** float(factors.exponents.max())  # at least the coefficients' step
    assert sum(len(c.payload) for c in ours) < 0.8 * sum(len(c.payload) for c in scalar)
    assert cost(ours, step) < cost(scalar, step)


def test_a_low_rank_is_found() -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {"weight": torch.randn(96, 5, generator=generator) @ torch.randn(5, 128, generator=generator)}
    factors = factors_of(encoded(tensors, 1e-3))["weight"]
    assert factors.tiling.height == 96 and factors.rank <= 8


@pytest.mark.parametrize(
    ("name", "tensor", "note"),
    [
        ("row", torch.randn(1, 400), "one row or column"),
        ("column", torch.randn(400, 1), "one row or column"),
        ("small", torch.randn(5, 6), "too small to gain"),
        ("zeros", torch.zeros(30, 40), "it is zero"),
        ("huge", torch.randn(20, 30, dtype=torch.float64).mul(1e-30).index_fill(0, torch.tensor(3), 1e30), ""),
    ],
)
def test_what_is_not_factored_goes_to_ecsq_and_says_why(name: str, tensor: Tensor, note: str) -> None:
    chunks = encoded({name: tensor, "weight": smooth_kernels()})
    own = next(chunk for chunk in chunks if name in [spec.name for spec in chunk.tensors])
    loss = dict(zip([spec.name for spec in own.tensors], own.losses, strict=True))[name]
    assert note in loss.note
    assert decode(chunks)[name].shape == tensor.shape
    if note:
        assert own.method in ("ecsq", "lossless")


def test_depthwise_and_grouped_convolutions() -> None:
    generator = torch.Generator().manual_seed(2)
    tensors = {
        "depthwise": torch.randn(64, 1, 3, 3, generator=generator),
        "grouped": torch.randn(32, 4, 5, 5, generator=generator),
    }
    decoded = decode(encoded(tensors, 1e-4))
    for name, tensor in tensors.items():
        assert float((decoded[name] - tensor).norm() / tensor.norm()) < 0.05


def test_families_have_their_kind_of_factors() -> None:
    tensors = {"weight": smooth_kernels()}
    clusters = factors_of(encoded(tensors, 1.0, QswdConfig(family="vq")))["weight"]
    assert clusters.one_hot
    low_rank = factors_of(encoded(tensors, 1.0, QswdConfig(family="svd")))["weight"]
    assert low_rank.tiling == Tiling("rows", 32)
    asked = factors_of(encoded(tensors, 1.0, QswdConfig(tilings=(("rows", 8),), ranks=(5,))))["weight"]
    assert asked.tiling == Tiling("rows", 8) and asked.rank == 5


def test_a_rank_above_what_there_is_falls_back() -> None:
    chunks = encoded({"weight": smooth_kernels()}, 1.0, QswdConfig(tilings=(("rows", 5),)))
    assert [chunk.method for chunk in chunks] == ["ecsq"]
    assert "cannot be cut" in chunks[0].losses[0].note
    chunks = encoded({"weight": smooth_kernels()}, 1.0, QswdConfig(family="vq", ranks=(10**6,)))
    assert [chunk.method for chunk in chunks] == ["ecsq"]


def test_large_tensors_are_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.plan.TILE", 20_000)
    tensors = {"weight": torch.randn(400, 200, generator=torch.Generator().manual_seed(3))}
    chunks = encoded(tensors, 0.01)
    assert [chunk.method for chunk in chunks] == ["qswd"] * 4
    net = nn.Linear(200, 400, bias=False)
    fewbits.compress(tensors, tmp_path / "w.fewbits", bits=3, method="qswd")
    plain = fewbits.load(tmp_path / "w.fewbits", into=net).weight.detach().clone()
    factored = fewbits.load(tmp_path / "w.fewbits", keep_factors=True)["weight"]
    assert torch.allclose(factored.dense(), plain, atol=1e-5)
    assert torch.allclose(factored.looked_up(torch.tensor([399, 0, 120])), plain[[399, 0, 120]], atol=1e-5)


def test_a_budget_is_met(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    report = fewbits.compress(net, tmp_path / "n.fewbits", budget=6000, method="qswd")
    assert 5400 <= report.size <= 6000
    with pytest.raises(InvalidArgument, match="cannot be met"):
        fewbits.compress(net, tmp_path / "n.fewbits", budget=60, method="qswd")


def test_covariances_put_the_error_where_it_hurts_less(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    net = nn.Linear(48, 64, bias=False)
    inputs = torch.randn(500, 48, generator=generator) * torch.logspace(-1, 1, 48)
    mixed = inputs @ torch.randn(48, 48, generator=generator)
    outputs = net(mixed)

    @torch.no_grad()
    def error(**given: dict[str, Tensor]) -> float:
        fewbits.compress(net, tmp_path / "n.fewbits", bits=2.0, method="qswd", **given)
        other = fewbits.load(tmp_path / "n.fewbits", into=nn.Linear(48, 64, bias=False))
        return float((other(mixed) - outputs).square().mean())

    assert error(statistics={"weight": mixed.T @ mixed}) < 0.5 * error()


def test_covariances_of_few_examples_with_one_input_that_drowns_the_others(tmp_path: Path) -> None:
    # As transformers have them: their other entries, rounded beside the greatest, leave no positive form by themselves.
    generator = torch.Generator().manual_seed(5)
    net = nn.Linear(96, 64, bias=False)
    inputs = torch.randn(40, 96, generator=generator)
    inputs[:, 7] *= 300
    inputs[:, 11] = 0
    outputs = net(inputs)

    @torch.no_grad()
    def error(**given: dict[str, Tensor]) -> float:
        fewbits.compress(net, tmp_path / "n.fewbits", bits=2.0, method="qswd", **given)
        other = fewbits.load(tmp_path / "n.fewbits", into=nn.Linear(96, 64, bias=False))
        assert float((other.weight - net.weight).square().sum()) < float(net.weight.square().sum())
        return float((other(inputs) - outputs).square().mean())

    assert error(statistics={"weight": inputs.T @ inputs}) < 0.3 * error()


def test_covariances_are_checked(tmp_path: Path) -> None:
    net = nn.Linear(48, 64, bias=False)
    indefinite = torch.eye(48)
    indefinite[0, 1] = indefinite[1, 0] = 1.5
    for wrong in (torch.eye(47), torch.full((48, 48), torch.nan), indefinite, -torch.eye(48)):
        with pytest.raises(InvalidArgument, match="covariance"):
            fewbits.compress(net, tmp_path / "n", bits=2.0, method="qswd", statistics={"weight": wrong})
    with pytest.raises(InvalidArgument, match="no use for"):
        fewbits.compress(net, tmp_path / "n", bits=2.0, statistics={"weight": torch.eye(48)})
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("method", ["epr", "nothing", "", 3])
def test_compress_knows_methods_that_need_no_training(method: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="method must be one of ecsq, qswd"):
        fewbits.compress(nn.Linear(4, 4), tmp_path / "n", bits=2.0, method=method)  # pyright: ignore
    with pytest.raises(InvalidArgument, match="keeps every bit"):
        fewbits.compress(nn.Linear(4, 4), tmp_path / "n", lossless=True, method="qswd")


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "pca"},
        {"tilings": [["sides", 4]]},
        {"tilings": [["rows", 0]]},
        {"tilings": [["rows"]]},
        {"ranks": [0]},
        {"ranks": [True]},
        {"turns": 0},
        {"turns": 1.5},
    ],
)
def test_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="QswdConfig"):
        QswdConfig(**settings)  # pyright: ignore


# ---- payloads


def payload(**changed: object) -> bytes:
    factors = Factors(
        Tiling("rows", 2), 0.5, np.array([[1, -2, 3], [0, 4, 5]]), np.array([0, 1, 2]), np.ones((3, 8), np.int64)
    )
    return write([coded(factors._replace(**changed), 4, 4)])


SPEC = TensorSpec("weight", "float32", (4, 4))


def test_payloads_come_back() -> None:
    (factors,) = read(payload(), [SPEC])
    assert factors.values(4, 4).tolist() == [[0.5 * (1 - 4 + 12)] * 4, [0.5 * (8 + 20)] * 4] * 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exponents": np.array([0, 31, 0])}, "exponent"),
        ({"exponents": np.array([0, -1, 0])}, "exponent"),
        ({"coefficients": np.full((3, 8), 1 << 25), "exponents": np.full(3, 30)}, "not exact"),
        ({"one_hot": True, "coefficients": np.array([0, 1, 2, 3] * 2)}, "no column"),
        ({"one_hot": True, "coefficients": np.array([0, 1, 2, -1] * 2)}, "no column"),
        ({"step": 0.0}, "step"),
        ({"step": float("inf")}, "step"),
    ],
)
def test_payloads_that_break_a_rule_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        read(payload(**changed), [SPEC])


def test_ranks_and_flags_that_cannot_be_are_refused() -> None:
    good = payload()
    for place, value, message in (
        (0, 4, "flags"),
        (2, 0, "rank"),
        (2, 5, "rank"),
        (1, 0, "do not divide"),
        (1, 3, "do not divide"),
    ):
        wrong = bytearray(good)
        wrong[place] = value
        with pytest.raises(Corrupt, match=message):
            read(bytes(wrong), [SPEC])


def test_a_product_that_is_not_finite_is_refused() -> None:
    spec = TensorSpec("weight", "float16", (4, 4))
    chunk = Chunk("qswd", 1, {}, 0, (spec,), payload(step=1e5))
    with pytest.raises(Corrupt, match="not finite"):
        Qswd().decode(chunk)
    with pytest.raises(Corrupt, match="dtype int8"):
        Qswd().decode(chunk._replace(tensors=(spec._replace(dtype="int8"),)))
    with pytest.raises(Corrupt, match="whole rows"):
        Qswd().decode(chunk._replace(tensors=(spec,), span=(0, 6)))
