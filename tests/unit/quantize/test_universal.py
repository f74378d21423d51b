"""Universal quantisation: the dither's bits, the exact law of the noise, the rate's identity, expected gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.models.laplace import Laplace
from fewbits.quantize.soft_rounding import soft_round, soft_round_mean
from fewbits.quantize.universal import (
    dither,
    dither_levels,
    expected_gradient,
    universal_quantize,
)
from fewbits.random import DITHER, Stream
from tests.unit.channel.samples import kolmogorov_smirnov


def test_the_dithers_bits_are_specified() -> None:
    words = Stream(7, DITHER, 3).sequence(0, 6).astype(np.int64)
    expected = ((words >> 8) - (1 << 23) + 0.5) / (1 << 24)
    found = dither(7, 3, (2, 3))
    np.testing.assert_array_equal(found.double().numpy().ravel(), expected)
    assert torch.equal(dither(7, 3, (3,), start=3), found[1])
    values, levels = dither_levels(7, 3, (6,), 4)
    np.testing.assert_array_equal(levels.numpy(), words >> 28)
    np.testing.assert_array_equal(values.double().numpy(), ((words >> 28) + 0.5) / 16 - 0.5)


def test_items_and_files_have_dithers_of_their_own() -> None:
    found = [dither(seed, item, (4000,)) for seed, item in ((1, 0), (1, 1), (2, 0))]
    for i, first in enumerate(found):
        assert first.abs().max() < 0.5 and kolmogorov_smirnov(first.double().numpy() + 0.5) > 0.01
        for second in found[:i]:
            assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.06


@pytest.mark.parametrize("shape", ["gaussian", "constant", "two points"])
def test_the_error_is_uniform_whatever_is_quantised(shape: str) -> None:
    count = 20_000
    y = {
        "gaussian": torch.randn(count, generator=torch.Generator().manual_seed(0)) * 3,
        "constant": torch.full((count,), 0.3),
        "two points": torch.arange(count) % 2 * 0.5,
    }[shape]
    u = dither(5, 0, (count,))
    integers = universal_quantize(y, u)
    assert torch.equal(integers, integers.round())
    error = (integers + u - y).double()
    assert error.abs().max() <= 0.5 + 1e-6 and kolmogorov_smirnov(error.numpy() + 0.5) > 0.01
    if shape != "constant":
        assert abs(float(torch.corrcoef(torch.stack([error, y.double()]))[0, 1])) < 0.03


def test_rounding_errors_without_a_dither_are_seen() -> None:
    y = torch.full((20_000,), 0.3)
    assert kolmogorov_smirnov((y.round() - y).double().numpy() + 0.5) < 1e-6


def laplace_cdf(x: np.ndarray, scale: float) -> np.ndarray:
    tail = 0.5 * np.exp(-np.abs(x) / scale)
    return np.where(x < 0, tail, 1 - tail)


def test_the_rate_is_the_entropy_of_the_sum_to_1e_6() -> None:
    """H[K | u] = h(y + u), for a Laplace source of scale .7: the reference's 2.020882 bits."""
    scale = 0.7
    nodes, weights = np.polynomial.legendre.leggauss(64)
    u, weights = nodes / 2, weights / 2
    k = np.arange(-40, 41)[:, None]
    masses = laplace_cdf(k + u + 0.5, scale) - laplace_cdf(k + u - 0.5, scale)
    np.testing.assert_allclose(masses.sum(0), 1, atol=1e-12)
    # Each half of the dither has its own smooth pieces: 64 nodes on each.
    conditional = 0.0
    for half in (-0.25, 0.25):
        masses = laplace_cdf(k + half + u / 2 + 0.5, scale) - laplace_cdf(k + half + u / 2 - 0.5, scale)
        terms = np.where(masses > 0, -masses * np.log2(np.maximum(masses, 1e-300)), 0.0).sum(0)
        conditional += float((terms * weights).sum()) / 2
    # h(y + u), piece by piece of half a unit.
    total = 0.0
    for start in np.arange(-40, 40, 0.5):
        z = start + 0.25 + u / 2
        density = laplace_cdf(z + 0.5, scale) - laplace_cdf(z - 0.5, scale)
        total += float((-density * np.log2(np.maximum(density, 1e-300)) * weights).sum()) / 2
    assert abs(conditional - total) < 1e-6 and abs(total - 2.020882) < 1e-6
    # And that is what the trained model says in the mean.
    model = Laplace(scale)
    y = torch.from_numpy(np.random.default_rng(0).laplace(0, scale, 400_000)).float()
    with torch.no_grad():
        bits = model.bits(y + dither(1, 0, (400_000,)))
    assert abs(float(bits.double().mean()) - total) < 4 * float(bits.double().std()) / math.sqrt(400_000)


