"""The fused training step of latents gives what the simple one gives."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import fewbits
from fewbits.errors import InvalidArgument
from fewbits.method import Source
from fewbits.methods.epr import Epr, EprConfig
from fewbits.methods.epr.representation import EprRepresentation
from fewbits.native import core
from fewbits.nn.latent_rounding import LatentRounding
from fewbits.nn.relaxed import relaxed

pytestmark = pytest.mark.skipif(core() is None, reason="there is no compiled core")

PLAIN = LatentRounding("straight_through", 10.0, 1)
GRID = {"kind": "grid", "size": [3, 4], "image": [6, 6], "margin": 1}
SHAPES = {"kernels": (3, 2, 5, 5), "mixed": (4, 3, 3, 3), "pixels": (5, 36), "row": (1, 7), "bias": (11,), "one": ()}


def represented(scale: float = 3.0, dtype: torch.dtype = torch.float32, **shapes: tuple[int, ...]) -> EprRepresentation:
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: (scale * torch.randn(shape, generator=generator)).to(dtype) for name, shape in (shapes or SHAPES).items()
    }
    decoders = {"kernels": "dft", "mixed": "matrix", "pixels": GRID}
    config = EprConfig(first_steps={"*": 1.0}, decoders={name: decoders[name] for name in tensors if name in decoders})
    latents = Epr(config).represent(Source(tensors), rate_weight=1.0, seed=0)
    assert isinstance(latents, EprRepresentation)
    return latents.train()


def step_of(latents: EprRepresentation, monkeypatch: pytest.MonkeyPatch, isa: str) -> dict[str, Tensor]:
    """Values, bits and all gradients of a loss that weighs every value differently."""
    monkeypatch.setenv("FEWBITS_ISA", isa)
    latents.zero_grad()
    held = latents.latent_tensors()
    values, bits = relaxed(held, PLAIN)
    generator = torch.Generator().manual_seed(4)
    loss = sum(((each.float() * torch.randn(each.shape, generator=generator)).sum() for each in values), 0.01 * bits)
    assert isinstance(loss, Tensor)
    loss.backward()
    found = {f"value of {one.spec.name}": each.detach() for one, each in zip(held, values, strict=True)}
    gradients = {name: parameter.grad for name, parameter in latents.named_parameters() if parameter.grad is not None}
    return found | gradients | {"bits": bits.detach()}


def compare(latents: EprRepresentation, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, simple = step_of(latents, monkeypatch, ""), step_of(latents, monkeypatch, "numpy")
    assert set(fused) == set(simple)
    for name, one in fused.items():
        exact = name.startswith("value of")
        rtol = 0 if exact else 2e-5
        atol = 0 if exact else 2e-6 * float(simple[name].abs().nan_to_num().max())
        torch.testing.assert_close(
            one, simple[name], rtol=rtol, atol=atol, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 1e4, 1e7, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_both_give_the_same_values_bits_and_gradients(
    scale: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.float16 and scale > 1e4:
        scale = 1e4
    compare(represented(scale, dtype), monkeypatch)


def test_halves_zeros_and_numbers_beyond_what_a_level_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [
        0.0,
        -0.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.49999997,
        0.99999994,
        -1.0,
        8388607.5,
        8388608.0,
        -16777217.0,
        3e38,
    ]
    latents = represented(edge=(len(edges),), matrix=(2, len(edges)))
    with torch.no_grad():
        for one in latents.latent_tensors():
            one.latents.copy_(torch.tensor(edges).expand_as(one.latents))
    compare(latents, monkeypatch)
    values, _ = relaxed(latents.latent_tensors(), PLAIN)
    assert values[0][2:6].tolist() == [0.0, -0.0, 2.0, 2.0]


@pytest.mark.parametrize("log_step", [-100.0, -86.0, 86.0, 100.0])
def test_steps_at_the_ends_of_their_range(log_step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = represented(1.0, matrix=(3, 5))
    with torch.no_grad():
        latents.latent_tensors()[0].log_step.fill_(log_step)
    compare(latents, monkeypatch)


def test_what_is_not_a_number_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = represented(matrix=(3, 5), other=(2, 2))
    with torch.no_grad():
        latents.latent_tensors()[0].latents[1, 2] = math.nan
    values, bits = relaxed(latents.latent_tensors(), PLAIN)
    assert int(values[0].isnan().sum()) == 1 and bool(values[0][1, 2].isnan()) and bool(bits.isnan())
    with torch.no_grad():
        latents.latent_tensors()[1].log_step.fill_(math.nan)
    values, _ = relaxed(latents.latent_tensors(), PLAIN)
    assert bool(values[1].isnan().all())


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, before = represented(0.8, matrix=(1000, 431)), torch.get_num_threads()
    found: list[dict[str, Any]] = []
    try:
        for num_threads in (1, 2, 5):
            torch.set_num_threads(num_threads)
            found.append(step_of(latents, monkeypatch, ""))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in found[0])
    compare(latents, monkeypatch)


def test_a_value_that_nothing_reads_costs_its_bits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in ("", "numpy"):
        monkeypatch.setenv("FEWBITS_ISA", isa)
        latents = represented(matrix=(3, 5), other=(2, 2))
        values, bits = relaxed(latents.latent_tensors(), PLAIN)
        (values[0].sum() + 0 * bits).backward()
        first, second = latents.latent_tensors()
        torch.testing.assert_close(first.latents.grad, torch.ones(3, 5), rtol=1e-6, atol=0)
        assert second.latents.grad is not None and not second.latents.grad.any()


def test_learned_densities_take_the_simple_way() -> None:
    network = torch.nn.Linear(4, 3)
    latents = fewbits.attach(network, Epr(EprConfig(rate="laplace")), rate_weight=1.0)
    network(torch.ones(2, 4)).sum().backward()
    assert float(latents.bits().detach()) > 0


def test_the_core_refuses_arrays_of_different_sizes() -> None:
    native = core()
    assert native is not None
    long, short = torch.zeros(5).numpy(), torch.zeros(4).numpy()
    for place in range(1, 4):
        arrays = [long, long, long, long]
        arrays[place] = short
        with pytest.raises(InvalidArgument, match="differ in size"):
            native.relax(arrays[0], arrays[1], 1.0, 1.0, 10.0, 1, arrays[2], arrays[3])
        with pytest.raises(InvalidArgument, match="differ in size"):
            native.relax_backward(arrays[0], arrays[1], arrays[2], 1.0, 1.0, 1, arrays[3])
