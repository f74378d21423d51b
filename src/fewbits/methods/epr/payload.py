"""The payload of `epr`, version 2: descriptions of tensors, then their levels in tables or adaptively.

The page is docs/payload/epr.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import TensorSpec
from fewbits.coder.adaptive import Geometry, adaptive_bits, decode_adaptive, encode_adaptive
from fewbits.coder.body import LEAST_WIDE_BITS, decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray
from fewbits.coder.leb128 import read_sint, read_uint, write_sint, write_uint
from fewbits.errors import Corrupt
from fewbits.methods.epr.frames import Extents, Frame, LevelTensor, framed, level_shape, shared_decoder
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import best_fit
from fewbits.payload import part_of
from fewbits.quantize.parameter_decoders import (
    MOST_BASIS_WORK,
    MOST_CODE,
    MOST_KERNEL,
    Grid,
    Kernels,
    ParameterDecoder,
    Scalar,
    dft,
)

VERSION = 2  # WIRE: of the payload; a change needs new golden files
_TABLES, _ADAPTIVE = 0, 1  # WIRE: coders
_SCALAR, _DFT, _MATRIX, _GRID, _SHARED = range(5)  # WIRE: kinds of decoders, the low bits of a description's first byte
_ROWS, _SLICES, _IMAGE, _KERNEL_ROWS = 8, 16, 32, 64  # WIRE: the flags above them
# Bytes: beyond the one, adaptive coding takes seconds; beyond the other, it does so if frames are tried one by one. Of
# a ResNet-20 trained to two bits a weight it spares a fifth.
_MOST_ADAPTIVE, _MOST_TRIED = 1 << 18, 1 << 16

# ---- writing


def encode_levels(tensors: Sequence[LevelTensor]) -> bytes:
    """Return the payload of tensors, in tables or adaptively, whichever is shorter."""
    tables = _encode(tensors, [framed(t.shape, t.decoder, None) for t in tensors], _TABLES)
    if len(tables) > _MOST_ADAPTIVE:
        return tables
    frames = [_best_frame(tensor) for tensor in tensors]
    adaptive = _encode(tensors, frames, _ADAPTIVE)
    if len(adaptive) > _MOST_TRIED:
        return min(tables, adaptive, key=len)
    # What suits a tensor alone may not suit it beside the others, from which the coder has learned by then.
    for position, tensor in enumerate(tensors):
        plain = framed(tensor.shape, tensor.decoder, None)
        if frames[position] != plain:
            others = [*frames[:position], plain, *frames[position + 1 :]]
            shorter = _encode(tensors, others, _ADAPTIVE)
            if len(shorter) < len(adaptive):
                frames, adaptive = others, shorter
    return min(tables, adaptive, key=len)


def _encode(tensors: Sequence[LevelTensor], frames: Sequence[Frame], coder: int) -> bytes:
    extents = Extents()
    described: list[bytes] = [bytes([coder])]
    blocks: list[NDArray[np.int64]] = []
    geometries: list[Geometry] = []
    arrays: list[CodedArray] = []
    bits = 0.0
    for position, (tensor, whole) in enumerate(zip(tensors, frames, strict=True)):
        levels = tensor.levels.reshape(whole.full)
        frame = _cut(whole, levels)
        described.append(_write_description(tensor, whole, frame, extents, _shared(tensors, position)))
        block = levels[: frame.rows, : frame.slices]
        if coder == _ADAPTIVE:
            geometries.append(frame.geometry)
            blocks.append(_matrix_of(block, frame))
            continue
        array = _as_rows(block, tensor.decoder)
        if array.size:
            fit = best_fit(array, _row_keys(array, tensor.decoder))
            arrays.append(CodedArray(array, fit.models, fit.classes))
            described.append(write_models(fit.models))
            bits += fit.bits
    if coder == _ADAPTIVE:
        return b"".join(described) + encode_adaptive(blocks, geometries)
    return encode_body(arrays, wide=bits >= LEAST_WIDE_BITS, head=b"".join(described))


def _matrix_of(block: NDArray[np.int64], frame: Frame) -> NDArray[np.int64]:
    """Live levels as the matrix that is coded adaptively."""
    geometry = frame.geometry
    return np.ascontiguousarray(block).reshape(geometry.rows, geometry.slices * geometry.height * geometry.width)


def _as_rows(block: NDArray[np.int64], decoder: ParameterDecoder) -> NDArray[np.int64]:
    """Live levels as the rows that tables are fitted to: a row for each coefficient of a kernel, else for each unit."""
    if isinstance(decoder, Kernels):
        return np.ascontiguousarray(block.reshape(block.shape[0] * block.shape[1], block.shape[2]).T)
    return np.ascontiguousarray(block.reshape(block.shape[0], block.shape[1] * block.shape[2]))


def _row_keys(array: NDArray[np.int64], decoder: ParameterDecoder) -> NDArray[np.int64] | None:
    """Rows of about the same magnitude are a class: by half octaves of the mean, for coefficients by quarters."""
    if array.shape[0] < 2:
        return None
    mean = np.abs(array).sum(axis=1).astype(np.float64) / array.shape[1]
    fineness = 4 if isinstance(decoder, Kernels) else 2
    return np.rint(fineness * np.log2(mean + 1e-3)).astype(np.int64)


def _cut(frame: Frame, levels: NDArray[np.int64]) -> Frame:
    """Leave off the zero rows and slices at the end."""
    present = levels != 0
    rows = np.flatnonzero(present.any((1, 2)))
    slices = np.flatnonzero(present.any((0, 2)))
    return frame._replace(rows=int(rows[-1]) + 1 if rows.size else 0, slices=int(slices[-1]) + 1 if slices.size else 0)


def _best_frame(tensor: LevelTensor) -> Frame:
    """The frame in which an adaptive coder needs the fewest bits for this tensor alone."""
    plain = framed(tensor.shape, tensor.decoder, None)
    candidates = [plain]
    if isinstance(tensor.decoder, Kernels):
        candidates.append(plain._replace(kernel_rows=True))
    if isinstance(tensor.decoder, Scalar) and len(tensor.shape) == 2:
        columns = tensor.shape[1]
        for side in range(2, min(math.isqrt(columns), 64) + 1):
            if columns % (side * side) == 0:
                candidates.append(framed(tensor.shape, tensor.decoder, (side, side)))
    if len(candidates) == 1 or not tensor.levels.any():
        return plain
    costs: list[float] = []
    for candidate in candidates:
        levels = tensor.levels.reshape(candidate.full)
        frame = _cut(candidate, levels)
        block = _matrix_of(levels[: frame.rows, : frame.slices], frame)
        image = 16 if candidate.full != plain.full else 0
        costs.append(image + sum(adaptive_bits([block], [frame.geometry])))
    return candidates[min(range(len(costs)), key=costs.__getitem__)]


def _shared(tensors: Sequence[LevelTensor], position: int) -> bool:
    """Whether a tensor's decoder is the very one that it may share."""
    tensor = tensors[position]
    before = shared_decoder(tensor.shape, [each.decoder for each in tensors[:position]])
    return before is not None and _write_decoder(before) == _write_decoder(tensor.decoder)


