"""What a payload says of blocks: their length, levels, scales and offsets (docs/payload/blockwise.md)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import Chunk
from fewbits.coder.body import decode_rows, encode_body
from fewbits.coder.elements import DecodedArray
from fewbits.coder.fields import FieldElements, Fields, field_integers
from fewbits.coder.integers import CodedArray, IntegerModel
from fewbits.coder.leb128 import read_sint, read_uint, write_sint, write_uint
from fewbits.errors import Corrupt
from fewbits.models.descriptions import read_model, write_model
from fewbits.models.fit import Fit, fit_values
from fewbits.payload import check_version, element_ranges, part_of
from fewbits.plan import tile_rows
from fewbits.quantize.block_grid import values_of
from fewbits.quantize.weights import Weights, rounded_bits
from fewbits.tensors import LOSSY_DTYPES

PAYLOAD_VERSION = 1
MOST_LENGTH = 1 << 20  # WIRE: elements of a block
LEAST_UNIT, MOST_UNIT = -126, 127  # WIRE: exponents of a unit, a normal float32
MOST_SHIFT = 16  # WIRE: octaves between the units of scales and of offsets
_OFFSETS, _EXACT = 1, 2  # WIRE: bits of the flags byte
_SIGNED, _DROPPED = 0x80, 0x1F  # WIRE: of the byte before the model of exact scales or offsets
_MANTISSA = 23
_SOME = 1 << 17  # elements that are held in float32 at once


class Blocks(NamedTuple):
    """A matrix, or tile of one, as it is written: M blocks, runs of elements of its rows.

    levels: (M, length) int32; scales: (M,) float32 if exact, else int32 in units of 2^(unit + scale_shift); offsets:
    the same, in units of 2^(unit + offset_shift), or None where all are 0; one of the two shifts is 0.
    """

    levels: NDArray[np.int32]
    scales: NDArray[np.float32 | np.int32]
    offsets: NDArray[np.float32 | np.int32] | None
    unit: int = 0
    scale_shift: int = 0
    offset_shift: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether values are to the bit what they were."""
        return self.scales.dtype == np.float32

    def are_bounded(self) -> bool:
        """Whether scale * level + offset, in whole numbers, is below 2^31 in magnitude."""
        if self.is_exact:
            return True
        most = _greatest(self.levels) * _greatest(_whole(self.scales)) << self.scale_shift
        return most + (0 if self.offsets is None else _greatest(_whole(self.offsets)) << self.offset_shift) < 1 << 31

    def write(self, weights: Weights) -> bool:
        """Write the values to weights (N,), rounded to their dtype; whether all are finite.

        NUMERICS: scales of whole numbers give whole numbers times a power of 2, one rounding in all; those of float32 a
        product and a sum, each rounded.
        """
        count, length = self.levels.shape
        some = max(1, _SOME // length)
        finite = True
        for start in range(0, count, some):
            rows = slice(start, start + some)
            part = Weights(weights.bits[start * length : (start + some) * length], weights.dtype)
            values = self._values(rows).ravel()
            part.bits[:] = rounded_bits(values, weights.dtype)
            finite = finite and bool(np.isfinite(values).all()) and bool(np.isfinite(_held(part)).all())
        return finite

    def _values(self, rows: slice) -> NDArray[np.float32]:
        levels = self.levels[rows]
        offsets = None if self.offsets is None else self.offsets[rows]
        if self.is_exact:
            return values_of(levels, _floats(self.scales[rows]), None if offsets is None else _floats(offsets))
        whole = levels * (_whole(self.scales[rows]) << self.scale_shift)[:, None]
        if offsets is not None:
            whole += (_whole(offsets) << self.offset_shift)[:, None]
        with np.errstate(over="ignore"):
            return whole.astype(np.float32) * np.float32(2.0**self.unit)

    def written(self) -> "Written":
        """What is written of them."""
        flags = (_OFFSETS if self.offsets is not None else 0) | (_EXACT if self.is_exact else 0)
        fields = [bytes([flags]), write_uint(self.levels.shape[1] - 1)]
        if not self.is_exact:
            fields += [write_sint(self.unit), write_sint(self.scale_shift - self.offset_shift)]
        sides = [self.scales] if self.offsets is None else [self.scales, self.offsets]
        levels = Array(self.levels, b"", fit_values(self.levels))
        return Written(b"".join(fields), (levels, *map(side_array, sides)))


class Array(NamedTuple):
    """Integers (N,) of one model, and what is said before it."""

    values: NDArray[np.int32 | np.uint32]
    head: bytes
    fit: Fit

    @property
    def bits(self) -> float:
        """What it takes, its description included."""
        return 8 * len(self.head) + self.fit.bits


class Written(NamedTuple):
    """Blocks as they are written: what stands before their arrays, and levels, scales and offsets."""

    head: bytes
    arrays: tuple[Array, ...]

    @property
    def bits(self) -> float:
        """What they take."""
        return 8 * len(self.head) + sum(array.bits for array in self.arrays)

    def description(self) -> bytes:
        """Describe the blocks."""
        return self.head + b"".join(each.head + write_model(each.fit.models.models[0]) for each in self.arrays)


def side_array(values: NDArray[np.float32 | np.int32]) -> Array:
    """Scales or offsets (M,) as they are coded."""
    if values.dtype == np.int32:
        whole = values.astype(np.int32)
        return Array(whole, b"", fit_values(whole))
    words = values.view(np.uint32).reshape(1, -1)
    fields = Fields.of(words, _MANTISSA)
    integers = field_integers(words, fields.zeros, signed=fields.signed).astype(np.uint32)
    head = bytes([int(fields.zeros[0]) | (_SIGNED if fields.signed else 0)])
    return Array(integers, head, fit_values(integers))


def _whole(values: NDArray[np.float32 | np.int32]) -> NDArray[np.int32]:
    return cast("NDArray[np.int32]", values)


def _floats(values: NDArray[np.float32 | np.int32]) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", values)


def _greatest(values: NDArray[np.integer]) -> int:
    return max(-int(values.min(initial=0)), int(values.max(initial=0)))


def _held(part: Weights) -> NDArray[np.floating]:
    return part.values() if part.dtype == "bfloat16" else part.bits.view(part.dtype)


def payload_of(written: Sequence[Written], *, wide: bool) -> bytes:
    """Return the payload of tensors, or of one tile."""
    coded = [CodedArray(array.values, array.fit.models) for each in written for array in each.arrays]
    return encode_body(coded, wide=wide, head=b"".join(each.description() for each in written))


class _Described(NamedTuple):
    """What stands before the integers of one tensor of a payload."""

    name: str
    num_blocks: int
    length: int
    has_offsets: bool
    heads: tuple[int, ...]  # of scales and offsets, if exact
    unit: int
    shift: int

    def lengths(self) -> list[int]:
        """Integers of each array."""
        return [self.num_blocks * self.length] + [self.num_blocks] * (1 + self.has_offsets)

    def blocks(self, parts: Sequence[NDArray[np.int32]]) -> Blocks:
        """Join the description and the arrays.

        Raises:
            Corrupt: an array holds what there is not.
        """
        levels, *sides = parts
        if self.heads:
            sides = [self._floats(part, head) for part, head in zip(sides, self.heads, strict=True)]
        offsets = sides[1] if self.has_offsets else None
        shifts = max(self.shift, 0), max(-self.shift, 0)
        found = Blocks(levels.reshape(self.num_blocks, self.length), sides[0], offsets, self.unit, *shifts)
        if not found.are_bounded():
            raise Corrupt(f"tensor {self.name!r} has a value out of range.")
        return found

    def _floats(self, integers: NDArray[np.int32], head: int) -> NDArray[np.float32]:
        words = np.empty(integers.size, np.uint32)
        signed, drops = bool(head & _SIGNED), bytes([head & _DROPPED])
        fields = integers.view(np.uint32).astype(np.int64)[None]
        FieldElements(words, self.name, signed=signed, drops=drops).write(DecodedArray(fields, np.zeros(1, np.int64)))
        return words.view(np.float32)


def blocks_of(
    chunk: Chunk, num_threads: int = 1, allocate: Callable[[int], NDArray[np.int32]] | None = None
) -> list[Blocks]:
    """Read a payload's blocks, in the order of the chunk's tensors; levels are in what `allocate` gives for all.

    Raises:
        Corrupt, Incompatible: as for `Blockwise.decode`.
    """
    check_version(chunk, PAYLOAD_VERSION)
    payload, position = chunk.payload, 0
    found: list[_Described] = []
    models: list[IntegerModel] = []
    for spec, span in element_ranges(chunk):
        rows, columns = tile_rows(spec, span)
        if spec.dtype not in LOSSY_DTYPES or not spec.num_elements or rows * columns == 0:
            raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have a blockwise payload.")
        flags, position = part_of(payload, position, 1)
        if flags[0] > _OFFSETS | _EXACT:
            raise Corrupt(f"tensor {spec.name!r} has unknown blockwise flags.")
        length, position = read_uint(payload, position)
        length += 1
        if length > MOST_LENGTH or columns % length:
            raise Corrupt(f"tensor {spec.name!r} has rows that are not of whole blocks.")
        unit = shift = 0
        is_exact, has_offsets = bool(flags[0] & _EXACT), bool(flags[0] & _OFFSETS)
        if not is_exact:
            unit, position = read_sint(payload, position)
            shift, position = read_sint(payload, position)
            if not LEAST_UNIT <= unit <= MOST_UNIT or abs(shift) > MOST_SHIFT:
                raise Corrupt(f"tensor {spec.name!r} has a unit out of range.")
        heads: list[int] = []
        for index in range(2 + has_offsets):
            if is_exact and index:
                head, position = part_of(payload, position, 1)
                if head[0] & ~(_SIGNED | _DROPPED):
                    raise Corrupt(f"tensor {spec.name!r} has scales or offsets of an unknown kind.")
                heads.append(head[0])
            model, position = read_model(payload, position)
            models.append(model)
        found.append(_Described(spec.name, rows * columns // length, length, has_offsets, tuple(heads), unit, shift))
    lengths = np.array([length for each in found for length in each.lengths()], np.int64)
    values = decode_rows(memoryview(payload)[position:], models, lengths, num_threads=num_threads, allocate=allocate)
    parts = iter(np.split(values, np.cumsum(lengths)[:-1]))
    return [each.blocks([next(parts) for _ in each.lengths()]) for each in found]
