"""The payload of `qswd`, version 1: factors described, then their whole numbers in one body.

The page is docs/payload/qswd.md.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, check_size, decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray
from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.errors import Corrupt
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import Fit, best_fit
from fewbits.payload import part_of, read_step
from fewbits.quantize.factors import MOST_EXPONENT, Factors
from fewbits.quantize.rounding import row_magnitudes
from fewbits.quantize.tiling import SIDES, Tiling

VERSION = 1  # WIRE: of the payload; a change needs new golden files
_COLUMNS, _ONE_HOT = 1, 2  # WIRE: bits of the flags byte
_LEAST_ROW = 32  # WIRE: vectors along the matrix's rows from which these are rows of their own in the coded array
MOST_WIDENING = 2  # WIRE: the rank is at most so many times the height
# Row scales that part classes of rows, half an octave apart.
_ROW_SCALES = 2.0 ** (np.arange(-16, 49) / 2)

# ---- writing


class Coded(NamedTuple):
    """One tensor's factors, ready to be written."""

    description: bytes
    arrays: tuple[CodedArray, ...]
    bits: float


def coded_shape(tiling: Tiling, rank: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the shape of the array that coefficients of a matrix (rows, columns) are coded as."""
    along, across = tiling.grid(rows, columns)
    return (rank * along, across) if across >= _LEAST_ROW else (rank, along * across)


def fit_coefficients(levels: NDArray[np.int64]) -> Fit:
    """Fit models to a coded array of coefficients (rows, n), by classes of rows if that pays."""
    if levels.shape[0] < 2:
        return best_fit(levels, None)
    narrow = levels.astype(np.int32)
    return best_fit(narrow, np.searchsorted(_ROW_SCALES, row_magnitudes(narrow) / levels.shape[1]))


def coded(factors: Factors, rows: int, columns: int, fit: Fit | None = None) -> Coded:
    """Describe the factors of a matrix (rows, columns); `fit` is of the coefficients, where it is known."""
    exponents, codebook = factors.exponents[None], np.ascontiguousarray(factors.codebook.T)
    if factors.one_hot:
        coefficients = factors.coefficients[None]
        fit = fit or best_fit(coefficients, None)
    else:
        coefficients = factors.coefficients.reshape(coded_shape(factors.tiling, factors.rank, rows, columns))
        fit = fit or fit_coefficients(coefficients)
    fits = (best_fit(exponents, None), fit_coefficients(codebook), fit)
    flags = _COLUMNS * SIDES.index(factors.tiling.side) | (_ONE_HOT if factors.one_hot else 0)
    fields = bytes([flags]) + write_uint(factors.tiling.height) + write_uint(factors.rank)
    description = fields + struct.pack("<f", factors.step) + b"".join(write_models(each.models) for each in fits)
    values = (exponents, codebook, coefficients)
    arrays = tuple(CodedArray(v, f.models, f.classes) for v, f in zip(values, fits, strict=True))
    return Coded(description, arrays, sum(each.bits for each in fits) + 8 * (len(fields) + 4))


def write(tensors: Sequence[Coded]) -> bytes:
    """Return the payload of tensors."""
    wide = sum(each.bits for each in tensors) >= LEAST_WIDE_BITS
    arrays = [array for each in tensors for array in each.arrays]
    return encode_body(arrays, wide=wide, head=b"".join(each.description for each in tensors))


# ---- reading


class _Described(NamedTuple):
    tiling: Tiling
    rank: int
    step: float
    one_hot: bool
    arrays: tuple[ArraySpec, ...]


def read(payload: bytes, specs: Sequence[TensorSpec], span: tuple[int, int] | None = None) -> list[Factors]:
    """Read the factors of a part's tensors, or of a range of one's elements, whole rows.

    Raises:
        Corrupt: the payload breaks a rule of its page.
    """
    described: list[_Described] = []
    position = 0
    for spec in specs:
        one, position = _read_description(payload, position, spec, span)
        described.append(one)
    arrays = [array for one in described for array in one.arrays]
    check_size(payload[position:], arrays)
    values = iter(decode_body(payload[position:], arrays))
    return [
        _factors(spec, one, next(values), next(values), next(values))
        for spec, one in zip(specs, described, strict=True)
    ]


def matrix_shape(spec: TensorSpec, span: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the shape (R, n) of a tensor's matrix, or of a range of its elements."""
    columns = spec.num_elements // max(1, spec.num_rows)
    if span is None:
        return spec.num_rows, columns
    if not columns or span[0] % columns or span[1] % columns:
        raise Corrupt(f"tensor {spec.name!r} has a tile that is not of whole rows.")
    return (span[1] - span[0]) // columns, columns


def _read_description(
    payload: bytes, position: int, spec: TensorSpec, span: tuple[int, int] | None
) -> tuple[_Described, int]:
    (flags,), position = part_of(payload, position, 1)
    height, position = read_uint(payload, position)
    rank, position = read_uint(payload, position)
    rows, columns = matrix_shape(spec, span)
    if flags > (_COLUMNS | _ONE_HOT):
        raise Corrupt(f"tensor {spec.name!r} has unknown qswd flags.")
    tiling, one_hot = Tiling(SIDES[flags & _COLUMNS], height), bool(flags & _ONE_HOT)
    if not rows * columns or not tiling.fits(rows, columns):
        raise Corrupt(f"tensor {spec.name!r} has vectors that do not divide it.")
    along, across = tiling.grid(rows, columns)
    if not 1 <= rank <= along * across or (not one_hot and rank > MOST_WIDENING * height):
        raise Corrupt(f"tensor {spec.name!r} has factors of a rank that it cannot have.")
    step, position = read_step(payload, position, spec)
    shapes = [(1, rank), (rank, height), (1, along * across) if one_hot else coded_shape(tiling, rank, rows, columns)]
    arrays: list[ArraySpec] = []
    for shape in shapes:
        models, position = read_models(payload, position)
        if models.class_model is None:
            shape = (1, shape[0] * shape[1])
        arrays.append(ArraySpec(*shape, models))
    return _Described(tiling, rank, step, one_hot, tuple(arrays)), position


def _factors(
    spec: TensorSpec,
    described: _Described,
    exponents: NDArray[np.int64],
    codebook: NDArray[np.int64],
    coefficients: NDArray[np.int64],
) -> Factors:
    """Put a tensor's factors together, and check them."""
    tiling, rank, step, one_hot, _ = described
    if int(exponents.min()) < 0 or int(exponents.max()) > MOST_EXPONENT:
        raise Corrupt(f"tensor {spec.name!r} has an exponent that is not from 0 to {MOST_EXPONENT}.")
    if one_hot and (int(coefficients.min()) < 0 or int(coefficients.max()) >= rank):
        raise Corrupt(f"tensor {spec.name!r} has an index of no column of its codebook.")
    held = coefficients.ravel() if one_hot else coefficients.reshape(rank, -1)
    factors = Factors(
        tiling, step, np.ascontiguousarray(codebook.reshape(rank, -1).T), exponents.ravel(), held, one_hot
    )
    if not factors.is_exact():
        raise Corrupt(f"tensor {spec.name!r} has factors whose product is not exact.")
    return factors
