"""Universal quantisation and soft rounding: every formula's figure, by quadrature or many draws."""

import math
from collections.abc import Iterator
from typing import Any

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Measured, Row

takes_rivals = False

RATE = 2.020882  # bits: H[K | U] = h(Y + U) of a Laplace source of scale .7, as another program has found
# dB against rounding at equal entropy, for each sharpness: as another program has measured them.
SHARPNESSES = (0.0, 2.0, 4.0, 7.0, 12.0)
GAPS = {
    ("laplace", 0.25): (-0.76, -0.65, -0.38, -0.14, -0.05),
    ("laplace", 0.5): (-0.94, -0.73, -0.41, -0.16, -0.05),
    ("laplace", 1.0): (-0.71, -0.55, -0.32, -0.13, -0.05),
    ("laplace", 2.0): (-0.21, -0.17, -0.11, -0.05, -0.02),
    ("gaussian", 0.5): (-0.25, -0.20, -0.12, -0.04, -0.01),
    ("gaussian", 2.0): (0.0, 0.0, 0.0, 0.0, 0.0),
}
DRAWS = 1_000_000


def rows(options: Options) -> Iterator[Row]:
    """Measure the rate's identity, soft rounding, what it buys, gradients, lattices, and Gaussian noise."""
    need("torch", "fewbits")
    load_fewbits()
    off = Figure("off_bits", "<=", 1e-6)
    yield Row("fewbits H[K|U] = h(Y+U)", _identity(), (off, Figure("off_reference_bits", "<=", 1e-6)))
    yield Row("fewbits soft rounding there and back, float32", _round_trip(), (Figure("error", "<=", 1e-3),))
    for sharpness in (1.0, 4.0, 10.0):
        yield Row(f"fewbits mean, sharpness {sharpness:g}", _mean(sharpness), (Figure("error", "<=", 0.01),))
    for (family, rate), gaps in GAPS.items():
        yield Row(f"fewbits {family} at {rate:g} bits", _gaps(family, rate, gaps), (Figure("off_db", "<=", 0.03),))
    asked = (Figure("off_errors", "<=", 4), Figure("variance_ratio", ">=", 10))
    yield Row("fewbits gradient of a rate, sharpness 10", _rate_gradient(), (asked[0],))
    yield Row("fewbits gradient of a distortion, sharpness 10", _distortion_gradient(), (asked[1],))
    for name in ("Z", "A2", "D4", "E8"):
        bound = (Figure("second_moment", ">=", 0.0716), Figure("second_moment", "<=", 0.0718)) if name == "E8" else ()
        yield Row(f"fewbits lattice {name}", _lattice(name, options.seed), (*bound, Figure("bits_above", "<=", 0.02)))
    for noise, price in (("gaussian", 0.52), ("laplace", 0.833)):
        bound = (Figure("overhead_bits", ">=", price - 0.01), Figure("overhead_bits", "<=", price + 0.01))
        yield Row(f"fewbits {noise} noise by random widths", _overhead(noise, options.seed), bound)


def _identity() -> dict[str, Measured]:
    """Both entropies of universal quantisation of a Laplace source, by quadrature over pieces of half a unit."""
    import numpy as np
    import torch

    from fewbits.models.laplace import Laplace

    model = Laplace(0.7).double()
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(64))

    def mean_over(starts: Any) -> float:
        z = starts[:, None] + 0.25 + nodes / 4
        with torch.no_grad():
            bits = model.bits(z)
        return float((torch.exp2(-bits) * bits * weights).sum()) / 4

    total = mean_over(torch.arange(-40, 40, 0.5, dtype=torch.float64))
    conditional = 0.0
    for half in (-0.5, 0.0):  # of the dither
        u = half + 0.25 + nodes / 4
        k = torch.arange(-40, 41, dtype=torch.float64)[:, None]
        with torch.no_grad():
            bits = model.bits(k + u)
        conditional += float(((torch.exp2(-bits) * bits).sum(0) * weights).sum()) / 4
    return {
        "conditional_bits": conditional,
        "sum_bits": total,
        "off_bits": abs(conditional - total),
        "off_reference_bits": abs(total - RATE),
    }


