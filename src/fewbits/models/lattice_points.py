"""Lattice points as bytes, given the dither: integers whose tables depend on where the dither puts a point's numbers.

A point of any lattice here is whole numbers of even sum (of any sum for Z), each times a scale; of E8 one half more
than that, or not. The last number is known but for twice a number. Each is coded with a table for its place in the
dither: how far it is off a whole number, in steps. Tables are histograms of what is coded, and come with it.

No table knows the numbers before it, but for the sum. What that costs against the entropy of the points is measured
(tests/unit/models/test_lattice_points.py): less than .02 bits a number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.coder.body import decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray
from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import fit_values
from fewbits.quantize.lattice import Lattice

_LEVELS = (1, 4, 16)  # WIRE: tables by place in the dither; a file's first byte chooses
_ROOT_3 = 1.7320508075688772
_MOST = 1 << 40  # of a whole number: beyond, float64 has no room for a dither

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class _Shape(NamedTuple):
    """A lattice as whole numbers: their scales (dim,), whether their sum is even, whether halves are there, too."""

    scales: Floats
    is_even: bool
    has_halves: bool


_SHAPES = {
    "Z": _Shape(np.ones(1), False, False),
    "A2": _Shape(np.array([0.5, _ROOT_3 / 2]), True, False),
    "D4": _Shape(np.ones(4), True, False),
    "E8": _Shape(np.ones(8), True, True),
}


def encode_points(lattice: Lattice, points: Tensor, noise: Tensor) -> bytes:
    """Encode points that a dither has given.

    Args:
        points, noise: (N, dim) float64: what `Lattice.quantize` made of a dither, and that dither.

    Raises:
        InvalidArgument: they are of other shapes, or beyond 2^40.
    """
    if points.ndim != 2 or points.shape != noise.shape or points.shape[1] != lattice.dim:
        raise InvalidArgument(f"points of {lattice.name} are (N, {lattice.dim}), and so is their dither.")
    if not bool((points.abs() < _MOST).all()):
        raise InvalidArgument("a point is beyond 2^40, or is none.")
    if not len(points):
        return b""
    shape = _SHAPES[lattice.name]
    found, offsets = (each.detach().cpu().double().numpy() for each in (points, noise))
    half = (np.floor(found[:, 0]) != found[:, 0]).astype(np.int64) if shape.has_halves else None
    whole = np.rint((found - 0.5 * (0 if half is None else half[:, None])) / shape.scales).astype(np.int64)
    return min((_encoded(shape, whole, half, offsets, number) for number in range(len(_LEVELS))), key=len)


def _encoded(shape: _Shape, whole: Integers, half: Integers | None, noise: Floats, number: int) -> bytes:
    parts = [bytes([number])]
    if half is not None:
        parts.append(_sized(_pack([half])))
    places = _places(shape, half, noise)
    first = whole[:, : -1 if shape.is_even else None]
    if first.size:
        levels, centres = _levels_of(places[:, : first.shape[1]], number)
        parts.append(_sized(_pack(list(_by_level(first + centres, levels, number)))))
    if shape.is_even:
        odd = first.sum(1) % 2
        levels, centres = _levels_of((odd + places[:, -1]) / 2, number)
        parts.append(_sized(_pack(list(_by_level((whole[:, -1] - odd) // 2 + centres, levels, number)))))
    return b"".join(parts)


def decode_points(data: bytes, lattice: Lattice, noise: Tensor) -> Tensor:
    """Return the points (N, dim) float64 of `encode_points`, exactly.

    Args:
        noise: (N, dim) float64, the same dither.

    Raises:
        Corrupt: the bytes are not those of so many points.
    """
    shape, offsets, count = _SHAPES[lattice.name], noise.detach().cpu().double().numpy(), len(noise)
    if not count:
        if data:
            raise Corrupt("there are bytes of no points.")
        return torch.zeros((0, lattice.dim), dtype=torch.float64)
    if not data or data[0] >= len(_LEVELS):
        raise Corrupt("points begin with what is not known.")
    number, position = data[0], 1
    half = None
    if shape.has_halves:
        (half,), position = _unpack(data, position, [count])
        if ((half < 0) | (half > 1)).any():
            raise Corrupt("a point is neither whole nor half.")
    places = _places(shape, half, offsets)
    whole = np.zeros((count, lattice.dim), np.int64)
    num_first = lattice.dim - shape.is_even
    if num_first:
        levels, centres = _levels_of(places[:, :num_first], number)
        found, position = _unpack(data, position, _counts(levels, number))
        whole[:, :num_first] = _from_levels(found, levels) - centres
    if shape.is_even:
        odd = whole[:, :num_first].sum(1) % 2
        levels, centres = _levels_of((odd + places[:, -1]) / 2, number)
        found, position = _unpack(data, position, _counts(levels, number))
        whole[:, -1] = 2 * (_from_levels(found, levels) - centres) + odd
    if position != len(data):
        raise Corrupt("there are bytes after the points.")
    points = whole * shape.scales
    return torch.from_numpy(points if half is None else points + 0.5 * half[:, None])


def _places(shape: _Shape, half: Integers | None, noise: Floats) -> Floats:
    """Where the dither puts whole numbers, in steps."""
    return (noise if half is None else noise + 0.5 * half[:, None]) / shape.scales


def _levels_of(places: Floats, number: int) -> tuple[Integers, Integers]:
    """Of places their levels, by how far they are off a whole number, and that number.

    WIRE NUMERICS: float64, by operations that IEEE 754 rounds exactly.
    """
    centres = np.floor(places + 0.5)
    levels = np.floor((places - centres + 0.5) * _LEVELS[number])
    return np.clip(levels, 0, _LEVELS[number] - 1).astype(np.int64), centres.astype(np.int64)


def _by_level(values: Integers, levels: Integers, number: int) -> Iterator[Integers]:
    for level in range(_LEVELS[number]):
        yield values[levels == level]


def _counts(levels: Integers, number: int) -> list[int]:
    return np.bincount(levels.ravel(), minlength=_LEVELS[number]).tolist()


def _from_levels(arrays: list[Integers], levels: Integers) -> Integers:
    values = np.zeros(levels.shape, np.int64)
    for level, array in enumerate(arrays):
        values[levels == level] = array
    return values


def _sized(data: bytes) -> bytes:
    return write_uint(len(data)) + data


def _pack(arrays: list[Integers]) -> bytes:
    """Arrays (N,) with a model of each one's own; what is empty has none."""
    present = [array for array in arrays if array.size]
    models = [fit_values(array).models for array in present]
    body = encode_body([CodedArray(a, m) for a, m in zip(present, models, strict=True)], wide=_is_wide(present))
    return b"".join([*map(write_models, models), body])


def _is_wide(arrays: list[Integers]) -> bool:
    return sum(array.size for array in arrays) >= 1 << 17


def _unpack(data: bytes, position: int, counts: list[int]) -> tuple[list[Integers], int]:
    size, position = read_uint(data, position)
    end = position + size
    if end > len(data):
        raise Corrupt("points end before their numbers.")
    part, at, specs = data[position:end], 0, list[ArraySpec]()
    for count in counts:
        if count:
            models, at = read_models(part, at)
            if models.class_model is not None:
                raise Corrupt("numbers of points have one model each.")
            specs.append(ArraySpec(1, count, models))
    found = iter(decode_body(part[at:], specs))
    return [next(found).reshape(-1) if count else np.zeros(0, np.int64) for count in counts], end
