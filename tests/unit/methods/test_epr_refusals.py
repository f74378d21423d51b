"""What the payload page of `epr` refuses, each thing by itself, and what lies at the edge of that and is read."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fewbits.coder.body import encode_body
from fewbits.coder.integers import CodedArray
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.errors import Corrupt
from fewbits.methods.epr.frames import LevelTensor
from fewbits.methods.epr.payload import decode_levels
from fewbits.models.descriptions import write_models
from fewbits.models.fit import best_fit
from fewbits.quantize.parameter_decoders import MOST_CODE, Grid, Kernels, Scalar
from tests.unit.methods.payloads import (
    ADAPTIVE,
    DFT,
    GRID,
    IMAGE,
    KERNEL_ROWS,
    MATRIX,
    ROWS,
    SCALAR,
    SHARED,
    SLICES,
    TABLES,
    assert_round_trip,
    encoded,
    shaped,
)


def tables_body(*arrays: NDArray[np.int64]) -> tuple[list[bytes], bytes]:
    """Model sets of arrays, and the body that holds them."""
    coded = [CodedArray(array, (fit := best_fit(array, None)).models, fit.classes) for array in arrays]
    return [write_models(array.models) for array in coded], encode_body(coded, wide=False)


VECTOR, MATRIX_SHAPE, KERNELS = (6,), (2, 12), (2, 3, 2, 2)
STEP = write_sint(3)
IDENTITY = np.eye(4).astype("<f2").tobytes()
DFT_STEPS = write_sint(0) * 4
INFINITE = np.array([1, np.inf] + [0] * 14).astype("<f2").tobytes()
NOT_NUMBERS = np.array([np.nan] * 16).astype("<f2").tobytes()
GRID_FIELDS = bytes([3, 4, 2, 2, 1])

REFUSED: dict[str, tuple[tuple[int, ...], bytes]] = {
    "nothing at all": (VECTOR, b""),
    "no description": (VECTOR, b"\1"),
    "a coder beyond the two": (VECTOR, bytes([2, SCALAR]) + STEP),
    "the greatest coder": (VECTOR, bytes([255, SCALAR]) + STEP),
    "kind 5": (VECTOR, bytes([1, 5]) + STEP),
    "kind 6": (VECTOR, bytes([1, 6]) + STEP),
    "kind 7": (VECTOR, bytes([1, 7]) + STEP),
    "bit 7": (VECTOR, bytes([1, SCALAR | 128]) + STEP),
    "a description cut short": (VECTOR, bytes([1, SCALAR])),
    "too great a step": (VECTOR, bytes([1, SCALAR]) + write_sint(MOST_CODE + 1)),
    "too small a step": (VECTOR, bytes([1, SCALAR]) + write_sint(-MOST_CODE - 1)),
    "a step of 2^62": (VECTOR, bytes([1, SCALAR]) + write_sint(2**62)),
    "too great a step for a frequency": (KERNELS, bytes([1, DFT]) + write_sint(0) * 3 + write_sint(MOST_CODE + 1)),
    "too few steps": (KERNELS, bytes([1, DFT]) + write_sint(0) * 3),
    "a DFT of a matrix": (MATRIX_SHAPE, bytes([1, DFT]) + DFT_STEPS),
    "a DFT of three dimensions": ((2, 3, 4), bytes([1, DFT]) + DFT_STEPS),
    "a DFT of five dimensions": ((2, 3, 2, 2, 1), bytes([1, DFT]) + DFT_STEPS),
    "a DFT of no kernel": ((2, 3, 0, 4), bytes([1, DFT]) + DFT_STEPS),
    "a DFT of 1025 elements": ((1, 1, 25, 41), bytes([1, DFT]) + write_sint(0) * 513),
    "a matrix of a vector": (VECTOR, bytes([1, MATRIX]) + STEP + IDENTITY),
    "a matrix of 1025 elements": ((1, 1, 1, 1025), bytes([1, MATRIX]) + STEP + bytes(2 * 1025 * 1025)),
    "a matrix cut short": (KERNELS, bytes([1, MATRIX]) + STEP + IDENTITY[:-1]),
    "a matrix with infinity": (KERNELS, bytes([1, MATRIX]) + STEP + INFINITE),
    "a matrix of NaN": (KERNELS, bytes([1, MATRIX]) + STEP + NOT_NUMBERS),
    "a grid of a vector": ((12,), bytes([1, GRID]) + GRID_FIELDS + STEP),
    "a grid of kernels": ((2, 3, 2, 2), bytes([1, GRID]) + GRID_FIELDS + STEP),
    "a grid of images of another size": ((2, 13), bytes([1, GRID]) + GRID_FIELDS + STEP),
    "a grid without height": (MATRIX_SHAPE, bytes([1, GRID, 3, 4, 0, 2, 1]) + STEP),
    "a grid without width": (MATRIX_SHAPE, bytes([1, GRID, 3, 4, 2, 0, 1]) + STEP),
    "a grid higher than its image": (MATRIX_SHAPE, bytes([1, GRID, 3, 4, 4, 2, 1]) + STEP),
    "a grid wider than its image": (MATRIX_SHAPE, bytes([1, GRID, 3, 4, 2, 5, 1]) + STEP),
    "an image without height": ((2, 0), bytes([1, GRID, 0, 4, 0, 2, 0]) + STEP),
    "a margin of half the height": ((2, 16), bytes([1, GRID, 4, 4, 2, 2, 2]) + STEP),
    "a margin of half the width": ((2, 10), bytes([1, GRID, 5, 2, 2, 2, 1]) + STEP),
    "a grid of too much work": ((1, 255), bytes([1, GRID, 255, 1, 65, 1, 0]) + STEP),
    "a grid of too much work across": ((1, 255), bytes([1, GRID, 1, 255, 1, 65, 0]) + STEP),
    "a grid cut short": (MATRIX_SHAPE, bytes([1, GRID, 3, 4, 2])),
    "a shared decoder with none before": (VECTOR, bytes([1, SHARED])),
    "an image of a vector": ((12,), bytes([1, SCALAR | IMAGE]) + STEP + bytes([2, 2])),
    "an image of three dimensions": ((2, 4, 3), bytes([1, SCALAR | IMAGE]) + STEP + bytes([2, 2])),
    "an image of one pixel": (MATRIX_SHAPE, bytes([1, SCALAR | IMAGE]) + STEP + bytes([1, 1])),
    "an image of none": (MATRIX_SHAPE, bytes([1, SCALAR | IMAGE]) + STEP + bytes([0, 4])),
    "an image that the columns are no multiple of": (MATRIX_SHAPE, bytes([1, SCALAR | IMAGE]) + STEP + bytes([5, 1])),
    "an image cut short": (MATRIX_SHAPE, bytes([1, SCALAR | IMAGE]) + STEP + bytes([2])),
    "an image of a DFT": (KERNELS, bytes([1, DFT | IMAGE]) + DFT_STEPS + bytes([2, 2])),
    "an image of a grid": (MATRIX_SHAPE, bytes([1, GRID | IMAGE]) + GRID_FIELDS + STEP + bytes([2, 2])),
    "kernel rows of a matrix": (MATRIX_SHAPE, bytes([1, SCALAR | KERNEL_ROWS]) + STEP),
    "kernel rows of scalar kernels": (KERNELS, bytes([1, SCALAR | KERNEL_ROWS]) + STEP),
    "kernel rows of a grid": (MATRIX_SHAPE, bytes([1, GRID | KERNEL_ROWS]) + GRID_FIELDS + STEP),
    "more live rows than rows": (MATRIX_SHAPE, bytes([1, SCALAR | ROWS]) + STEP + write_uint(3)),
    "more live slices than slices": (MATRIX_SHAPE, bytes([1, SCALAR | SLICES]) + STEP + write_uint(13)),
    "more live slices than images": (
        MATRIX_SHAPE,
        bytes([1, SCALAR | SLICES | IMAGE]) + STEP + bytes([2, 2]) + write_uint(4),
    ),
    "2^63 live rows": (MATRIX_SHAPE, bytes([1, SCALAR | ROWS]) + STEP + write_uint(2**63)),
    "2^63 live slices": (MATRIX_SHAPE, bytes([1, SCALAR | SLICES]) + STEP + write_uint(2**63)),
    "live rows of a vector": (VECTOR, bytes([1, SCALAR | ROWS]) + STEP + write_uint(2)),
    "live rows cut short": (MATRIX_SHAPE, bytes([1, SCALAR | ROWS]) + STEP),
    "live rows in more bytes than needed": (MATRIX_SHAPE, bytes([1, SCALAR | ROWS]) + STEP + b"\x80\x00"),
    "a set of models of no elements": ((0, 3), bytes([0, SCALAR]) + STEP + b"\xc1\0\0" + encode_body([], wide=False)),
    "tables with an image": (MATRIX_SHAPE, bytes([0, SCALAR | IMAGE]) + STEP + bytes([2, 2])),
    "tables with kernel rows": (KERNELS, bytes([0, DFT | KERNEL_ROWS]) + DFT_STEPS),
    "tables without models": (VECTOR, bytes([0, SCALAR]) + STEP),
    "tables without a body": (VECTOR, bytes([0, SCALAR]) + STEP + b"\xc1\0\0"),
}


OTHER_MESSAGES = {
    "nothing at all": "past its end",
    "no description": "past its end",
    "too few steps": "runs past",
    "a grid of a vector": "without such rows",
    "a grid of kernels": "without such rows",
    "a grid of images of another size": "without such rows",
    "live rows in more bytes than needed": "shortest form",
    "a set of models of no elements": "layout",
    "tables without models": "past its end",
    "tables without a body": "layout",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_page_refuses_is_corrupt_and_nothing_else_is_blamed(what: str) -> None:
    shape, data = REFUSED[what]
    message = OTHER_MESSAGES.get(what, "runs past" if "cut short" in what else "tensor 't0'")
    with pytest.raises(Corrupt, match=message):
        decode_levels(data, shaped(shape))
    with pytest.raises(Corrupt):  # and what follows does not save it
        decode_levels(data + b"\x55" * 40, shaped(shape))


def test_what_is_at_the_edge_of_a_refusal_is_read() -> None:
    for code in (-MOST_CODE, MOST_CODE):
        tensors = [LevelTensor((2,), np.ones(2, np.int64), Scalar((code,)))]
        assert_round_trip(encoded(tensors, ADAPTIVE), tensors)
    tensors = [
        LevelTensor((1, 255), np.ones((1, 1, 64), np.int64), Grid((0,), (64, 1), (255, 1), 0)),
        LevelTensor((1, 1, 32, 32), np.ones((1, 1, 1024), np.int64), Kernels((0,) * 514, (32, 32))),
    ]
    for coder in (TABLES, ADAPTIVE):
        assert_round_trip(encoded(tensors, coder), tensors)


def test_tables_refuse_an_image_and_kernel_rows_though_all_else_is_right() -> None:
    models, body = tables_body(np.arange(24).reshape(2, 12))
    decode_levels(bytes([0, SCALAR]) + STEP + models[0] + body, shaped(MATRIX_SHAPE))
    with pytest.raises(Corrupt, match="geometry"):
        decode_levels(bytes([0, SCALAR | IMAGE]) + STEP + bytes([2, 2]) + models[0] + body, shaped(MATRIX_SHAPE))
    models, body = tables_body(np.arange(24).reshape(4, 6))
    decode_levels(bytes([0, DFT]) + DFT_STEPS + models[0] + body, shaped(KERNELS))
    with pytest.raises(Corrupt, match="geometry"):
        decode_levels(bytes([0, DFT | KERNEL_ROWS]) + DFT_STEPS + models[0] + body, shaped(KERNELS))


def test_an_image_of_shared_kernels_is_refused() -> None:
    data = bytes([1, DFT]) + DFT_STEPS + bytes([SHARED | IMAGE, 2, 2])
    with pytest.raises(Corrupt):
        decode_levels(data, shaped(KERNELS, (4, 12)))


def test_sharing_a_grid_or_other_kernels_is_refused() -> None:
    with pytest.raises(Corrupt, match="not there"):
        decode_levels(bytes([1, GRID]) + GRID_FIELDS + STEP + bytes([SHARED]), shaped(MATRIX_SHAPE, MATRIX_SHAPE))
    with pytest.raises(Corrupt, match="not there"):
        decode_levels(bytes([1, DFT]) + DFT_STEPS + bytes([SHARED]), shaped(KERNELS, (2, 3, 3, 3)))
