"""Payloads of `epr` for its tests: the numbers of the page, and both coders at will."""

from collections.abc import Sequence

import numpy as np

from fewbits.chunk import TensorSpec
from fewbits.methods.epr import payload as payload_module
from fewbits.methods.epr.frames import LevelTensor, framed, level_shape
from fewbits.methods.epr.payload import decode_levels

TABLES, ADAPTIVE = 0, 1
SCALAR, DFT, MATRIX, GRID, SHARED = range(5)
ROWS, SLICES, IMAGE, KERNEL_ROWS = 8, 16, 32, 64


def specs_of(tensors: Sequence[LevelTensor]) -> list[tuple[TensorSpec, tuple[int, ...]]]:
    return [(TensorSpec(f"t{i}", "float32", tensor.shape), tensor.shape) for i, tensor in enumerate(tensors)]


def shaped(*shapes: tuple[int, ...]) -> list[tuple[TensorSpec, tuple[int, ...]]]:
    return [(TensorSpec(f"t{i}", "float32", shape), shape) for i, shape in enumerate(shapes)]


def encoded(tensors: Sequence[LevelTensor], coder: int) -> bytes:
    """The payload with this coder, whether it is the shorter one or not."""
    best = payload_module._best_frame
    frames = [best(t) if coder == ADAPTIVE else framed(t.shape, t.decoder, None) for t in tensors]
    return payload_module._encode(tensors, frames, coder)


def assert_round_trip(data: bytes, tensors: Sequence[LevelTensor]) -> None:
    found = decode_levels(data, specs_of(tensors))
    assert len(found) == len(tensors)
    for one, other in zip(found, tensors, strict=True):
        assert one.shape == other.shape and one.decoder == other.decoder
        assert one.levels.shape == level_shape(other.shape, other.decoder) or one.levels.size == other.levels.size
        np.testing.assert_array_equal(one.levels.ravel(), other.levels.ravel())
