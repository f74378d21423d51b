"""What a payload says of matrices: steps and scales of columns and rows, models, levels (docs/payload/sic.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import check_size, decode_body, decode_rows, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import Bytes, read_uint, read_uints, write_sint, write_uint
from fewbits.coder.scratch import scratch_array
from fewbits.errors import Corrupt
from fewbits.models.descriptions import read_model, write_model
from fewbits.models.fit import fit_values
from fewbits.models.shipped import shipped_table
from fewbits.native import core
from fewbits.payload import check_version, element_ranges, part_of
from fewbits.plan import TILE, tile_rows
from fewbits.quantize.columns import ColumnValues, ElementModels, row_order
from fewbits.quantize.parameter_decoders import STEPS_PER_OCTAVE, step_of
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations

PAYLOAD_VERSION = 2
SCALE_UNIT = 8  # WIRE: steps and row scales are 2^(code / 8)
MOST_SCALE_CODE = 1000  # WIRE: either way
MOST_CODE = 1 << 16  # WIRE: of a model, of a column or row, either way
MOST_MODELS = 4096  # WIRE: and classes of rows
_ROOM = 5 << 19  # words of 4 bytes for columns that are turned into rows together: a tile has room in them
_NO_TRELLIS = 6  # WIRE: in place of the logarithm of the number of paths
# Of levels from -2 to 2, which of a model's corrections they have, and what it is multiplied by.
_KINDS = np.array([3, 1, 0, 2, 3])
_OUTWARDS = np.array([-1, -1, 1, 1, 1], np.float32) / np.float32(256)


def scales_of(codes: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return 2^(code / 8), rounded to float32, of codes of any shape, -MOST_SCALE_CODE … MOST_SCALE_CODE."""
    return _scales().take(codes + MOST_SCALE_CODE)


