"""Lattices, and universal quantisation with them: noise that is uniform on a lattice's cell.

    K = nearest point to (y - u),   z = K + u,   u uniform on the cell of 0

The rounder the cell, the less a given noise power costs: against rounding each number, whose cells are cubes, the
eight-dimensional E8 saves .109 bits a number, or .65 dB.

Source: Zamir, Feder 1992 (dithered lattice quantisation); Conway, Sloane 1982 for the nearest points; CN115668777A,
claim 10.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.random import DITHER, Stream, uniforms

_ROOT_3 = 1.7320508075688772


@dataclass(frozen=True)
class Lattice:
    """A lattice in `dim` dimensions.

    basis: (dim, dim), a generator in each row; its points are their integer combinations.
    second_moment: mean square of a coordinate of its cell, divided by volume^(2 / dim); 1/12 for a cube.
    nearest: of values (..., dim) float the nearest points, of the same shape and dtype; of equally near ones either.
    """

    name: str
    basis: tuple[tuple[float, ...], ...]
    second_moment: float
    nearest: Callable[[Tensor], Tensor]

    @property
    def dim(self) -> int:
        """Dimensions."""
        return len(self.basis)

    @property
    def volume(self) -> float:
        """Volume of a cell."""
        return abs(float(np.linalg.det(np.asarray(self.basis))))

    def dither(self, seed: int, item: int, count: int) -> Tensor:
        """Return what is uniform on the cell of 0, (count, dim) float64; see `fewbits.quantize.universal.dither`.

        WIRE: words 0 … dim - 1 of item `block` of the stream `item` of purpose 2 are shares of the basis's rows, added
        in their order; the nearest point is subtracted.

        Raises:
            InvalidArgument: the item's number is not from 0 to 2^32 - 1.
        """
        if not 0 <= item < 1 << 32:
            raise InvalidArgument(f"an item's number is from 0 to 2^32 - 1, not {item}.")
        shares = uniforms(Stream(seed, DITHER, item).words(np.arange(count, dtype=np.uint64), self.dim))
        inside = np.zeros((count, self.dim))
        for share, row in zip(shares.T, self.basis, strict=True):
            inside = inside + share[:, None] * np.asarray(row)
        found = torch.from_numpy(inside)
        return found - self.nearest(found)

    def quantize(self, values: Tensor, noise: Tensor) -> Tensor:
        """Return the points K nearest to values - noise, (..., dim) each."""
        return self.nearest(values - noise)


def _integers(values: Tensor) -> Tensor:
    return torch.floor(values + 0.5)


def _even(values: Tensor) -> Tensor:
    """Nearest integer vectors of even sum: where the sum is odd, what is furthest off is rounded the other way."""
    rounded = _integers(values)
    off = values - rounded
    worst = off.abs().argmax(-1, keepdim=True)
    other = torch.where(off.gather(-1, worst) < 0, -1.0, 1.0).to(values.dtype)
    odd = (rounded.sum(-1, keepdim=True) % 2 != 0).to(values.dtype)
    return rounded.scatter_add(-1, worst, other * odd)


def _nearer(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    further = ((values - first) ** 2).sum(-1, keepdim=True) > ((values - second) ** 2).sum(-1, keepdim=True)
    return torch.where(further, second, first)


def _hexagonal(values: Tensor) -> Tensor:
    sides = torch.tensor([1.0, _ROOT_3], dtype=values.dtype, device=values.device)
    plain = _integers(values / sides) * sides
    shifted = (_integers(values / sides - 0.5) + 0.5) * sides
    return _nearer(values, plain, shifted)


def _e8(values: Tensor) -> Tensor:
    return _nearer(values, _even(values), _even(values - 0.5) + 0.5)


def _row(dim: int, places: dict[int, float]) -> tuple[float, ...]:
    return tuple(places.get(place, 0.0) for place in range(dim))


def _even_basis(dim: int) -> tuple[tuple[float, ...], ...]:
    return (_row(dim, {0: 2.0}), *(_row(dim, {place: -1.0, place + 1: 1.0}) for place in range(dim - 1)))


# Second moments: Conway, Sloane, "Sphere packings, lattices and groups", table 2.3.
Z = Lattice("Z", ((1.0,),), 1 / 12, _integers)
A2 = Lattice("A2", ((1.0, 0.0), (0.5, _ROOT_3 / 2)), 5 / (36 * _ROOT_3), _hexagonal)
D4 = Lattice("D4", _even_basis(4), 0.076603, _even)
E8 = Lattice("E8", (*_even_basis(8)[:7], (0.5,) * 8), 0.071682, _e8)
LATTICES = {lattice.name: lattice for lattice in (Z, A2, D4, E8)}


def space_filling_loss(lattice: Lattice) -> float:
    """Return the bits a number that noise on the lattice's cell costs above Gaussian noise of its power."""
    return 0.5 * math.log2(2 * math.pi * math.e * lattice.second_moment)