def _round_trip() -> dict[str, Measured]:
    import torch

    from fewbits.quantize.soft_rounding import soft_round, soft_round_inverse

    values = torch.linspace(-3, 3, 600_001)
    return {"error": float((soft_round_inverse(soft_round(values, 12.0), 12.0) - values).abs().max())}


def _mean(sharpness: float) -> dict[str, Measured]:
    """The mean of y given soft_round(y) + u near a value, by many draws of a flat y."""
    import torch

    from fewbits.quantize.soft_rounding import soft_round, soft_round_mean

    generator = torch.Generator().manual_seed(1)
    y = 6 * torch.rand(20 * DRAWS, generator=generator) - 3
    z = soft_round(y, sharpness) + torch.rand(len(y), generator=generator) - 0.5
    errors = []
    for place in torch.arange(-0.95, 1.0, 0.1):
        near = (z - place).abs() < 0.005
        errors.append(abs(float(y[near].mean() - soft_round_mean(z[near], sharpness).mean())))
    return {"error": max(errors)}


def _rate_and_snr(family: str, scale: float, sharpness: float | None) -> tuple[float, float]:
    """Bits a number and dB of a source of a scale in steps, by quadrature; None for rounding without a dither."""
    import torch

    from fewbits.models.density import posterior_mean
    from fewbits.models.location_scale import LocationScale
    from fewbits.quantize.soft_rounding import soft_round_inverse

    deviation = scale * (math.sqrt(2) if family == "laplace" else 1.0)
    density = LocationScale(family, scale=scale - 1e-3).double()
    reach = math.ceil(deviation * (13 if family == "laplace" else 8)) + 2
    points = 1 if sharpness is None else 40
    z = (torch.arange(-reach * points, reach * points + 1, dtype=torch.float64) / points)[:, None]
    if sharpness is None:
        low, high = z - 0.5, z + 0.5
    else:
        z = z + 0.5 / points  # middles: never on a corner of the density
        low, high = (soft_round_inverse(z + half, sharpness) for half in (-0.5, 0.5))
    with torch.no_grad():
        bits, mean = density.interval_bits(low, high), posterior_mean(density, low, high)
    mass = torch.exp2(-bits)
    error = deviation**2 - float((mass * mean**2).sum()) / points
    return float((mass * bits).sum()) / points, -10 * math.log10(error / deviation**2)


def _snr_at(family: str, wanted: float, sharpness: float | None) -> float:
    low, high = -3.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _rate_and_snr(family, math.exp(middle), sharpness)[0] < wanted else (low, middle)
    return _rate_and_snr(family, math.exp(low), sharpness)[1]


def _gaps(family: str, rate: float, gaps: tuple[float, ...]) -> dict[str, Measured]:
    hard = _snr_at(family, rate, None)
    found = [_snr_at(family, rate, sharpness) - hard for sharpness in SHARPNESSES]
    measured: dict[str, Measured] = {"hard_db": hard}
    measured |= {f"gap_{sharpness:g}_db": gap for sharpness, gap in zip(SHARPNESSES, found, strict=True)}
    return measured | {"off_db": max(abs(gap - known) for gap, known in zip(found, gaps, strict=True))}


def _rate_gradient() -> dict[str, Measured]:
    """The expected gradient of bits against the plain one's mean over draws, in standard errors of the latter."""
    import torch

    from fewbits.models.density import SoftRounded
    from fewbits.models.location_scale import LocationScale
    from fewbits.quantize.universal import expected_gradient

    density = SoftRounded(LocationScale("logistic", scale=0.4).double(), lambda: 10.0)
    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5
    off, spread = 0.0, math.inf
    for value in (-1.2, 0.0, 0.3, 0.5, 2.4):
        many = torch.full((DRAWS, 1), value, dtype=torch.float64, requires_grad=True)
        (plain,) = torch.autograd.grad(density.bits(many + noise[:, None]).sum(), many)
        once = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(expected_gradient(density.bits, once).sum(), once)
        error = float(plain.std()) / math.sqrt(DRAWS)
        off, spread = max(off, abs(float(plain.mean() - expected)) / error), min(spread, float(plain.std()))
    return {"off_errors": off, "least_plain_deviation": spread, "draws": DRAWS}


