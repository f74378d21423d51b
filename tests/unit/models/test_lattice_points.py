"""Lattice points in bytes: they come back, at the price of their entropy, and damage is refused."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fewbits.errors import Corrupt, InvalidArgument
from fewbits.models.lattice_points import decode_points, encode_points
from fewbits.quantize.lattice import LATTICES, Lattice

IDS = list(LATTICES)


def sent(lattice: Lattice, scale: float, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points of a Gaussian source, and their dither."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, lattice.dim), generator=generator, dtype=torch.float64) * scale
    noise = lattice.dither(3, seed, count)
    return lattice.quantize(values, noise), noise


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 1e4, 1e9])
@pytest.mark.parametrize("count", [0, 1, 7, 3000])
def test_points_come_back(isa: str, name: str, scale: float, count: int) -> None:
    points, noise = sent(LATTICES[name], scale, count)
    assert torch.equal(decode_points(encode_points(LATTICES[name], points, noise), LATTICES[name], noise), points)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_bytes_are_within_a_fiftieth_of_a_bit_a_number_of_the_entropy(name: str, scale: float) -> None:
    """H[K | u] = h(y + u) - log2 volume; the density of y + u is a mean over dithers (Monte Carlo)."""
    lattice = LATTICES[name]
    count = 480_000 // lattice.dim
    points, noise = sent(lattice, scale, count)
    coded = 8 * len(encode_points(lattice, points, noise)) / points.numel()
    tried = 1500
    z, dithers = (points + noise)[:tried], lattice.dither(9, 9, 3000)
    logs = -(((z[:, None] - dithers) / scale) ** 2).sum(-1) / 2 - lattice.dim * math.log(scale * math.sqrt(2 * math.pi))
    bits = -(torch.logsumexp(logs, 1) - math.log(len(dithers)) + math.log(lattice.volume)) / math.log(2) / lattice.dim
    entropy, error = float(bits.mean()), float(bits.std()) / math.sqrt(tried)
    # A control variate would do; this many points leave an error of the entropy itself well below the figure.
    whole = -torch.distributions.Normal(0, scale).log_prob(points + noise).sum(1) / math.log(2) / lattice.dim
    entropy += float(whole.mean() - whole[:tried].mean())
    assert error < 0.03
    assert abs(coded - entropy) < 0.02


def test_a_round_cell_saves_what_the_second_moment_says() -> None:
    """At one noise power and high rate: bits a number of E8 against those of Z."""
    rates = {}
    for name in ("Z", "E8"):
        lattice = LATTICES[name]
        power = lattice.second_moment * lattice.volume ** (2 / lattice.dim)
        points, noise = sent(lattice, 30 * math.sqrt(power), 320_000 // lattice.dim)
        rates[name] = 8 * len(encode_points(lattice, points, noise)) / points.numel()
    expected = 0.5 * math.log2(LATTICES["Z"].second_moment / LATTICES["E8"].second_moment)
    assert abs(rates["Z"] - rates["E8"] - expected) < 0.02


@pytest.mark.parametrize("name", IDS)
def test_damage_is_refused_or_gives_other_points_of_the_lattice(name: str) -> None:
    lattice = LATTICES[name]
    points, noise = sent(lattice, 1.5, 40)
    data = encode_points(lattice, points, noise)
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            decode_points(data[:size], lattice, noise)
    with pytest.raises(Corrupt):
        decode_points(data + b"\0", lattice, noise)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_points(bytes(flipped), lattice, noise)
        except Corrupt:
            continue
        assert found.shape == points.shape
        torch.testing.assert_close(lattice.nearest(found), found)


def test_points_that_cannot_be_coded_are_refused() -> None:
    lattice = LATTICES["E8"]
    points, noise = sent(lattice, 1.0, 3)
    for bad in (points[:2], points[:, :4], points * np.inf, points + 2.0**50):
        with pytest.raises(InvalidArgument):
            encode_points(lattice, bad, noise)
