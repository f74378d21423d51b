"""EPR: its Laplace density, its config, and the laws of its representation."""

import copy
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewbits.chunk import Chunk
from fewbits.coder.leb128 import read_sint, write_sint
from fewbits.encode import decode
from fewbits.errors import Corrupt, Incompatible, InvalidArgument
from fewbits.method import Source
from fewbits.methods.epr import Epr, EprConfig, EprRepresentation
from fewbits.models.laplace import Laplace
from fewbits.quantize.noise import add_uniform_noise, straight_through_round
from fewbits.quantize.parameter_decoders import MOST_CODE

FAR = torch.tensor(1e9)


def tensors() -> dict[str, Tensor]:
    """Every kind of tensor a source may hold: one of each dtype that has latents, one large, some that stay exact."""
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": 0.1 * torch.randn(60, 100, generator=generator),
        "zeros": torch.zeros(300),
        "large": 0.05 * torch.randn(100, 784, generator=generator),
        "half": torch.tensor([65504.0, -65504, 1, 2], dtype=torch.float16),
        "brain": torch.randn(5, generator=generator).to(torch.bfloat16),
        "double": 1e-30 * torch.randn(7, generator=generator, dtype=torch.float64),
        "far": torch.tensor([3e38, -1.0]),
        "scalar": torch.tensor(3.5),
        "nan": torch.tensor([1.0, math.nan]),
        "beyond": torch.tensor([3.4e38, 1.0]),
        "integers": torch.arange(5),
        "empty": torch.zeros(0, 3),
        "eight": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        "strided": torch.randn(20, 30, generator=generator).T,
    }


def represented(rate_weight: float = 1.0, seed: int = 0) -> EprRepresentation:
    return Epr().represent(Source(tensors()), rate_weight=rate_weight, seed=seed)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in dtype, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))


