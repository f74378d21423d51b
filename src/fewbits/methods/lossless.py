"""Lossless tensors: every bit back, smaller.

Floats are taken apart into sign and magnitude. The magnitude's high part (exponent, and as many mantissa bits as pay)
is coded; the rest is nearly uniform and goes raw, without the trailing zero bits that rows of narrower precision have.
Rows may form classes by scale and by trailing zeros. Integers are coded as they are or as differences. Of a sparse
tensor a mask is coded, whose rows may form classes by density, and then the elements that are not zero.
Payload: docs/payload/lossless.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import DTYPES, Chunk, Loss, TensorSpec
from fewbits.coder.body import check_size, decode_into, encode_body
from fewbits.coder.elements import Elements, Integers
from fewbits.coder.fields import FieldElements, Fields, field_integers
from fewbits.coder.integers import ArraySpec, CodedArray
from fewbits.coder.leb128 import Bytes, read_uint, write_uint
from fewbits.errors import Corrupt
from fewbits.method import Method, MethodConfig, Source, Survey
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import Fit, best_fit, fit_rows, fit_values
from fewbits.payload import check_version, element_ranges, part_of
from fewbits.plan import SMALL, group_small, tile_rows, tiles
from fewbits.tensors import bits_of, destinations, spec_of

# WIRE: transforms
_INTEGERS, _DIFFERENCES, _SIGNED_FLOATS, _UNSIGNED_FLOATS, _SPARSE_FLOATS, _SPARSE_INTEGERS = range(6)
_OF_NONZERO = {_SPARSE_FLOATS: _SIGNED_FLOATS, _SPARSE_INTEGERS: _INTEGERS}  # how the non-zero elements are coded
_DROPPING = (_SIGNED_FLOATS, _UNSIGNED_FLOATS, _SPARSE_FLOATS)  # transforms of floats, which drop trailing zeros
_LEAST_ROW = 32  # elements of a row below which classes of rows are not tried
_LEAST_SPARSE = 64  # elements below which a mask is not tried
_LARGE = 1 << 20  # elements from which on it is nothing what classes of rows cost to describe


@dataclass(frozen=True)
class LosslessConfig(MethodConfig):
    """No settings: the choices are made by measured size."""


class Coded(NamedTuple):
    """One tensor or tile ready to be written: its description, its arrays of integers and its expected bits."""

    description: bytes
    arrays: tuple[CodedArray, ...]
    bits: float


class _Description(NamedTuple):
    """What a decoder knows of one tensor or tile before the body."""

    transform: int
    arrays: tuple[ArraySpec, ...]  # sparse: the mask, then the elements that are not zero
    drops: bytes


@dataclass(frozen=True)
class _FixedSurvey:
    total: float

    def bits(self, rate_weight: float) -> float:
        """Expected bits, the same at any rate weight."""
        return self.total


class Lossless(Method):
    """Every bit of every dtype back."""

    id = "lossless"
    code = 1
    payload_version = 1
    config_type = LosslessConfig

    def __init__(self, config: LosslessConfig | None = None) -> None:
        """Build the method; there is nothing to set."""
        self.config = config or LosslessConfig()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def survey(self, source: Source) -> Survey:
        """Sum the expected bits of all tensors."""
        coded = (code_bits(bits_of(tensor), spec_of(name, tensor)) for name, tensor in source.tensors.items())
        return _FixedSurvey(sum(item.bits for item in coded))

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts; rate_weight has no effect."""
        specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        for unit in self.units(specs):
            yield from self.encode_unit([(spec, source.tensors[spec.name], "") for spec in unit], seed)

    def encode_unit(self, items: Sequence[tuple[TensorSpec, Tensor, str]], seed: int) -> Iterator[Chunk]:
        """Yield the parts of one unit; each tensor comes with a note for its loss record."""
        if len(items) > 1 or items[0][0].num_elements < SMALL:
            coded = [code_bits(bits_of(tensor), spec) for spec, tensor, _ in items]
            specs, notes = [spec for spec, _, _ in items], [note for _, _, note in items]
            yield self._chunk(specs, coded, notes, seed, wide=False)
            return
        spec, tensor, note = items[0]
        bits = bits_of(tensor)
        words = bits.size // spec.num_elements
        spans = tiles(spec)
        for span in spans:
            coded = code_bits(bits[span[0] * words : span[1] * words], spec, span)
            yield self._chunk([spec], [coded], [note], seed, wide=True, span=span if len(spans) > 1 else None)

    def _chunk(
        self,
        specs: Sequence[TensorSpec],
        coded: Sequence[Coded],
        notes: Sequence[str],
        seed: int,
        *,
        wide: bool,
        span: tuple[int, int] | None = None,
    ) -> Chunk:
        description = b"".join(item.description for item in coded)
        payload = encode_body([array for item in coded for array in item.arrays], wide=wide, head=description)
        config = self.config.to_json()
        losses = tuple(Loss(0.0, 0.0, item.bits, note) for item, note in zip(coded, notes, strict=True))
        return Chunk(self.id, self.payload_version, config, seed, tuple(specs), payload, span, losses)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the tensors' exact bits."""
        check_version(chunk, self.payload_version)
        tensors = destinations(chunk, into)
        position = 0
        descriptions: list[_Description] = []
        for spec, span in element_ranges(chunk):
            description, position = _read_description(chunk.payload, position, spec, span)
            descriptions.append(description)
        arrays = [array for description in descriptions for array in description.arrays]
        body = memoryview(chunk.payload)[position:]
        check_size(body, arrays)
        targets = [
            _Target(bits_of(tensors[spec.name]), description, spec)
            for spec, description in zip(chunk.tensors, descriptions, strict=True)
        ]
        elements = [each for target in targets for each in target.elements]
        decode_into(body, arrays, elements, num_threads=num_threads)
        for target in targets:
            target.finish()
        return tensors


