"""A second decoder of the payload `blockwise`, from docs/payload/blockwise.md alone, on top of `independent_decoder`.

It shares no code with fewbits. Names are the page's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    from tests.golden import independent_decoder as base
except ImportError:  # run as a program, from any folder
    import independent_decoder as base

Array = NDArray[Any]

OFFSETS, FLOATS = 1, 2  # flags
SIGNED, DROPPED = 128, 31  # of a head
MOST_LENGTH = 1 << 20
UNITS, SHIFTS = (-126, 127), (-16, 16)
WHOLE_BOUND = 1 << 31


class Blocks(NamedTuple):
    """What a description says of a tensor; `arrays` (levels, scales, offsets if any) are filled in from the body."""

    tensor: base.Tensor
    length: int
    unit: int
    shift: int
    heads: list[int]  # of scales and offsets; none of whole numbers
    arrays: list[base.CodedArray]

    def values(self) -> Array:
        """The elements' bits."""
        k = signed(self.arrays[0])
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            w = self.by_floats(k) if self.heads else self.by_whole_numbers(k)
        return base.float_bits(self.tensor, w)

    def by_whole_numbers(self, k: Array) -> Array:
        a, b = signed(self.arrays[1]), signed(self.arrays[2]) if len(self.arrays) > 2 else np.zeros(1, np.int64)
        of_scales, of_offsets = 1 << max(self.shift, 0), 1 << max(-self.shift, 0)
        greatest = [int(np.abs(each).max()) for each in (a, k, b)]
        bound = greatest[0] * greatest[1] * of_scales + greatest[2] * of_offsets
        base.require(bound < WHOLE_BOUND, f"values of {self.tensor.name} have too many units")
        m = a[:, None] * k.reshape(-1, self.length) * of_scales + b[:, None] * of_offsets
        return m.ravel().astype(np.float32) * np.float32(2.0**self.unit)

    def by_floats(self, k: Array) -> Array:
        scale, *offset = (self.floats(*each) for each in zip(self.arrays[1:], self.heads, strict=True))
        w = k.astype(np.float32).reshape(-1, self.length) * scale[:, None]
        return (w + offset[0][:, None] if offset else w).ravel()

    def floats(self, array: base.CodedArray, head: int) -> Array:
        v = array.q & np.uint64(0xFFFFFFFF)
        sign_bits = 1 if head & SIGNED else 0
        sign = v & np.uint64(sign_bits)
        magnitude = v >> np.uint64(sign_bits) << np.uint64(head & DROPPED)
        base.require(np.all(magnitude < 1 << 32 - sign_bits), f"a scale or offset of {self.tensor.name} is too wide")
        return (sign << np.uint64(31) | magnitude).astype(np.uint32).view(np.float32)


def signed(array: base.CodedArray) -> Array:
    """The integers modulo 2^32, read as signed."""
    return array.q.astype(np.uint32).view(np.int32).astype(np.int64)


def decode_blockwise(c: base.Cursor, tensors: list[base.Tensor], pieces: list[base.Piece]) -> list[Array]:
    """For each piece the bits of its elements."""
    found = [read_blocks(c, tensors[piece.position], piece) for piece in pieces]
    base.decode_body(c, [array for blocks in found for array in blocks.arrays])
    return [blocks.values() for blocks in found]


def read_blocks(c: base.Cursor, tensor: base.Tensor, piece: base.Piece) -> Blocks:
    base.check_quantised(tensor)
    base.require(piece.elements > 0, f"{tensor.name} has no elements")
    columns = base.array_rows(tensor, piece)[1]
    flags, length = c.u8(), c.uint() + 1
    base.require(flags <= OFFSETS | FLOATS, f"a reserved flag of {tensor.name} is set")
    good = length <= MOST_LENGTH and columns % length == 0
    base.require(good, f"rows of {tensor.name} have no blocks of {length} elements")
    unit, shift = (0, 0) if flags & FLOATS else (c.sint(), c.sint())
    base.require(UNITS[0] <= unit <= UNITS[1], f"the unit of {tensor.name} is out of range")
    base.require(SHIFTS[0] <= shift <= SHIFTS[1], f"the shift of {tensor.name} is out of range")
    heads: list[int] = []
    models = [base.read_model(c)]
    for _ in range(2 if flags & OFFSETS else 1):
        if flags & FLOATS:
            heads.append(c.u8())
            base.require(heads[-1] & ~(SIGNED | DROPPED) == 0, f"a head of {tensor.name} has a reserved bit")
        models.append(base.read_model(c))
    counts = [piece.elements] + [piece.elements // length] * (len(models) - 1)
    arrays = [base.CodedArray(1, count, [model], None) for count, model in zip(counts, models, strict=True)]
    return Blocks(tensor, length, unit, shift, heads, arrays)