def _distortion_gradient() -> dict[str, Measured]:
    """The variance of d/dx (r(s(x) + u) - 1)², plain and expected."""
    import torch

    from fewbits.quantize.soft_rounding import soft_round, soft_round_mean
    from fewbits.quantize.universal import expected_gradient

    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5

    def mean_of(noisy: Any) -> Any:
        return soft_round_mean(noisy, 10.0)

    def variance(expected: bool) -> float:
        many = torch.full((DRAWS,), 0.3, dtype=torch.float64, requires_grad=True)
        soft = soft_round(many, 10.0)
        z = expected_gradient(mean_of, soft, noise) if expected else mean_of(soft + noise)
        (found,) = torch.autograd.grad(((z - 1) ** 2).sum(), many)
        return float(found.var())

    plain, expected = variance(False), variance(True)
    return {"plain_variance": plain, "expected_variance": expected, "variance_ratio": plain / expected}


def _lattice(name: str, seed: int) -> dict[str, Measured]:
    """The dither's second moment; bytes of Gaussian points of deviation 1 against their Monte-Carlo entropy."""
    import torch

    from fewbits.models.lattice_points import decode_points, encode_points
    from fewbits.quantize.lattice import LATTICES

    lattice, count, deviation = LATTICES[name], 400_000, 1.0
    squares = lattice.dither(seed, 0, count).square().mean(1)
    moment = float(squares.mean()) / lattice.volume ** (2 / lattice.dim)
    generator = torch.Generator().manual_seed(seed)
    values = deviation * torch.randn(100_000, lattice.dim, generator=generator, dtype=torch.float64)
    noise = lattice.dither(seed, 1, len(values))
    points = lattice.quantize(values, noise)
    data = encode_points(lattice, points, noise)
    if not decode_points(data, lattice, noise).equal(points):
        raise RuntimeError("points do not come back from their bytes.")
    # H[point | dither] = h(value + noise), whose density at z is the cell's mean of the Gaussian's.
    shown, cell = (points + noise)[:4000], lattice.dither(seed, 2, 2000)
    log_density = torch.empty(len(shown), dtype=torch.float64)
    for first in range(0, len(shown), 500):
        near = shown[first : first + 500, None] - cell
        logs = -near.square().sum(-1) / (2 * deviation**2) - lattice.dim / 2 * math.log(2 * math.pi * deviation**2)
        log_density[first : first + 500] = torch.logsumexp(logs, 1) - math.log(len(cell))
    entropy = float(-log_density.mean()) / math.log(2) - math.log2(lattice.volume)
    # A control variate: what is far from where the shown points are costs the Gaussian alike.
    alone = (points + noise).square().sum(1) / (2 * deviation**2) / math.log(2)
    entropy += float(alone.mean() - alone[: len(shown)].mean())
    coded = 8 * len(data) / values.numel()
    return {
        "second_moment": moment,
        "coded_bits": coded,
        "entropy_bits": entropy / lattice.dim,
        "bits_above": coded - entropy / lattice.dim,
    }


def _overhead(noise: str, seed: int) -> dict[str, Measured]:
    """What random widths cost at high rate: the noise's entropy less the mean logarithm of the width."""
    import torch

    from fewbits.quantize.noise_channels import NoiseChannel

    entropy = {"gaussian": 0.5 * math.log2(2 * math.pi * math.e), "laplace": math.log2(2 * math.e)}[noise]
    widths = NoiseChannel(noise, 1.0, seed=seed).widths((DRAWS,)).double()
    return {"overhead_bits": entropy - float(torch.log2(widths).mean())}
