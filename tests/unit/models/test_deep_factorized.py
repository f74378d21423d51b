"""The deep factorised density: a density at all, at the edges too, and able to learn what it is shown."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fewbits.models.deep_factorized import DeepFactorized

INTEGERS = torch.arange(-3000, 3001, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def moved(channels: int, seed: int, **settings: float) -> DeepFactorized:
    """A model with any parameters, in float64."""
    model = DeepFactorized(channels, **settings).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def masses(model: DeepFactorized, channels: int) -> Tensor:
    return torch.exp2(-model.bits(INTEGERS[:, None].expand(-1, channels))).detach()


@pytest.mark.parametrize("scale", [0.5, 10.0, 100.0])
def test_probabilities_of_all_integers_sum_to_1_at_first(scale: float) -> None:
    sums = masses(DeepFactorized(4, scale=scale).double(), 4).sum(0)
    torch.testing.assert_close(sums, torch.ones(4, dtype=torch.float64), rtol=1e-4, atol=0)


@given(st.integers(0, 2**31))
def test_probabilities_of_all_integers_sum_to_1_with_any_parameters(seed: int) -> None:
    # Beyond the integers asked is what a slow tail may have, and the least mass adds next to nothing.
    sums = masses(moved(3, seed), 3).sum(0)
    assert bool((sums < 1 + 1e-4).all()) and bool((sums > 0.95).all())


@given(st.integers(0, 2**31), st.floats(-1e9, 1e9))
def test_bits_are_at_least_0_and_do_not_leave_the_floats(seed: int, value: float) -> None:
    for model in (moved(2, seed), moved(2, seed).float()):
        bits = model.bits(torch.tensor([[value, -value], [0.0, value / 1e6]], dtype=model.matrices[0].dtype))
        assert bits.shape == (2, 2) and bool((bits >= 0).all()) and bool(bits.isfinite().all())


def test_a_probability_is_a_difference_of_the_distribution_function() -> None:
    model = moved(2, 1)
    values = torch.linspace(-6, 6, 49, dtype=torch.float64)[:, None].expand(-1, 2)

    def distribution(x: Tensor) -> Tensor:
        return torch.sigmoid(model._logits(x.T.unsqueeze(1)).squeeze(1).T)

    mass = distribution(values + 0.5) - distribution(values - 0.5)
    torch.testing.assert_close(torch.exp2(-model.bits(values)), mass, rtol=1e-6, atol=1e-8)


def test_channels_have_densities_of_their_own_and_shapes_stay() -> None:
    model = moved(5, 2)
    values = 3 * torch.randn(2, 3, 5, dtype=torch.float64)
    bits = model.bits(values)
    assert bits.shape == values.shape
    for channel in range(5):
        alone = model.bits(torch.where(torch.arange(5) == channel, values, 0.0))
        torch.testing.assert_close(alone[..., channel], bits[..., channel])
    assert not torch.allclose(bits[..., 0], model.bits(values.roll(1, -1))[..., 1])


def test_one_channel_takes_any_shape() -> None:
    model = DeepFactorized()
    values = torch.randn(4, 3, 2)
    expected = torch.stack([model.bits(value.reshape(1)) for value in values.reshape(-1)]).reshape(4, 3, 2)
    torch.testing.assert_close(model.bits(values), expected)
    torch.testing.assert_close(model.total_bits(values), model.bits(values).sum())
    assert model.bits(torch.zeros(())).shape == () and model.bits(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("scale", [0.1, 10.0, 1e4])
def test_gradients_are_finite_at_the_edges(scale: float) -> None:
    edges = [0.0, -0.0, 0.5, -0.5, 1e-45, 30.0, -300.0, 1e5, -1e6, 1e7, -1e20, 3e38, -3e38]
    model = DeepFactorized(1, scale=scale)
    values = torch.tensor(edges, requires_grad=True)
    for bit in model.bits(values):
        gradients = torch.autograd.grad(bit, [values, *model.parameters()], retain_graph=True)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_a_far_value_feels_a_gradient_towards_the_rest() -> None:
    values = torch.tensor([300.0, -300.0], requires_grad=True)
    DeepFactorized(scale=1.0).total_bits(values).backward()
    assert values.grad is not None and values.grad[0] > 0 > values.grad[1]


def test_gradients_are_derivatives() -> None:
    model = moved(2, 3)
    values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.bits, (values,))
    first = model.matrices[1]

    def bits_of(matrix: Tensor) -> Tensor:
        parameters = {"matrices.1": matrix}
        return torch.func.functional_call(model, parameters, (values.detach(),))

    model.forward = model.bits  # pyright: ignore
    assert torch.autograd.gradcheck(bits_of, (first.detach().clone().requires_grad_(),))


DISTRIBUTIONS = {
    "sparse": {0: 0.9, 1: 0.04, -1: 0.03, 2: 0.02, 5: 0.01},
    "two modes": {-6: 0.25, -5: 0.2, -4: 0.05, 3: 0.1, 4: 0.3, 5: 0.1},
    "lopsided": {1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625, 5: 0.0625},
}


def test_it_learns_distributions_to_near_their_entropy() -> None:
    model = DeepFactorized(len(DISTRIBUTIONS))
    generator = torch.Generator().manual_seed(1)
    columns = []
    for shares in DISTRIBUTIONS.values():
        values, odds = torch.tensor(list(shares), dtype=torch.float32), torch.tensor(list(shares.values()))
        columns.append(values[torch.multinomial(odds, 600, replacement=True, generator=generator)])
    data = torch.stack(columns, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(400):
        noisy = data + torch.rand(data.shape, generator=generator) - 0.5
        optimizer.zero_grad()
        model.bits(noisy).mean().backward()
        optimizer.step()
    with torch.no_grad():
        found = model.bits(data).mean(0)
    for (name, shares), bits in zip(DISTRIBUTIONS.items(), found.tolist(), strict=True):
        entropy = -sum(share * math.log2(share) for share in shares.values())
        assert entropy - 0.1 < bits < entropy + 0.25, f"{name}: {bits} bits, entropy {entropy}"
