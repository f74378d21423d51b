"""Densities: probabilities that add up, tails, soft rounding, posterior means, and what soft rounding buys."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import InvalidArgument
from fewbits.models.deep_factorized import DeepFactorized
from fewbits.models.density import Density, SoftRounded, posterior_mean
from fewbits.models.laplace import Laplace
from fewbits.models.location_scale import FAMILIES, LocationScale, Mixture, standard_bits
from fewbits.quantize.soft_rounding import soft_round, soft_round_inverse, soft_round_mean


def densities() -> dict[str, Density]:
    torch.manual_seed(1)
    found: dict[str, Density] = {name: LocationScale(name, scale=0.8) for name in FAMILIES}
    found |= {f"{name} mixture": Mixture(name, 3, scale=0.6) for name in FAMILIES}
    found |= {"deep": DeepFactorized(scale=2.0), "own laplace": Laplace(0.8)}
    return {name: density.double() for name, density in found.items()}


@pytest.mark.parametrize("name", list(densities()))
@pytest.mark.parametrize("sharpness", [None, 0.0, 3.0, 10.0])
def test_probabilities_of_all_intervals_add_up_to_1(name: str, sharpness: float | None) -> None:
    density = densities()[name]
    if sharpness is not None:
        density = SoftRounded(density, lambda: sharpness)
    reach = 200.0 if name == "deep" else 40.0
    for offset in (0.0, 0.37, 0.5):
        edges = (torch.arange(-reach, reach + 1) + offset).double()[:, None]
        masses = torch.exp2(-density.interval_bits(edges[:-1], edges[1:]))
        assert abs(float(masses.sum().detach()) - 1) < 1e-5
        values = (edges[:-1] + 0.5).detach()
        torch.testing.assert_close(density.bits(values), density.interval_bits(values - 0.5, values + 0.5))


@pytest.mark.parametrize("name", list(densities()))
def test_bits_and_gradients_are_finite_and_bits_at_least_0_everywhere(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        density = densities()[name].to(dtype)
        values = torch.tensor([0.0, 0.5, -0.5, 3.0, -40.0, 1e3, -1e5, 1e7], dtype=dtype)[:, None].requires_grad_()
        for each in (density, SoftRounded(density, lambda: 8.0)):
            bits = each.bits(values)
            assert bits.isfinite().all() and (bits >= 0).all()
            gradients = torch.autograd.grad(bits.sum(), [values, *density.parameters()])
            assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_standard_densities_are_what_they_are_called(family: str) -> None:
    edges = torch.linspace(-6, 6, 25, dtype=torch.float64)
    cdf = {
        "gaussian": torch.special.ndtr,
        "laplace": lambda x: torch.where(x < 0, 0.5 * x.exp(), 1 - 0.5 * (-x).exp()),
        "logistic": torch.sigmoid,
    }[family](edges)
    torch.testing.assert_close(torch.exp2(-standard_bits(family, edges[:-1], edges[1:])), cdf.diff(), rtol=1e-7, atol=0)


def test_tails_keep_their_digits_in_float32() -> None:
    """Where both distribution functions round to 1 the probability is still right."""
    for family in FAMILIES:
        low = torch.tensor([9.0, -10.0])
        bits = standard_bits(family, low, low + 1)
        exact = standard_bits(family, low.double(), low.double() + 1)
        torch.testing.assert_close(bits.double(), exact, rtol=1e-5, atol=0)
        torch.testing.assert_close(bits[0], bits[1])


@pytest.mark.parametrize("name", list(densities()))
def test_gradients_are_those_of_the_bits(name: str) -> None:
    density = densities()[name]
    values = torch.tensor([[-2.3], [0.2], [0.9], [4.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(density.bits, (values,))
    assert torch.autograd.gradcheck(SoftRounded(density, lambda: 3.0).bits, (values,))


def test_densities_learn_what_they_are_shown() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((2000, 2), generator=generator) * torch.tensor([0.5, 4.0]) + torch.tensor([0.0, 7.0])
    for density in (LocationScale("gaussian", 2, scale=3.0), Mixture("logistic", 2, 2, scale=3.0)):
        optimizer = torch.optim.Adam(density.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            density.bits(values + torch.rand(values.shape, generator=generator) - 0.5).mean().backward()
            optimizer.step()
        bits = density.bits(values.round()).mean(0).detach()
        exact = LocationScale("gaussian", 2)
        with torch.no_grad():
            exact.locations.copy_(torch.tensor([0.0, 7.0]))
            exact.log_scales.copy_(torch.tensor([0.5, 4.0]).log())
        assert (bits - exact.bits(values.round()).mean(0).detach()).abs().max() < 0.06


# ---- soft rounding


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 10.0])
def test_the_density_of_soft_rounded_values_with_noise(sharpness: float) -> None:
    """Against a histogram of draws."""
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(2_000_000, generator=generator, dtype=torch.float64) * 0.8
    z = soft_round(y, sharpness) + torch.rand(y.shape, generator=generator, dtype=torch.float64) - 0.5
    counts, edges = np.histogram(z.numpy(), bins=64, range=(-3, 3))
    inside = torch.from_numpy(edges[:-1, None] + (np.arange(32) + 0.5) / 32 * (6 / 64))
    model = LocationScale("gaussian", scale=0.8 - 1e-3).double()
    # bits(z) is of the mass in a unit around z of s(y), which is the density of s(y) + u.
    density = torch.exp2(-SoftRounded(model, lambda: sharpness).bits(inside[..., None]))[..., 0].detach().mean(1)
    np.testing.assert_allclose(counts / len(z) / (6 / 64), density.numpy(), atol=0.004)


def test_posterior_means_are_means() -> None:
    low = torch.tensor([-2.0, -0.5, 0.1, 3.0], dtype=torch.float64)
    for family, scale in (("gaussian", 1.0), ("laplace", 0.7)):
        density = LocationScale(family, scale=scale - 1e-3).double()
        found = posterior_mean(density, low[:, None], low[:, None] + 1)[:, 0].detach()
        x = low[:, None] + (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
        weights = torch.exp(-(x**2) / 2) if family == "gaussian" else torch.exp(-x.abs() / scale)
        torch.testing.assert_close(found, (weights * x).sum(1) / weights.sum(1), rtol=0, atol=1e-3)
    broad = LocationScale("gaussian", scale=1e3).double()
    z = torch.linspace(-1, 1, 9, dtype=torch.float64)
    ends = (soft_round_inverse(z + half, 4.0)[:, None] for half in (-0.5, 0.5))
    found = posterior_mean(broad, *ends)[:, 0]
    torch.testing.assert_close(found.detach(), soft_round_mean(z, 4.0), rtol=0, atol=1e-3)


def rate_and_snr(family: str, scale: float, sharpness: float | None) -> tuple[float, float]:
    """Bits a number and dB of a source of this scale in steps, by quadrature; None for rounding without a dither."""
    deviation = scale * (math.sqrt(2) if family == "laplace" else 1.0)
    density = LocationScale(family, scale=scale - 1e-3).double()
    reach = math.ceil(deviation * (13 if family == "laplace" else 8)) + 2
    points = 1 if sharpness is None else 40
    z = ((torch.arange(-reach * points, reach * points + 1, dtype=torch.float64)) / points)[:, None]
    if sharpness is None:
        low, high = z - 0.5, z + 0.5
    else:
        z = z + 0.5 / points  # middles: never on a corner of the density
        low, high = soft_round_inverse(z - 0.5, sharpness), soft_round_inverse(z + 0.5, sharpness)
    with torch.no_grad():
        bits, mean = density.interval_bits(low, high), posterior_mean(density, low, high)
    mass = torch.exp2(-bits)
    rate = float((mass * bits).sum()) / points
    error = deviation**2 - float((mass * mean**2).sum()) / points
    return rate, -10 * math.log10(error / deviation**2)


def snr_at(family: str, wanted: float, sharpness: float | None) -> float:
    low, high = -3.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        if rate_and_snr(family, math.exp(middle), sharpness)[0] < wanted:
            low = middle
        else:
            high = middle
    return rate_and_snr(family, math.exp(low), sharpness)[1]


# dB against rounding at equal entropy, for sharpness 0, 2, 4, 7, 12: as another program has measured them.
GAPS = {
    ("laplace", 0.25): (-0.76, -0.65, -0.38, -0.14, -0.05),
    ("laplace", 0.5): (-0.94, -0.73, -0.41, -0.16, -0.05),
    ("laplace", 1.0): (-0.71, -0.55, -0.32, -0.13, -0.05),
    ("laplace", 2.0): (-0.21, -0.17, -0.11, -0.05, -0.02),
    ("gaussian", 0.5): (-0.25, -0.20, -0.12, -0.04, -0.01),
    ("gaussian", 2.0): (0.0, 0.0, 0.0, 0.0, 0.0),
}
HARD = {("laplace", 0.25): 1.73, ("laplace", 0.5): 3.11, ("laplace", 1.0): 5.77, ("laplace", 2.0): 11.33}
HARD |= {("gaussian", 0.5): 2.10, ("gaussian", 2.0): 10.51}


@pytest.mark.parametrize(("family", "rate"), list(GAPS))
def test_what_soft_rounding_buys_on_a_scalar_source(family: str, rate: float) -> None:
    hard = snr_at(family, rate, None)
    assert abs(hard - HARD[family, rate]) < 0.03
    for sharpness, gap in zip((0.0, 2.0, 4.0, 7.0, 12.0), GAPS[family, rate], strict=True):
        assert abs(snr_at(family, rate, sharpness) - hard - gap) < 0.03


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocationScale("cauchy"),
        lambda: LocationScale("gaussian", scale=0),
        lambda: Mixture("laplace", 0),
        lambda: Mixture("laplace", 2, scale=math.nan),
    ],
)
def test_what_is_no_density_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidArgument):
        make()