def _read_description(
    payload: Bytes, position: int, spec: TensorSpec, span: tuple[int, int]
) -> tuple[_Description, int]:
    """Read one tensor's description; returns it and the position after it."""
    (transform,), position = part_of(payload, position, 1)
    if transform > _SPARSE_INTEGERS or (transform in _DROPPING and not DTYPES[spec.dtype].mantissa):
        raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have this transform.")
    models, position = read_models(payload, position)
    rows, row_length = _rows(spec, span)
    if models.class_model is None:
        rows, row_length = 1, rows * row_length
    arrays = (ArraySpec(rows, row_length, models),)
    if transform in _OF_NONZERO:
        num_nonzero, position = read_uint(payload, position)
        models, position = read_models(payload, position)
        if num_nonzero > rows * row_length:
            raise Corrupt(f"tensor {spec.name!r} has fewer elements than it declares not to be zero.")
        if models.class_model is not None:
            raise Corrupt(f"tensor {spec.name!r} has classes among the elements that are not zero.")
        arrays += (ArraySpec(1, num_nonzero, models),)
    drops = b""
    if transform in _DROPPING:
        drops, position = part_of(payload, position, len(models.models))
        if max(drops) > 63:
            raise Corrupt(f"tensor {spec.name!r} drops more than 63 bits.")
    return _Description(transform, arrays, bytes(drops)), position


def _rows(spec: TensorSpec, span: tuple[int, int]) -> tuple[int, int]:
    """Rows and row length in coded elements: a complex number is two."""
    rows, row_length = tile_rows(spec, span)
    return rows, row_length * (2 if DTYPES[spec.dtype].kind == "complex" else 1)


