"""The adaptive stream, for networks of kilobytes: every probability is learned while coding (docs/format.md, 9.4).

An integer is a few binary decisions: is it not 0, is it negative, is it above 1, above 2, …? `adaptive_model` has
their probabilities, `binary` makes bytes of them. Both together are the specification in code; the native coder, which
is called where there is one, must match them byte for byte.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.adaptive_model import MOST_MAGNITUDE, Geometry, Model
from fewbits.coder.binary import Decoder, Encoder, Meter, decision_limit
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.native import core

__all__ = ["Geometry", "adaptive_bits", "decode_adaptive", "encode_adaptive"]


def _checked(
    arrays: Sequence[NDArray[np.int64]], geometries: Sequence[Geometry]
) -> list[tuple[NDArray[np.int64], Geometry]]:
    """Return the arrays that are not empty, flat."""
    checked: list[tuple[NDArray[np.int64], Geometry]] = []
    for array, geometry in zip(arrays, _sane(geometries), strict=True):
        flat = np.ascontiguousarray(array, np.int64).ravel()
        if flat.size != geometry.size:
            raise InvalidArgument(f"an array of {flat.size} elements has a geometry of {geometry.size}.")
        if flat.size and max(int(flat.max()), -int(flat.min())) > MOST_MAGNITUDE:
            raise InvalidArgument("an integer's magnitude is 2^31 or more, which an adaptive stream cannot hold.")
        if flat.size:
            checked.append((flat, geometry))
    return checked


def _sane(geometries: Sequence[Geometry]) -> list[Geometry]:
    if any(dimension < 0 for geometry in geometries for dimension in geometry):
        raise InvalidArgument("a geometry has a negative dimension.")
    return [Geometry(*map(int, geometry)) for geometry in geometries]


def encode_adaptive(arrays: Sequence[NDArray[np.int64]], geometries: Sequence[Geometry]) -> bytes:
    """Return the stream of arrays of int64, in order; it is only as long as it must be, and its last byte is not 0.

    Args:
        arrays: each with as many elements as its geometry, any shape, magnitudes below 2^31.
        geometries: of the arrays.

    Raises:
        InvalidArgument: a magnitude is 2^31 or more, an array has not the size of its geometry, or they are millions of
            elements that cost so little that a decoder would refuse them.
    """
    coded = _checked(arrays, geometries)
    if compiled := core():
        return compiled.encode_adaptive([array for array, _ in coded], [tuple(geometry) for _, geometry in coded])
    coder = Encoder()
    model = Model(coder)
    for array, geometry in coded:
        model.code(geometry, array.tolist())
    return coder.finish()


def decode_adaptive(data: bytes, geometries: Sequence[Geometry]) -> list[NDArray[np.int64]]:
    """Decode what `encode_adaptive` made; returns arrays (rows, slices * height * width) of int64.

    Raises:
        Corrupt: the stream is not the one encoding of what it decodes to, or declares more elements than its bytes can
            stand for.
        InvalidArgument: a geometry has a negative dimension.
    """
    sane = _sane(geometries)
    if sum(geometry.size for geometry in sane) > decision_limit(len(data)):
        raise Corrupt("an adaptive stream has too few bytes for its integers.")
    # NumPy refuses a product of dimensions that wraps even where another one is 0.
    shapes = [(g.rows, g.slices * g.height * g.width) for g in sane]
    full = [geometry for geometry in sane if geometry.size]
    if compiled := core():
        values = [np.empty(geometry.size, np.int64) for geometry in full]
        compiled.decode_adaptive(bytes(data), values, [tuple(geometry) for geometry in full])
    else:
        coder = Decoder(bytes(data))
        model = Model(coder)
        values = [np.array(model.code(geometry, []), np.int64) for geometry in full]
        coder.check_end()
    left = iter(values)
    return [(next(left) if math.prod(shape) else np.empty(0, np.int64)).reshape(shape) for shape in shapes]


def adaptive_bits(arrays: Sequence[NDArray[np.int64]], geometries: Sequence[Geometry]) -> list[float]:
    """Return each array's own share of `encode_adaptive`'s stream in bits, without writing it.

    Raises:
        InvalidArgument: as `encode_adaptive`, but for arrays that cost little.
    """
    coded = _checked(arrays, geometries)
    if compiled := core():
        found = iter(compiled.adaptive_bits([array for array, _ in coded], [tuple(geometry) for _, geometry in coded]))
    else:
        found = _measured(coded)
    return [next(found) if np.size(array) else 0.0 for array in arrays]


def _measured(coded: list[tuple[NDArray[np.int64], Geometry]]) -> Iterator[float]:
    meter = Meter()
    model = Model(meter)
    for array, geometry in coded:
        before = meter.bits
        model.code(geometry, array.tolist())
        yield meter.bits - before