@cache
def _scales() -> NDArray[np.float32]:
    codes = range(-MOST_SCALE_CODE, MOST_SCALE_CODE + 1)
    return np.array([step_of(STEPS_PER_OCTAVE // SCALE_UNIT * code) for code in codes], np.float32)


def shifts_by_model(corrections: NDArray[np.int8], num_models: int, trellis: bool) -> NDArray[np.float32]:
    """Return how far beyond levels values lie, in steps, (M, 5), the first models having corrections (C, 4)."""
    shifts = np.full((num_models, 5), 0.25 if trellis else 0, np.float32)
    shifts[: len(corrections)] += corrections.take(_KINDS, 1) * _OUTWARDS
    return shifts


@dataclass(frozen=True)
class Matrix:
    """One matrix (R, n), or tile of one, as it is written.

    classes: (K, 2) int32, scale codes and model codes; row_classes: (R,) int64, each row's of these; step_codes, codes:
    (n,) int32; corrections: (C, 4), of the models from the first on; models: of each model's levels.
    """

    num_paths: int
    classes: NDArray[np.int32]
    row_classes: NDArray[np.int64]
    step_codes: NDArray[np.int32]
    codes: NDArray[np.int32]
    corrections: NDArray[np.int8]
    models: tuple[IntegerModel, ...]

    @cached_property
    def values(self) -> ColumnValues:
        """What levels stand for."""
        scale_codes, model_codes = self.classes.T
        row_codes = model_codes.take(self.row_classes)
        order = row_order(row_codes)
        return ColumnValues(
            ElementModels(row_codes.take(order), len(self.models)),
            self.codes,
            scales_of(self.step_codes),
            scales_of(scale_codes).take(self.row_classes.take(order)),
            order,
            shifts_by_model(self.corrections, len(self.models), self.num_paths > 0),
            self.num_paths,
        )

    def side_arrays(self) -> list[CodedArray]:
        """The arrays that say which model and which step elements have."""
        arrays = [self.step_codes, self.codes]
        if len(self.classes) > 1:
            arrays.append(self.row_classes.astype(np.int32))
        return [CodedArray(array, fit_values(array).models) for array in arrays]

    def description(self, side: Sequence[CodedArray]) -> bytes:
        """Describe the matrix."""
        fields = [
            bytes([self.num_paths.bit_length() - 1 if self.num_paths else _NO_TRELLIS]),
            write_uint(len(self.classes) - 1),
        ]
        fields += [write_sint(code) for code in self.classes.ravel().tolist()]
        fields += [write_uint(len(self.models) - 1), write_uint(len(self.corrections))]
        fields.append(self.corrections.tobytes())
        fields += [write_model(model) for model in self.models]
        fields += [write_model(array.models.models[0]) for array in side]
        return b"".join(fields)


class Written(NamedTuple):
    """A matrix and its levels (R n,), model after model."""

    matrix: Matrix
    levels: NDArray[np.int32]

    def arrays(self) -> list[CodedArray]:
        """The levels of each model."""
        ends = np.cumsum(self.matrix.values.counts)[:-1]
        return [
            CodedArray(levels, ModelSet((model,)))
            for levels, model in zip(np.split(self.levels, ends), self.matrix.models, strict=True)
        ]


def payload_of(written: Sequence[Written], *, wide: bool) -> bytes:
    """Return the payload of matrices."""
    sides = [each.matrix.side_arrays() for each in written]
    descriptions = [each.matrix.description(side) for each, side in zip(written, sides, strict=True)]
    side = encode_body([array for arrays in sides for array in arrays], wide=False)
    head = b"".join([*descriptions, write_uint(len(side)), side])
    return encode_body([array for each in written for array in each.arrays()], wide=wide, head=head)


class _Described(NamedTuple):
    """What stands before the integers of one matrix of a payload."""

    name: str
    num_rows: int
    num_columns: int
    num_paths: int
    classes: NDArray[np.int32]
    corrections: NDArray[np.int8]
    models: tuple[IntegerModel, ...]
    side: tuple[ArraySpec, ...]

    def matrix(self, arrays: Sequence[NDArray[np.int64]]) -> Matrix:
        """Join the description and the side arrays.

        Raises:
            Corrupt: one of them holds what there is not.
        """
        step_codes, codes, *rest = (array.ravel() for array in arrays)
        row_classes = rest[0] if rest else np.zeros(self.num_rows, np.int64)
        _check(step_codes, -MOST_SCALE_CODE, MOST_SCALE_CODE, f"tensor {self.name!r} has a step out of range.")
        _check(codes, -MOST_CODE, MOST_CODE, f"tensor {self.name!r} has a column's code out of range.")
        _check(row_classes, 0, len(self.classes) - 1, f"tensor {self.name!r} has a row of no class.")
        narrow = step_codes.astype(np.int32), codes.astype(np.int32)
        return Matrix(self.num_paths, self.classes, row_classes, *narrow, self.corrections, self.models)


def _check(array: NDArray[np.int64], low: int, high: int, message: str) -> None:
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise Corrupt(message)


def decode_alone(chunk: Chunk, into: Mapping[str, Tensor] | None, num_threads: int) -> dict[str, Tensor] | None:
    """Return the reconstruction of one matrix, or tile, that has a payload alone, by the compiled core.

    Returns:
        None if that cannot be: it is to be decoded as `written_of` has it, which says what is wrong if anything is.

    Raises:
        Corrupt, Incompatible: as for `Sic.decode`.
    """
    check_version(chunk, PAYLOAD_VERSION)
    compiled = core()
    if compiled is None or len(chunk.tensors) != 1:
        return None
    ((spec, span),) = element_ranges(chunk)
    rows, columns = _shape(spec, span)
    if rows * columns > TILE:  # so much memory is not taken before it shows that the payload can hold it
        return None
    tensors = destinations(chunk, into)
    weights = Weights(bits_of(tensors[spec.name]), spec.dtype)
    levels, room = scratch_array(-(-rows * columns // 4)), scratch_array(_ROOM, "points")
    finite = compiled.decode_columns(
        chunk.payload, rows, columns, _scales(), shipped_table, levels, room, weights.code, weights.bits, num_threads
    )
    if finite is False:
        raise Corrupt(f"tensor {spec.name!r} decodes to values that are not finite.")
    return tensors if finite else None


def written_of(
    chunk: Chunk, num_threads: int = 1, allocate: Callable[[int], NDArray[np.int32]] | None = None
) -> list[Written]:
    """Read a payload's matrices, in the order of the chunk's tensors; levels are in what `allocate` gives for all.

    Raises:
        Corrupt, Incompatible: as for `Sic.decode`.
    """
    check_version(chunk, PAYLOAD_VERSION)
    described, position = _described(chunk)
    size, position = read_uint(chunk.payload, position)
    side, position = part_of(chunk.payload, position, size)
    specs = [spec for each in described for spec in each.side]
    check_size(side, specs)
    arrays = iter(decode_body(side, specs))
    matrices = [each.matrix([next(arrays) for _ in each.side]) for each in described]
    models = [model for matrix in matrices for model in matrix.models]
    counts = np.concatenate([matrix.values.counts for matrix in matrices])
    body = memoryview(chunk.payload)[position:]
    levels = decode_rows(body, models, counts, num_threads=num_threads, allocate=allocate)
    found: list[Written] = []
    start = 0
    for matrix, each in zip(matrices, described, strict=True):
        end = start + each.num_rows * each.num_columns
        found.append(Written(matrix, levels[start:end]))
        start = end
    return found


def _described(chunk: Chunk) -> tuple[list[_Described], int]:
    """Read the descriptions of a payload; returns them and the position after them."""
    payload, position = chunk.payload, 0
    found: list[_Described] = []
    for spec, span in element_ranges(chunk):
        rows, columns = _shape(spec, span)
        head, position = part_of(payload, position, 1)
        if head[0] > _NO_TRELLIS:
            raise Corrupt(f"tensor {spec.name!r} has more than 32 paths.")
        num_classes, position = _count(payload, position, f"tensor {spec.name!r} has too many classes of rows.")
        fields, position = read_uints(payload, position, 2 * num_classes)
        if max(fields[::2]) > 2 * MOST_SCALE_CODE or max(fields[1::2]) > 2 * MOST_CODE:
            raise Corrupt(f"tensor {spec.name!r} has a class of rows out of range.")
        classes = np.array(fields, np.int32).reshape(-1, 2)
        num_models, position = _count(payload, position, f"tensor {spec.name!r} has too many models.")
        num_corrected, position = read_uint(payload, position)
        if num_corrected > num_models:
            raise Corrupt(f"tensor {spec.name!r} has more corrections than models.")
        fields, position = part_of(payload, position, 4 * num_corrected)
        models: list[IntegerModel] = []
        for _ in range(num_models + 2 + (num_classes > 1)):
            model, position = read_model(payload, position)
            models.append(model)
        lengths = [columns, columns, rows]
        side = [
            ArraySpec(1, length, ModelSet((model,)))
            for length, model in zip(lengths, models[num_models:], strict=False)
        ]
        found.append(
            _Described(
                spec.name,
                rows,
                columns,
                1 << head[0] if head[0] < _NO_TRELLIS else 0,
                classes >> 1 ^ -(classes & 1),  # signed
                np.frombuffer(fields, np.int8).reshape(-1, 4),
                tuple(models[:num_models]),
                tuple(side),
            )
        )
    return found, position


def _shape(spec: TensorSpec, span: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns of a tensor's matrix, or tile.

    Raises:
        Corrupt: it cannot be coded so.
    """
    rows, columns = tile_rows(spec, span)
    if spec.dtype not in LOSSY_DTYPES or len(spec.shape) < 2 or not spec.num_elements or rows * columns == 0:
        raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have a sic payload.")
    if any(end % (spec.num_elements // spec.num_rows) for end in span):
        raise Corrupt(f"tensor {spec.name!r} has a tile that is not of whole rows.")
    return rows, columns


def _count(payload: Bytes, position: int, message: str) -> tuple[int, int]:
    """Read a number of classes or models, which is stored less one."""
    count, position = read_uint(payload, position)
    if count >= MOST_MODELS:
        raise Corrupt(message)
    return count + 1, position