def _write_decoder(decoder: ParameterDecoder) -> tuple[int, bytes]:
    """A decoder's kind and fields."""
    codes = b"".join(map(write_sint, decoder.step_codes))
    if isinstance(decoder, Scalar):
        return _SCALAR, codes
    if isinstance(decoder, Grid):
        return _GRID, bytes([*decoder.image, *decoder.size, decoder.margin]) + codes
    if decoder.matrix is None:
        return _DFT, codes
    return _MATRIX, codes + decoder.matrix


def _write_description(tensor: LevelTensor, whole: Frame, frame: Frame, extents: Extents, shared: bool) -> bytes:
    kind, fields = _write_decoder(tensor.decoder)
    first = kind
    if shared:
        first, fields = _SHARED, b""
    dimensions = len(tensor.shape)
    if whole.full != level_shape(tensor.shape, tensor.decoder):
        first |= _IMAGE
        fields += bytes([frame.height, frame.width])
    if frame.kernel_rows:
        first |= _KERNEL_ROWS
    if frame.rows != extents.rows(whole.full, dimensions):
        first |= _ROWS
        fields += write_uint(frame.rows)
    if frame.slices != extents.slices(whole.full, dimensions):
        first |= _SLICES
        fields += write_uint(frame.slices)
    extents.note(whole.full, frame, dimensions)
    return bytes([first]) + fields


# ---- reading


class _Described(NamedTuple):
    decoder: ParameterDecoder
    frame: Frame


def decode_levels(payload: bytes, shapes: Sequence[tuple[TensorSpec, tuple[int, ...]]]) -> list[LevelTensor]:
    """Read a payload; returns each tensor's levels, (rows, slices, inner), and decoder.

    Args:
        shapes: each tensor's spec, and the shape of what the payload has of it.

    Raises:
        Corrupt: it breaks a rule of its page.
    """
    (coder,), position = part_of(payload, 0, 1)
    if coder > _ADAPTIVE:
        raise Corrupt(f"tensor {shapes[0][0].name!r} has a coder that is not known.")
    extents = Extents()
    found: list[_Described] = []
    specs: list[ArraySpec] = []
    for spec, shape in shapes:
        start, before = position, [each.decoder for each in found]
        described, position = _read_description(payload, position, spec, shape, before, extents)
        found.append(described)
        frame = described.frame
        if coder == _TABLES:
            if payload[start] & (_IMAGE | _KERNEL_ROWS):
                raise Corrupt(f"tensor {spec.name!r} has a geometry that only adaptive coding knows.")
            if math.prod(frame.live):
                models, position = read_models(payload, position)
                rows, row_length = _rows_of(frame, described.decoder)
                if models.class_model is None:
                    rows, row_length = 1, rows * row_length
                specs.append(ArraySpec(rows, row_length, models))
    body = payload[position:]
    if coder == _ADAPTIVE:
        blocks = decode_adaptive(body, [each.frame.geometry for each in found])
    else:
        arrays = iter(decode_body(body, specs))
        blocks = [next(arrays) if math.prod(each.frame.live) else np.zeros(0, np.int64) for each in found]
    tensors: list[LevelTensor] = []
    for (_, shape), each, block in zip(shapes, found, blocks, strict=True):
        levels = np.zeros(each.frame.full, np.int64)
        rows, slices, inner = each.frame.live
        if coder == _TABLES and isinstance(each.decoder, Kernels) and block.size:
            block = block.reshape(inner, rows * slices).T
        levels[:rows, :slices] = block.reshape(each.frame.live)
        tensors.append(LevelTensor(shape, levels, each.decoder))
    return tensors