def code_bits(bits: NDArray[np.unsignedinteger], spec: TensorSpec, span: tuple[int, int] | None = None) -> Coded:
    """Choose how the bits of a tensor, or of a range of its elements, are coded.

    Args:
        bits: (N,) unsigned, of the range.
    """
    if bits.size == 0:
        models = fit_values(np.zeros(1, np.int64)).models
        nothing = CodedArray(np.zeros((1, 0), np.int64), models)
        return Coded(bytes([_INTEGERS]) + write_models(models), (nothing,), 0.0)
    matrix = bits.reshape(_rows(spec, span or (0, spec.num_elements)))
    if DTYPES[spec.dtype].mantissa:
        fields = Fields.of(matrix, DTYPES[spec.dtype].mantissa)
        candidates = [_with_floats(matrix, fields)]
        num_nonzero = fields.num_nonzero
    else:
        candidates = [_with_integers(matrix, spec)]
        if matrix.size > 1 and DTYPES[spec.dtype].itemsize > 1:
            candidates.append(_with_differences(matrix, spec))
        num_nonzero = int(np.count_nonzero(matrix))
    if matrix.size >= _LEAST_SPARSE and 0 < 4 * num_nonzero <= 3 * matrix.size:
        candidates += _with_mask(matrix, spec)
    return min(candidates, key=lambda coded: coded.bits)


def _finish(transform: int, values: NDArray[np.uint32 | np.int64], fit: Fit, drops: bytes = b"") -> Coded:
    description = bytes([transform]) + write_models(fit.models) + drops
    return Coded(description, (CodedArray(values, fit.models, fit.classes),), fit.bits + 8 * (1 + len(drops)))


def _with_mask(matrix: NDArray[np.unsignedinteger], spec: TensorSpec) -> list[Coded]:
    """Code which elements (R, n) are not zero, rows in classes by density where it pays, then those elements."""
    mask = matrix != 0
    integers = mask.astype(np.int64)
    keys: NDArray[np.int64] | None = None
    if matrix.shape[0] > 1 and matrix.shape[1] >= _LEAST_ROW:
        ones = np.count_nonzero(mask, axis=1)
        rarer = np.minimum(ones, matrix.shape[1] - ones)
        half_octave = np.frexp(rarer.astype(np.float64) ** 2)[1].astype(np.int64)
        keys = np.where(ones == rarer, half_octave, 256 - half_octave)
    mask_fit = best_fit(integers, keys)
    head = write_models(mask_fit.models) + write_uint(int(np.count_nonzero(mask)))
    mask_array = CodedArray(integers, mask_fit.models, mask_fit.classes)

    def after_mask(transform: int, rest: Coded) -> Coded:
        description = bytes([transform]) + head + rest.description[1:]
        bits = mask_fit.bits + 8 * (len(head) - len(write_models(mask_fit.models))) + rest.bits
        return Coded(description, (mask_array, *rest.arrays), bits)

    nonzero, mantissa = matrix[mask][None], DTYPES[spec.dtype].mantissa
    candidates: list[Coded] = []
    if mantissa:
        fields = Fields.of(nonzero, mantissa)._replace(signed=True)  # what is not zero may always have a sign
        candidates.append(after_mask(_SPARSE_FLOATS, _with_floats(nonzero, fields)))
    if not mantissa or not (nonzero >> (8 * nonzero.itemsize - 1)).any():
        candidates.append(after_mask(_SPARSE_INTEGERS, _with_integers(nonzero, spec)))
    return candidates


def _as_integers(matrix: NDArray[np.unsignedinteger], spec: TensorSpec) -> NDArray[np.int64]:
    """Elements as int64, sign-extended for signed dtypes."""
    if DTYPES[spec.dtype].kind == "signed":
        return matrix.view(f"<i{matrix.dtype.itemsize}").astype(np.int64)
    return matrix.astype(np.uint64).view(np.int64)


def _with_integers(matrix: NDArray[np.unsignedinteger], spec: TensorSpec) -> Coded:
    values = _as_integers(matrix, spec)
    return _finish(_INTEGERS, values, fit_values(values))


def _with_differences(matrix: NDArray[np.unsignedinteger], spec: TensorSpec) -> Coded:
    values = np.diff(_as_integers(matrix, spec).ravel(), prepend=np.int64(0))
    return _finish(_DIFFERENCES, values, fit_values(values))


