"""Floats as integers that code well: magnitudes without trailing zero bits, and signs (docs/payload/lossless.md)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.elements import DecodedArray
from fewbits.errors import Corrupt
from fewbits.native import core

if TYPE_CHECKING:
    from fewbits._core import Output


class Fields(NamedTuple):
    """What the floats of a matrix (R, n) have in common."""

    signed: bool  # whether any has a sign
    zeros: NDArray[np.uint64]  # (R,) trailing zero bits of each row's magnitudes
    exponents: NDArray[np.uint64]  # (R,) sum of each row's exponent fields
    num_nonzero: int  # elements whose bits are not all zero

    @classmethod
    def of(cls, matrix: NDArray[np.unsignedinteger], mantissa: int) -> "Fields":
        """Look at the words (R, n) of floats with this many mantissa bits, at each of them once."""
        if kernels := core():
            magnitudes, exponents = np.empty((2, matrix.shape[0]), np.uint64)
            signed, num_nonzero = kernels.survey_fields(matrix, mantissa, magnitudes, exponents)
            return cls(signed, _trailing_zeros(magnitudes), exponents, num_nonzero)
        sign, magnitude = _sign_and_magnitude(matrix)
        exponents = (magnitude >> np.uint64(mantissa)).sum(axis=1, dtype=np.uint64)
        zeros = _trailing_zeros(np.bitwise_or.reduce(magnitude, axis=1))
        return cls(bool(sign.any()), zeros, exponents, int(np.count_nonzero(matrix)))


def field_integers(
    matrix: NDArray[np.unsignedinteger], drops: NDArray[np.uint64], *, signed: bool
) -> NDArray[np.uint32 | np.int64]:
    """Integers of floats (R, n), same shape: int64 where the floats have 64 bits, else uint32.

    Args:
        matrix: the words.
        drops: (R,) low bits that the magnitudes of a row go without.
        signed: put the signs below the magnitudes.
    """
    width = 8 * matrix.dtype.itemsize
    integers = np.empty(matrix.shape, np.int64) if width == 64 else np.empty(matrix.shape, np.uint32)
    if kernels := core():
        kernels.prefer_huge_pages(integers)
        kernels.field_integers(matrix, drops, signed, integers)
        return integers
    sign, magnitude = _sign_and_magnitude(matrix)
    kept = magnitude >> drops[:, None]
    integers[:] = ((kept << np.uint64(1) | sign if signed else kept) ^ _top_bit(width)).view(np.int64)
    return integers


class FieldElements:
    """Floats from sign and magnitude: the decoder's side of docs/payload/lossless.md, transforms 2 to 4."""

    def __init__(self, bits: NDArray[np.unsignedinteger], name: str, *, signed: bool, drops: bytes) -> None:
        """Write to these words (N,); rows of class k have lost drops[k] low bits. Errors name the tensor."""
        self._bits, self._name, self._signed, self._drops = bits, name, signed, drops

    def write(self, decoded: DecodedArray) -> None:
        """Write the floats of integers.

        Raises:
            Corrupt: a magnitude does not fit.
        """
        width = 8 * self._bits.itemsize
        words = decoded.values.view(np.uint64) ^ _top_bit(width)
        sign = words & np.uint64(1)
        drop = np.frombuffer(self._drops, np.uint8).astype(np.uint64)[decoded.classes][:, None]
        words = words >> np.uint64(self._signed)
        if (words > np.uint64((1 << (width - self._signed)) - 1) >> drop).any():
            raise Corrupt(f"tensor {self._name!r} has an element too wide for its dtype.")
        words = words << drop
        if self._signed:
            words |= sign << np.uint64(width - 1)
        self._bits[:] = words.ravel()

    def native(self, output: "type[Output]") -> "Output":
        """Say the same to the compiled core."""
        return output.fields(self._bits, repr(self._name), self._signed, self._drops)


def _top_bit(width: int) -> np.uint64:
    """What 64-bit words are XORed with, so that signed comparison keeps their order; nothing for narrower ones. WIRE"""
    return np.uint64(1 << 63 if width == 64 else 0)


def _sign_and_magnitude(matrix: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The top bit of each word, and its other bits."""
    width = 8 * matrix.dtype.itemsize
    words = matrix.astype(np.uint64)
    return words >> np.uint64(width - 1), words & np.uint64((1 << (width - 1)) - 1)


def _trailing_zeros(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Trailing zero bits of each value (R,); of 0 none, which is as good as any."""
    lowest = values & (~values + np.uint64(1))
    return np.maximum(np.frexp(lowest.astype(np.float64))[1] - 1, 0).astype(np.uint64)