# the density


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0, 1e4])
def test_laplace_bits_are_those_of_the_distribution_function(scale: float) -> None:
    density = Laplace(scale).double()
    b = density.log_scale.detach().exp() + 0.05
    values = torch.linspace(-4, 4, 101, dtype=torch.float64)

    def distribution(x: Tensor) -> Tensor:
        return torch.where(x < 0, 0.5 * torch.exp(-x.abs() / b), 1 - 0.5 * torch.exp(-x.abs() / b))

    expected = -torch.log2(distribution(values + 0.5) - distribution(values - 0.5))
    torch.testing.assert_close(density.bits(values).detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("log_scale", [-100.0, -3.0, 0.0, 10.0, 1e4])
def test_laplace_bits_and_gradients_are_finite_at_the_edges(log_scale: float) -> None:
    density = Laplace(1.0)
    with torch.no_grad():
        density.log_scale.fill_(log_scale)
    edges = [0.0, -0.0, 0.5, -0.5, 1.5, 1e-45, 0.49999997, 0.50000006, 1e6, -1e6, 1e20, 3e38, -3e38]
    values = torch.tensor(edges, requires_grad=True)
    bits = density.bits(values)
    assert bool((bits >= 0).all())
    for bit in bits:
        gradients = torch.autograd.grad(bit, [values, density.log_scale], retain_graph=True)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_laplace_gradient_is_the_derivative_on_both_sides_of_one_half() -> None:
    values = torch.tensor([-1.2, -0.5001, 0.1, 0.4999, 0.5001, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Laplace(0.7).double().bits, (values,))


def test_straight_through_rounding_gives_integers_and_passes_gradients() -> None:
    values = torch.tensor([0.5, 1.5, -0.5, 2.3, 1e12], requires_grad=True)
    rounded = straight_through_round(values, FAR)
    assert rounded.tolist() == [0, 2, 0, 2, 1e9]
    rounded.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [1, 1, 1, 1, 1]


def test_noise_stays_within_half_a_step() -> None:
    noise = add_uniform_noise(torch.zeros(1000))
    assert float(noise.abs().max()) <= 0.5 and float(noise.std()) == pytest.approx(12**-0.5, rel=0.1)


# the config


GRID = {"kind": "grid", "size": [4, 5], "image": [10, 10], "margin": 1}


def test_config_goes_through_json() -> None:
    configs = (
        EprConfig(step_factor=2.5, zero_step=0.01),
        EprConfig(rate="laplace", average=0.0, refresh=1),
        EprConfig(decoders={"conv*": "dft", "weight": GRID}, first_steps={"*.bias": 0.1, "*": 2}),
    )
    for config in configs:
        written = json.loads(json.dumps(config.to_json()))
        assert EprConfig.from_json(written) == config
        assert Epr.from_config(written).config == config


@pytest.mark.parametrize(
    "values",
    [
        {"step_factor": 0},
        {"zero_step": math.inf},
        {"step_factor": True},
        {"zero_step": "1"},
        {"step": 1},
        {"rate": "gaussian"},
        {"first_steps": {"*": 0.0}},
        {"first_steps": {"*": math.nan}},
        {"first_steps": {"*": "fine"}},
        {"average": 1.0},
        {"average": -0.1},
        {"average": math.nan},
        {"average": True},
        {"rounding": "hard"},
        {"sharpness": 0.5},
        {"sharpness": math.inf},
        {"sharpness_steps": 0},
        {"refresh": 0},
        {"refresh": 1.5},
        {"refresh": True},
        {"decoders": {"*": "wavelet"}},
        {"decoders": {"*": {"kind": "dft", "size": [3, 3]}}},
        {"decoders": {"*": {"kind": "grid"}}},
        {"decoders": {"*": {"size": [2, 2], "image": [4, 4]}}},
        {"decoders": {"*": GRID | {"size": [4]}}},
        {"decoders": {"*": GRID | {"size": [11, 5]}}},
        {"decoders": {"*": GRID | {"size": [0, 5]}}},
        {"decoders": {"*": GRID | {"image": [256, 10]}}},
        {"decoders": {"*": GRID | {"size": [65, 1], "image": [255, 10]}}},
        {"decoders": {"*": GRID | {"margin": 5}}},
        {"decoders": {"*": GRID | {"margin": -1}}},
        {"decoders": {"*": GRID | {"kernel": 3}}},
    ],
    ids=str,
)
def test_config_refuses_what_is_not_a_setting(values: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        EprConfig.from_json(values)


@pytest.mark.parametrize("rate_weight", [-1.0, math.nan, math.inf])
def test_rate_weight_must_be_a_finite_number(rate_weight: float) -> None:
    with pytest.raises(InvalidArgument, match="rate_weight"):
        represented(rate_weight)


# the laws


def test_values_have_the_names_shapes_and_dtypes_of_the_source() -> None:
    for training in (True, False):
        values = represented().train(training)().values
        assert list(values) == list(tensors())
        assert all(values[n].dtype == t.dtype and values[n].shape == t.shape for n, t in tensors().items())


@pytest.mark.parametrize("rate_weight", [0.0, 1e-3, 1.0, 1e9])
def test_what_is_committed_is_what_decoding_gives(rate_weight: float) -> None:
    latents = represented(rate_weight)
    before = latents.eval()().values
    for step in latents.steps:
        latents.commit(step)
    committed = latents.train()().values
    decoded = decode(latents.chunks())
    for name in tensors():
        assert same(decoded[name], before[name]) and same(decoded[name], committed[name]), name


def test_a_committed_tensor_no_longer_moves_and_the_others_do() -> None:
    latents = represented().train()
    latents.commit("weight")
    first = latents().values
    with torch.no_grad():
        for parameter in latents.parameters():
            parameter.add_(3)
    second = latents().values
    assert same(first["weight"], second["weight"])
    assert not same(first["large"], second["large"])


def test_committing_an_unknown_step_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'nan'"):
        represented().commit("nan")


@pytest.mark.parametrize("rate_weight", [0.0, 1e-2, 1.0, 30.0, 1e9])
def test_bits_in_eval_are_the_bytes_written(rate_weight: float) -> None:
    latents = represented(rate_weight).eval()
    bits = float(latents().bits)
    sizes = {"epr": 0, "lossless": 0}
    for chunk in latents.chunks():
        sizes[chunk.method] += len(chunk.payload)
    # What has latents is really encoded; what is kept exactly is foretold.
    assert abs(bits / 8 - sizes["epr"] - sizes["lossless"]) <= 0.01 * sizes["lossless"] + 16
    of_latents = {name: tensor for name, tensor in tensors().items() if name in latents.steps}
    alone = Epr().represent(Source(of_latents), rate_weight=rate_weight, seed=0).eval()
    assert float(alone().bits) == 8 * sum(len(chunk.payload) for chunk in alone.chunks())


def test_relaxed_values_are_the_decoded_ones_but_for_the_rounding_of_their_step() -> None:
    latents = represented()
    relaxed, exact = latents.train()().values, latents.eval()().values
    for name in latents.steps:  # a step of a file is one of sixteen to an octave
        one, other = relaxed[name].double(), exact[name].double()
        assert bool(((one - other).abs() <= (2 ** (1 / 32) - 1 + 0.005) * other.abs()).all()), name
    for tensor in latents.latent_tensors():
        tensor.settle()
    relaxed, settled = latents.train()().values, latents.eval()().values
    for name in latents.steps:
        assert same(settled[name], exact[name]), name
        torch.testing.assert_close(relaxed[name], exact[name], rtol=1e-5 if exact[name].itemsize > 2 else 0.01, atol=0)


@pytest.mark.parametrize("scale", [1e-33, 1e-30, 1e-20, 1.0, 1e20, 1e30, 6e37])
def test_untrained_values_come_back_whatever_their_scale(scale: float) -> None:
    values = scale * torch.linspace(-5, 5, 50)
    for dtype in (torch.float32, torch.float64):
        config = EprConfig(first_steps={"*": scale / 100})
        chunks = Epr(config).encode(Source({"w": values.to(dtype)}), rate_weight=1.0, seed=0)
        torch.testing.assert_close(decode(chunks)["w"], values.to(dtype), rtol=1e-5, atol=0.0053 * scale)


def test_gradients_reach_every_parameter_and_are_finite() -> None:
    latents = represented().train()
    with torch.no_grad():  # edges: 0, half-integers, huge
        latents.get_parameter("tensors.0.latents")[0, :6] = torch.tensor([0.0, -0.0, 0.5, -1.5, 1e30, -1e30])
    draw = latents()
    task = sum(value.double().clamp(-1, 1).square().sum() for value in draw.values.values() if value.requires_grad)
    (draw.bits + task).backward()
    for name, parameter in latents.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_same_seed_gives_the_same_bytes() -> None:
    one, two = ([*represented(seed=7).chunks()] for _ in range(2))
    assert one == two


def test_units_encoded_apart_give_the_same_chunks() -> None:
    method, source = Epr(), Source(tensors())
    whole = list(method.encode(source, rate_weight=1.0, seed=0))

    def apart() -> Iterator[Chunk]:
        for unit in method.units([spec for chunk in whole for spec in chunk.tensors]):
            part = {spec.name: source.tensors[spec.name] for spec in unit}
            yield from method.encode(Source(part, num_weights=source.rate_divisor), rate_weight=1.0, seed=0)

    assert sorted(chunk.payload for chunk in apart()) == sorted(chunk.payload for chunk in whole)


def test_source_is_untouched() -> None:
    source = tensors()
    latents = Epr().represent(Source(source), rate_weight=1.0, seed=0)
    latents().bits.backward()
    list(latents.chunks())
    assert all(same(source[name], tensor) for name, tensor in tensors().items())


def test_large_tensors_are_tiled_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewbits.plan.TILE", 1 << 14)
    monkeypatch.setattr("fewbits.plan.NETWORK", 1 << 14)
    monkeypatch.setattr("fewbits.methods.epr.payload.LEAST_WIDE_BITS", 1 << 13)
    latents = represented(0.1).eval()
    draw = latents()
    chunks = [*latents.chunks()]
    assert sum(chunk.span is not None for chunk in chunks) == 5
    assert same(decode(chunks)["large"], draw.values["large"])
    size = sum(len(chunk.payload) for chunk in chunks)
    assert abs(float(draw.bits) / 8 - size) <= 0.01 * size + 16


def test_survey_foretells_the_size_and_falls_with_the_rate_weight() -> None:
    survey = Epr().survey(Source(tensors()))
    rates = [survey.bits(rate_weight) for rate_weight in (1e-4, 1e-2, 1.0, 100.0)]
    assert rates == sorted(rates, reverse=True)
    assert float(represented(1e-2).eval()().bits) == pytest.approx(rates[1], rel=0.03)


def test_kept_tensors_say_why() -> None:
    notes = {s.name: loss.note for c in represented().chunks() for s, loss in zip(c.tensors, c.losses, strict=True)}
    assert "NaN" in notes["nan"] and "range" in notes["beyond"] and "float8" in notes["eight"]
    assert notes["weight"] == notes["integers"] == ""


def test_latents_that_are_not_numbers_are_refused() -> None:
    latents = represented()
    with torch.no_grad():
        latents.get_parameter("tensors.0.latents")[0, 0] = math.nan
    with pytest.raises(InvalidArgument, match="'weight'"):
        latents.commit("weight")


def test_a_copy_commits_alone() -> None:
    latents = represented()
    list(copy.deepcopy(latents).chunks())
    assert latents.train()().bits.requires_grad


@pytest.mark.parametrize("code", [MOST_CODE + 1, -MOST_CODE - 1, 2**62])
def test_steps_out_of_range_are_refused(code: int) -> None:
    chunk = next(Epr().encode(Source({"w": torch.arange(10.0)}), rate_weight=1.0, seed=0))
    _, after = read_sint(chunk.payload, 2)
    with pytest.raises(Corrupt, match="'w'"):
        Epr().decode(chunk._replace(payload=chunk.payload[:2] + write_sint(code) + chunk.payload[after:]))


def test_other_dtypes_and_values_beyond_the_dtype_are_refused() -> None:
    chunk = next(Epr().encode(Source({"w": torch.arange(10.0)}), rate_weight=1.0, seed=0))
    spec = chunk.tensors[0]
    with pytest.raises(Corrupt, match="int32"):
        Epr().decode(chunk._replace(tensors=(spec._replace(dtype="int32"),)))
    _, after = read_sint(chunk.payload, 2)
    wide = chunk._replace(payload=chunk.payload[:2] + write_sint(400) + chunk.payload[after:])
    assert bool(Epr().decode(wide)["w"].isfinite().all())
    with pytest.raises(Corrupt, match="not finite"):
        Epr().decode(wide._replace(tensors=(spec._replace(dtype="float16"),)))


@pytest.mark.parametrize("version", [1, 3])
def test_another_payload_version_is_incompatible(version: int) -> None:
    chunk = next(Epr().encode(Source({"w": torch.arange(10.0)}), rate_weight=1.0, seed=0))
    with pytest.raises(Incompatible):
        Epr().decode(chunk._replace(payload_version=version))


def test_every_flipped_bit_and_truncation_is_refused_or_decodes_in_shape() -> None:
    chunk = next(Epr().encode(Source({"w": torch.arange(40.0) - 20}), rate_weight=1.0, seed=0))
    payloads = [chunk.payload[:size] for size in range(len(chunk.payload))]
    for place, bit in product(range(len(chunk.payload)), range(8)):
        payload = bytearray(chunk.payload)
        payload[place] ^= 1 << bit
        payloads.append(bytes(payload))
    for payload in payloads:
        try:
            decoded = decode([chunk._replace(payload=payload)])
        except Corrupt:
            continue
        assert decoded["w"].shape == (40,) and bool(decoded["w"].isfinite().all())


def test_training_lowers_the_rate_while_the_fit_stays() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(256, 32)
    target = inputs[:, :2] @ torch.tensor([[1.0], [-2.0]])
    start = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    latents = Epr().represent(Source({"weight": start}), rate_weight=0.02, seed=0)
    before = float(latents.eval()().bits)
    optimizer = torch.optim.Adam(latents.train().parameters(), lr=5e-2)
    for _ in range(400):
        draw = latents()
        error = (inputs @ draw.values["weight"].T - target).square().mean()
        optimizer.zero_grad()
        (error + latents.rate_weight * draw.bits / latents.num_weights).backward()
        optimizer.step()
    draw = latents.eval()()
    error = float((inputs @ draw.values["weight"].T - target).square().mean())
    assert float(draw.bits) < 0.8 * before
    assert error < 0.05 * float(target.square().mean())


@pytest.mark.slow
def test_lenet_300_100_trains_to_a_small_file(repository: Path, data_folder: Path, tmp_path: Path) -> None:
    """A short run of the recipe; the full one is several times longer."""
    file = tmp_path / "lenet300.fewbits"
    train = [
        sys.executable,
        repository / "recipes" / "epr" / "train.py",
        "lenet300",
        "--data",
        data_folder,
        "--out",
        file,
    ]
    run = subprocess.run([*train, "--set", "steps=1500"], capture_output=True, text=True, check=True)
    last = json.loads(run.stdout.splitlines()[-1])
    evaluate = [sys.executable, repository / "recipes" / "evaluate.py", file, "--data", data_folder, "--json"]
    found = json.loads(subprocess.run(evaluate, capture_output=True, text=True, check=True).stdout)
    assert found["bytes"] == last["bytes"] == file.stat().st_size < 3500
    assert found["test_error_percent"] < 4.5