# ---- expected gradients


def steep_bits(values: Tensor) -> Tensor:
    """-log2 of a density of soft-rounded values at sharpness 10."""
    upper, lower = (soft_round_mean(values + half, 10.0) for half in (0.5, -0.5))
    mass = torch.sigmoid(upper / 0.4) - torch.sigmoid(lower / 0.4)
    return -torch.log2(mass.clamp(min=1e-9))


def test_the_gradient_of_the_rate_is_its_mean_over_a_million_draws() -> None:
    at = torch.tensor([-1.2, 0.0, 0.3, 0.5, 2.4], dtype=torch.float64)
    count = 1_000_000
    noise = torch.rand(count, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5
    for i, y in enumerate(at):
        many = y.repeat(count).requires_grad_()
        (plain,) = torch.autograd.grad(steep_bits(many + noise).sum(), many)
        once = at.clone().requires_grad_()
        (expected,) = torch.autograd.grad(expected_gradient(steep_bits, once).sum(), once)
        assert abs(float(plain.mean() - expected[i])) < 5 * float(plain.std()) / math.sqrt(count) + 1e-9
        # It is the same for every draw, where the plain one's spread is large.
        assert float(plain.std()) > 0.5


def test_its_value_and_other_gradients_are_the_plain_ones() -> None:
    model = Laplace(0.8).double()
    y = torch.tensor([0.2, -3.0], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.1, -0.4], dtype=torch.float64)
    found = expected_gradient(model.bits, y, noise)
    torch.testing.assert_close(found, model.bits(y + noise), rtol=0, atol=0)
    (first,) = torch.autograd.grad(found.sum(), model.log_scale, retain_graph=True)
    (second,) = torch.autograd.grad(model.bits(y + noise).sum(), model.log_scale)
    torch.testing.assert_close(first, second)


def test_the_gradient_of_the_distortion_varies_far_less_than_the_plain_one() -> None:
    """Sharpness 10: d/dx of (r(s(x) + u) - 1)² over 100,000 draws; both have one mean, to first order in u."""
    count, x = 100_000, 0.3
    noise = torch.rand(count, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5

    def gradients(expected: bool) -> Tensor:
        many = torch.full((count,), x, dtype=torch.float64, requires_grad=True)
        soft = soft_round(many, 10.0)
        if expected:
            z = expected_gradient(lambda v: soft_round_mean(v, 10.0), soft, noise)
        else:
            z = soft_round_mean(soft + noise, 10.0)
        (found,) = torch.autograd.grad(((z - 1) ** 2).sum(), many)
        return found

    plain, expected = gradients(False), gradients(True)
    assert float(plain.var()) > 10 * float(expected.var())


def test_the_expected_slope_of_the_mean_is_one() -> None:
    y = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    for sharpness in (0.0, 1.0, 10.0):
        found = expected_gradient(lambda v, sharp=sharpness: soft_round_mean(v, sharp), y)
        (slope,) = torch.autograd.grad(found.sum(), y)
        torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=1e-9)


def test_what_is_no_dither_is_refused() -> None:
    for call in (
        lambda: dither(1, -1, (2,)),
        lambda: dither(1, 1 << 32, (2,)),
        lambda: dither_levels(1, 0, (2,), 0),
        lambda: dither_levels(1, 0, (2,), 9),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert dither(1, 0, (0, 3)).shape == (0, 3)