def _rows_of(frame: Frame, decoder: ParameterDecoder) -> tuple[int, int]:
    """Rows and row length of `_as_rows`."""
    rows, slices, inner = frame.live
    return (inner, rows * slices) if isinstance(decoder, Kernels) else (rows, slices * inner)


def _read_description(
    payload: bytes,
    position: int,
    spec: TensorSpec,
    shape: tuple[int, ...],
    before: Sequence[ParameterDecoder],
    extents: Extents,
) -> tuple[_Described, int]:
    (first,), position = part_of(payload, position, 1)
    kind = first & 7
    if kind > _SHARED or first >> 7:
        raise Corrupt(f"tensor {spec.name!r} has a decoder that is not known.")
    if kind == _SHARED:
        decoder = shared_decoder(shape, before)
        if decoder is None:
            raise Corrupt(f"tensor {spec.name!r} shares a decoder that is not there.")
    else:
        decoder, position = _read_decoder(payload, position, kind, spec, shape)
    image = None
    if first & _IMAGE:
        octets, position = part_of(payload, position, 2)
        image = octets[0], octets[1]
        fits = isinstance(decoder, Scalar) and len(shape) == 2 and math.prod(image) > 1
        if not fits or shape[1] % math.prod(image):
            raise Corrupt(f"tensor {spec.name!r} has columns that are no such images.")
    frame = framed(shape, decoder, image)
    if first & _KERNEL_ROWS:
        if not isinstance(decoder, Kernels):
            raise Corrupt(f"tensor {spec.name!r} has no kernels to be rows.")
        frame = frame._replace(kernel_rows=True)
    rows, slices = extents.rows(frame.full, len(shape)), extents.slices(frame.full, len(shape))
    if first & _ROWS:
        rows, position = read_uint(payload, position)
    if first & _SLICES:
        slices, position = read_uint(payload, position)
    if rows > frame.full[0] or slices > frame.full[1]:
        raise Corrupt(f"tensor {spec.name!r} has fewer rows or slices than it declares live.")
    frame = frame._replace(rows=rows, slices=slices)
    extents.note(frame.full, frame, len(shape))
    return _Described(decoder, frame), position


def _read_decoder(
    payload: bytes, position: int, kind: int, spec: TensorSpec, shape: tuple[int, ...]
) -> tuple[ParameterDecoder, int]:
    if kind == _GRID:
        octets, position = part_of(payload, position, 5)
        image, size, margin = (octets[0], octets[1]), (octets[2], octets[3]), octets[4]
        work = max(i * g for i, g in zip(image, size, strict=True))
        coarser = all(1 <= g <= i for i, g in zip(image, size, strict=True))  # so coefficients are no more than weights
        if not coarser or work > MOST_BASIS_WORK or 2 * margin >= min(image):
            raise Corrupt(f"tensor {spec.name!r} has a grid that cannot be.")
        codes, position = _read_codes(payload, position, 1, spec)
        return Grid(codes, size, image, margin), position
    if kind == _SCALAR:
        codes, position = _read_codes(payload, position, 1, spec)
        return Scalar(codes), position
    if len(shape) != 4 or not 1 <= math.prod(shape[2:]) <= MOST_KERNEL:
        raise Corrupt(f"tensor {spec.name!r} has no kernels of a size for a basis.")
    size = (shape[2], shape[3])
    if kind == _DFT:
        codes, position = _read_codes(payload, position, int(dft(*size).classes[-1]) + 1, spec)
        return Kernels(codes, size), position
    codes, position = _read_codes(payload, position, 1, spec)
    count = math.prod(size)
    octets, position = part_of(payload, position, 2 * count * count)
    if not np.isfinite(np.frombuffer(octets, "<f2")).all():
        raise Corrupt(f"tensor {spec.name!r} has a basis that is not finite.")
    return Kernels(codes, size, bytes(octets)), position


def _read_codes(payload: bytes, position: int, count: int, spec: TensorSpec) -> tuple[tuple[int, ...], int]:
    codes: list[int] = []
    for _ in range(count):
        code, position = read_sint(payload, position)
        if abs(code) > MOST_CODE:
            raise Corrupt(f"tensor {spec.name!r} has a step out of range.")
        codes.append(code)
    return tuple(codes), position
