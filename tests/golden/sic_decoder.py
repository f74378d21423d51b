"""A second decoder of the payload `sic`, written from docs/payload/sic.md alone, on top of `independent_decoder`.

It shares no code with fewbits. Matrices are kept column after column, rows in the coded order, as the page has their
elements.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    from tests.golden import independent_decoder as base
except ImportError:  # run as a program, from any folder
    import independent_decoder as base

Array = NDArray[Any]

NO_TRELLIS = 6  # in place of the logarithm of the number of paths
MOST_SCALE_CODE, MOST_MODEL_CODE = 1000, 1 << 16  # either way
MOST_CLASSES = MOST_MODELS = 4096


class Matrix(NamedTuple):
    """What a description says of R rows and n columns; `side` and `levels` are filled in from the bodies."""

    tensor: base.Tensor
    rows: int
    columns: int
    paths: int  # 0 without a trellis
    classes: Array  # (K, 2), scale codes and model codes
    corrections: Array  # (M, 4)
    models: list[base.Model]
    side: list[base.CodedArray]
    levels: list[base.CodedArray]

    def check_side(self) -> None:
        """Refuse codes and classes that there are not."""
        limits = [(-MOST_SCALE_CODE, MOST_SCALE_CODE), (-MOST_MODEL_CODE, MOST_MODEL_CODE), (0, len(self.classes) - 1)]
        for array, (low, high) in zip(self.side, limits, strict=False):
            q = array.q.view(np.int64)
            base.require(np.all((q >= low) & (q <= high)), f"a side array of {self.tensor.name} is out of range")

    def rows_codes(self) -> tuple[Array, Array]:
        """The scale code and the model code of each row."""
        of_rows = self.classes[self.side[2].q.view(np.int64) if len(self.classes) > 1 else np.zeros(self.rows, int)]
        return of_rows[:, 0], of_rows[:, 1]

    def order(self) -> list[int]:
        """The rows in the coded order."""
        model_codes = self.rows_codes()[1].tolist()
        return sorted(range(self.rows), key=lambda row: (model_codes[row], row))

    def element_models(self) -> Array:
        """m(r, c), as (n, R), rows in the coded order."""
        sums = self.side[1].q.view(np.int64)[:, None] + self.rows_codes()[1][self.order()]
        return np.minimum(np.maximum(sums, 0), len(self.models) - 1)

    def values(self) -> Array:
        """The elements' bits, row after row."""
        m = self.element_models()
        k = np.empty(m.size, np.int32)
        # Equal models stay in the order of the elements.
        k[np.argsort(m, axis=None, kind="stable")] = np.concatenate([a.q for a in self.levels]).astype(np.uint32)
        k = k.reshape(m.shape)
        d0, d1, d2, d3 = (self.corrections[:, i][m] for i in range(4))
        d = np.select([k == 0, k == -1, k == 1, k > 1], [d0, -d1, d2, d3], -d3)
        quarter = 64 if self.paths else 0
        a = k.astype(np.float32) + (quarter + d).astype(np.float32) / np.float32(256)
        a = np.where(self.mirrored(k), -a, a)
        s = np.array([scale(code) for code in self.side[0].q.view(np.int64).tolist()], np.float32)
        t = np.array([scale(code) for code in self.rows_codes()[0][self.order()].tolist()], np.float32)
        with np.errstate(over="ignore", under="ignore"):
            w = (a * s[:, None]) * t
        matrix = np.empty((self.rows, self.columns), np.float32)
        matrix[self.order()] = w.T
        return base.float_bits(self.tensor, matrix.ravel())

    def mirrored(self, k: Array) -> Array:
        """Which elements of levels (n, R), in the coded order, are mirrored."""
        found = np.zeros(k.shape, bool)
        states = [0] * self.paths
        if self.paths:
            for c, column in enumerate(k.tolist()):
                for r, level in enumerate(column):
                    state = states[r % self.paths]
                    found[c, r] = state >= 4
                    states[r % self.paths] = ((state % 4) * 2) ^ (3 if state >= 4 else 0) ^ (4 if level % 2 else 0)
        return found


@cache
def scale(code: int) -> np.float32:
    """2^(code / 8), rounded once: 24 bits of a root of an integer, which is never halfway between two."""
    octave, part = divmod(code, 8)
    root = 1 << part + 8 * 80
    for _ in range(3):  # the eighth root, by square roots
        root = math.isqrt(root)
    return np.ldexp(np.float32(root + (1 << 56) >> 57), octave - 23)


def decode_sic(c: base.Cursor, tensors: list[base.Tensor], pieces: list[base.Piece]) -> list[Array]:
    """For each piece the bits of its elements."""
    found = [read_matrix(c, tensors[piece.position], piece) for piece in pieces]
    side = base.Cursor(c.take(c.uint()), "the side body")
    base.decode_body(side, [array for matrix in found for array in matrix.side])
    for matrix in found:
        matrix.check_side()
        counts = np.bincount(matrix.element_models().ravel(), minlength=len(matrix.models)).tolist()
        matrix.levels.extend(
            base.CodedArray(1, count, [model], None) for model, count in zip(matrix.models, counts, strict=True)
        )
    base.decode_body(c, [array for matrix in found for array in matrix.levels])
    return [matrix.values() for matrix in found]


def read_matrix(c: base.Cursor, tensor: base.Tensor, piece: base.Piece) -> Matrix:
    base.check_quantised(tensor)
    base.require(len(tensor.shape) >= 2 and tensor.elements > 0, f"{tensor.name} is no matrix with elements")
    columns = tensor.rows[1]
    whole = piece.start % columns == 0 and piece.elements % columns == 0
    base.require(whole, f"the tile of {tensor.name} is not of whole rows")
    rows = piece.elements // columns
    paths = c.u8()
    base.require(paths <= NO_TRELLIS, f"the trellis of {tensor.name} has the code {paths}")
    num_classes = c.uint() + 1
    base.require(num_classes <= MOST_CLASSES, f"{tensor.name} has {num_classes} classes of rows")
    classes = np.array([(c.sint(), c.sint()) for _ in range(num_classes)], object)
    good = all(abs(scale) <= MOST_SCALE_CODE and abs(model) <= MOST_MODEL_CODE for scale, model in classes.tolist())
    base.require(good, f"a code of a class of rows of {tensor.name} is out of range")
    num_models, corrected = c.uint() + 1, c.uint()
    base.require(num_models <= MOST_MODELS, f"{tensor.name} has {num_models} models")
    base.require(corrected <= num_models, f"{tensor.name} has more corrections than models")
    corrections = np.zeros((num_models, 4), np.int64)
    for row in corrections[:corrected]:
        row[:] = struct.unpack("<4b", c.take(4))
    models = [base.read_model(c) for _ in range(num_models)]
    lengths = (columns, columns, rows) if num_classes > 1 else (columns, columns)
    side = [base.CodedArray(1, length, [base.read_model(c)], None) for length in lengths]
    trellis = 0 if paths == NO_TRELLIS else 1 << paths
    return Matrix(tensor, rows, columns, trellis, classes.astype(np.int64), corrections, models, side, [])
