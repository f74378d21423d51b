"""EPR with every decoder and rate, the average that is written, and which parameter is what."""

import pytest
import torch
from torch import Tensor

from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.method import Source
from fewbits.methods.epr import RATES, Epr, EprConfig

GRID = {"kind": "grid", "size": [4, 5], "image": [10, 10], "margin": 1}


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in dtype, shape and value."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def kernels() -> dict[str, Tensor]:
    """A small network of kernels and images."""
    generator = torch.Generator().manual_seed(3)
    return {
        "conv.weight": 0.1 * torch.randn(8, 4, 3, 3, generator=generator),
        "conv.bias": 0.1 * torch.randn(8, generator=generator),
        "even.weight": 0.1 * torch.randn(6, 8, 2, 4, generator=generator),
        "half.weight": (0.1 * torch.randn(4, 6, 5, 5, generator=generator)).half(),
        "images": 0.1 * torch.randn(7, 100, generator=generator),
        "brain": (0.1 * torch.randn(7, 100, generator=generator)).bfloat16(),
    }


DECODERS = {"*.weight": "dft", "images": GRID, "brain": GRID | {"size": [10, 10], "margin": 0}}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("decoders", [{}, DECODERS, DECODERS | {"*.weight": "matrix"}], ids=["scalar", "dft", "matrix"])
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_with_any_decoder_and_rate_what_is_trained_is_what_decoding_gives(
    rate: str, decoders: dict[str, object], average: float
) -> None:
    config = EprConfig(rate=rate, decoders=decoders, first_steps={"*": 0.05}, average=average, refresh=2)
    torch.manual_seed(0)
    latents = Epr(config).represent(Source(kernels()), rate_weight=1.0, seed=0).train()
    optimizer = torch.optim.Adam(latents.parameters(), lr=1e-2)
    bits = []
    for _ in range(12):
        draw = latents()
        task = sum((draw.values[name].float() - tensor.float()).square().sum() for name, tensor in kernels().items())
        optimizer.zero_grad()
        (task + 1e-3 * draw.bits).backward()
        for name, parameter in latents.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        optimizer.step()
        latents.update()
        bits.append(float(draw.bits.detach()))
    assert bits[-1] < bits[0]
    draw = latents.eval()()
    chunks = list(latents.chunks())
    assert float(draw.bits) == 8 * sum(len(chunk.payload) for chunk in chunks)
    decoded = decode(chunks)
    for name, value in draw.values.items():
        assert same(decoded[name], value), name
    for name, tensor in kernels().items():
        if not isinstance(decoders.get(name), dict):  # a grid is coarser than its images
            assert float((decoded[name].float() - tensor.float()).abs().max()) < 0.2, name


def test_kernels_and_images_of_full_grids_come_back_at_fine_steps() -> None:
    config = EprConfig(decoders={"*.weight": "dft"}, first_steps={"*": 1e-4})
    decoded = decode(Epr(config).encode(Source(kernels()), rate_weight=1.0, seed=0))
    for name, tensor in kernels().items():
        step = 1e-3 if tensor.itemsize > 2 else 5e-3
        torch.testing.assert_close(decoded[name], tensor, rtol=0, atol=step)


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        ("dft", "conv.bias"),
        ("matrix", "images"),
        (GRID, "conv.bias"),
        (GRID, "conv.weight"),
        (GRID | {"image": [9, 9]}, "images"),
    ],
    ids=str,
)
def test_a_decoder_that_is_not_for_its_tensor_is_refused(decoder: object, name: str) -> None:
    with pytest.raises(InvalidArgument, match=name):
        Epr(EprConfig(decoders={name: decoder})).represent(Source(kernels()), rate_weight=1.0, seed=0)


@pytest.mark.parametrize("decoder", ["dft", "matrix"])
def test_kernels_too_large_for_a_basis_are_refused(decoder: str) -> None:
    with pytest.raises(InvalidArgument, match="'w'"):
        Epr(EprConfig(decoders={"w": decoder})).represent(
            Source({"w": torch.ones(1, 1, 33, 32)}), rate_weight=1.0, seed=0
        )


def test_of_several_patterns_the_first_counts() -> None:
    config = EprConfig(decoders={"conv.*": "matrix", "*.weight": "dft"}, first_steps={"even*": 0.5, "*": 0.01})
    source = Source({name: tensor for name, tensor in kernels().items() if name.endswith(".weight")})
    one, two, _ = Epr(config).represent(source, rate_weight=1.0, seed=0).latent_tensors()
    assert (one.choice.kind, two.choice.kind) == ("matrix", "dft")
    assert one.exact_step() == pytest.approx(0.01, rel=0.03) and two.exact_step() == pytest.approx(0.5, rel=0.03)


def test_what_is_written_is_the_latents_average() -> None:
    def after(average: float, updates: int) -> tuple[Tensor, Tensor]:
        config = EprConfig(average=average, first_steps={"*": 1.0})
        latents = Epr(config).represent(Source({"w": torch.zeros(3)}), rate_weight=1.0, seed=0).train()
        for step in range(updates):
            with torch.no_grad():
                latents.get_parameter("tensors.0.latents").fill_(10.0 * (step + 1))
            latents.update()
        return latents.eval()().values["w"], latents.train()().values["w"].detach()

    for updates in (1, 20):
        exact, relaxed = after(0.0, updates)
        assert torch.equal(exact, relaxed) and float(exact[0]) == 10.0 * updates
    exact, relaxed = after(0.9, 20)
    # The n-th step counts for 9 / (n + 10) at least, for a tenth in the end.
    mean, latents = 0.0, [10.0 * (step + 1) for step in range(20)]
    for step, value in enumerate(latents, 1):
        decay = min(0.9, (step + 1) / (step + 10))
        mean = decay * mean + (1 - decay) * value
    assert float(relaxed[0]) == 200 and float(exact[0]) == round(mean) < 185
    assert torch.equal(*after(0.9, 0))  # before any step there is no average to write


def test_parameters_are_latents_decoders_or_densities() -> None:
    config = EprConfig(rate="deep_factorized", decoders={"*.weight": "matrix"})
    latents = Epr(config).represent(Source(kernels()), rate_weight=1.0, seed=0)
    kinds = {name.split(".", 2)[2]: latents.parameter_kind(name) for name, _ in latents.named_parameters()}
    assert {kinds[name] for name in ("log_step", "matrix")} == {"decoders"} and kinds["latents"] == "latents"
    assert {kind for name, kind in kinds.items() if name.startswith("density.")} == {"densities"}


def test_the_adaptive_rate_counts_anew_every_refresh_steps() -> None:
    config = EprConfig(first_steps={"*": 1.0}, refresh=3)
    latents = Epr(config).represent(Source({"w": torch.ones(40)}), rate_weight=1.0, seed=0).train()
    totals = []
    for _ in range(7):
        with torch.no_grad():
            latents.get_parameter("tensors.0.latents")[:30] = 0
        latents.update()
        totals.append(float(latents().bits.detach()))
    assert len(set(totals)) == 1  # counted at the first update, when most were 0 already
    with torch.no_grad():
        latents.get_parameter("tensors.0.latents").fill_(3)
    seen = []
    for _ in range(3):
        latents.update()
        seen.append(float(latents().bits.detach()))
    assert seen[0] == seen[1] != seen[2]