def _with_floats(matrix: NDArray[np.unsignedinteger], fields: Fields) -> Coded:
    """Code floats (R, n) as sign and magnitude; classes of rows by trailing zeros and by scale, where they pay."""
    zeros = fields.zeros
    transform = _SIGNED_FLOATS if fields.signed else _UNSIGNED_FLOATS
    drop = int(zeros.min())
    by_row = matrix.shape[0] > 1 and matrix.shape[1] >= _LEAST_ROW
    quarter_octave = (4 * fields.exponents) // np.uint64(max(1, matrix.shape[1]))
    keys = (quarter_octave << np.uint64(6) | zeros).view(np.int64)
    spared = int((zeros - np.uint64(drop)).sum()) * matrix.shape[1]  # bits that only some rows have to keep
    least = np.full(zeros.shape, drop, np.uint64)
    if not by_row or spared == 0:
        whole = field_integers(matrix, least, signed=fields.signed)
        fit = best_fit(whole, keys if by_row else None, class_bytes=1)
        return _finish(transform, whole, fit, bytes([drop] * len(fit.models.models)))
    dropped = field_integers(matrix, zeros, signed=fields.signed)

    def by(key: NDArray[np.int64]) -> list[Coded]:
        fit = fit_rows(dropped, key)
        if fit is None or fit.classes is None:
            return []
        drops = bytes(int(zeros[fit.classes == index][0]) for index in range(len(fit.models.models)))
        return [_finish(transform, dropped, fit, drops)]

    # Where classes pay in any case, those by scale as well are taken at once: to try all takes three times as long.
    if matrix.size >= _LARGE and 1024 * spared >= 8 * matrix.nbytes and (found := by(keys)):
        return found[0]
    whole = field_integers(matrix, least, signed=fields.signed)
    candidates = [_finish(transform, whole, fit_values(whole), bytes([drop])), *by(zeros.view(np.int64)), *by(keys)]
    return min(candidates, key=lambda coded: coded.bits)


class _Target:
    """Where one tensor's bits are written, by way of what its transform needs between."""

    def __init__(self, bits: NDArray[np.unsignedinteger], description: _Description, spec: TensorSpec) -> None:
        """Prepare the elements of the description's arrays."""
        self._bits, self._transform, self._spec = bits, description.transform, spec
        self._mask = np.empty(bits.size if description.transform in _OF_NONZERO else 0, np.int64)
        # Differences are summed, and the elements that are not zero spread, before they are the tensor's.
        count = description.arrays[-1].num_rows * description.arrays[-1].row_length
        if self._transform == _DIFFERENCES:
            self._between: NDArray[np.unsignedinteger] = np.empty(count, np.uint64)
        else:
            self._between = np.empty(count, bits.dtype) if self._mask.size else bits
        self.elements: list[Elements] = [Integers(self._mask)] if self._transform in _OF_NONZERO else []
        if self._transform in _DROPPING:
            signed = self._transform != _UNSIGNED_FLOATS
            fields = FieldElements(self._between, spec.name, signed=signed, drops=description.drops)
            self.elements.append(fields)
        else:
            self.elements.append(Integers(self._between))

    def finish(self) -> None:
        """Write what is not written yet, and check it.

        Raises:
            Corrupt: the mask is none, or the elements are none of the dtype.
        """
        name = self._spec.name
        if self._transform == _DIFFERENCES:
            self._bits[:] = np.cumsum(self._between).astype(self._bits.dtype)
        if self._transform in _OF_NONZERO:
            if ((self._mask != 0) & (self._mask != 1)).any():
                raise Corrupt(f"tensor {name!r} has a mask that is not of zeros and ones.")
            if np.count_nonzero(self._mask) != self._between.size:
                raise Corrupt(f"tensor {name!r} has another number of non-zero elements than it declares.")
            self._bits[:] = 0
            self._bits[self._mask != 0] = self._between
        if self._spec.dtype == "bool" and (self._bits > 1).any():
            raise Corrupt(f"tensor {name!r} has an element that is not a bool.")
