"""Lattices: nearest points against all near ones, cells' second moments, and the noise's law."""

import itertools
import math

import numpy as np
import pytest
import torch

from fewbits.errors import InvalidArgument
from fewbits.quantize.lattice import A2, D4, E8, LATTICES, Lattice, Z, space_filling_loss
from tests.unit.channel.samples import kolmogorov_smirnov

IDS = list(LATTICES)


def shortest(lattice: Lattice, reach: int) -> torch.Tensor:
    """All points with coefficients up to `reach` in the basis."""
    coefficients = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=lattice.dim))).double()
    return coefficients @ torch.tensor(lattice.basis, dtype=torch.float64)


@pytest.mark.parametrize("lattice", [Z, A2, D4], ids=lambda each: each.name)
def test_the_nearest_point_is_nearest_of_all(lattice: Lattice) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((500, lattice.dim), generator=generator, dtype=torch.float64) * 2 - 1
    points = shortest(lattice, 3)
    best = torch.cdist(values, points).min(1).values
    found = (values - lattice.nearest(values)).norm(dim=1)
    torch.testing.assert_close(found, best)


def test_the_nearest_point_of_e8_is_nearer_than_its_neighbours() -> None:
    """240 neighbours: a cell's faces all belong to them."""
    halves = torch.tensor([v for v in itertools.product((-0.5, 0.5), repeat=8) if sum(x < 0 for x in v) % 2 == 0])
    pairs = [
        [a if k == i else b if k == j else 0.0 for k in range(8)]
        for i, j in itertools.combinations(range(8), 2)
        for a, b in itertools.product((-1.0, 1.0), repeat=2)
    ]
    neighbours = torch.cat([halves, torch.tensor(pairs)]).double()
    assert len(neighbours) == 240
    values = torch.randn((2000, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    nearest = E8.nearest(values)
    distances = (values[:, None] - nearest[:, None] - neighbours).norm(dim=2)
    assert ((values - nearest).norm(dim=1) <= distances.min(1).values + 1e-12).all()
    for point in nearest:  # all whole or all half, of even sum
        assert torch.equal(point * 2, (point * 2).round()) and len((point % 1).unique()) == 1
        assert float(point.sum()) % 2 == 0


@pytest.mark.parametrize("name", IDS)
def test_points_are_combinations_of_the_basis_and_all_of_them_are_points(name: str) -> None:
    lattice = LATTICES[name]
    basis = torch.tensor(lattice.basis, dtype=torch.float64)
    values = torch.randn((200, lattice.dim), generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 4
    coefficients = torch.linalg.solve(basis.T, lattice.nearest(values).T).T
    torch.testing.assert_close(coefficients, coefficients.round(), rtol=0, atol=1e-9)
    points = coefficients.round() @ basis
    torch.testing.assert_close(lattice.nearest(points), points)
    assert lattice.volume == pytest.approx({"Z": 1, "A2": math.sqrt(3) / 2, "D4": 2, "E8": 1}[name])


@pytest.mark.parametrize("name", IDS)
def test_second_moments_are_those_of_the_tables(name: str) -> None:
    lattice, count = LATTICES[name], 400_000
    noise = lattice.dither(3, 0, count)
    squares = noise.square().mean(1) / lattice.volume ** (2 / lattice.dim)
    off = abs(float(squares.mean()) - lattice.second_moment)
    assert off < 5 * float(squares.std()) / math.sqrt(count)
    assert off < 1e-4 or lattice.dim < 4
    assert lattice.nearest(noise).abs().max() == 0
    expected = {"Z": 0.2546, "A2": 0.2269, "D4": 0.1939, "E8": 0.1460}[name]
    assert abs(space_filling_loss(lattice) - expected) < 1e-3


@pytest.mark.parametrize("name", IDS)
def test_the_noise_has_one_law_at_every_input(name: str) -> None:
    """Each coordinate, and a sum of all, of the error at a fixed input against those of the dither itself."""
    lattice, count = LATTICES[name], 20_000
    dither, reference = lattice.dither(4, 0, count), lattice.dither(5, 0, 200_000)
    y = torch.linspace(-1.3, 2.9, lattice.dim, dtype=torch.float64).expand(count, -1)
    points = lattice.quantize(y, dither)
    error = points + dither - y
    for directions in (torch.eye(lattice.dim, dtype=torch.float64)[:1], torch.ones((1, lattice.dim)).double()):
        ordered = np.sort((reference @ directions.T).numpy().ravel())
        places = np.searchsorted(ordered, (error @ directions.T).numpy().ravel()) / len(ordered)
        assert kolmogorov_smirnov(places) > 0.005
    other = lattice.dither(4, 1, count)
    assert abs(float(torch.corrcoef(torch.stack([dither[:, 0], other[:, 0]]))[0, 1])) < 0.03


def test_items_beyond_what_counters_hold_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        E8.dither(1, 1 << 32, 2)
