"""Arrays of integers as symbols, escapes and raw bits (docs/format.md, sections 7 and 8).

An integer's high part is a symbol of a table, or an escape; its low bits go raw. An array's rows may belong to classes
with a model each.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.bits import pack_raw
from fewbits.coder.table import Table


class IntegerModel(NamedTuple):
    """How integers are coded: q = centre + (h * 2^shift + low), h by the table, low raw; or q = centre + low.

    A constant is no table and shift 0. Arithmetic is modulo 2^64.
    """

    table: Table | None
    shift: int = 0
    centre: int = 0


class ModelSet(NamedTuple):
    """The models of an array's classes, and the model of the class indices if there are several."""

    models: tuple[IntegerModel, ...]
    class_model: IntegerModel | None = None


@dataclass(frozen=True)
class CodedArray:
    """One array to be coded.

    values: (R, n) int64, int32 or uint32; with one class the shape does not matter.
    classes: (R,) int64, or None with one class.
    """

    values: NDArray[np.int64 | np.int32 | np.uint32]
    models: ModelSet
    classes: NDArray[np.int64] | None = None


class ArraySpec(NamedTuple):
    """What a decoder knows of an array before its body: rows, row length (elements) and models."""

    num_rows: int
    row_length: int
    models: ModelSet


class SymbolStream(NamedTuple):
    """The coded part of one array: symbols in order, and which of them are escapes and for what."""

    symbols: NDArray[np.uint8]  # (S,)
    lengths: NDArray[np.int64]  # (segments,)
    tables: NDArray[np.int64]  # (segments,), index into the array's models
    escaped: NDArray[np.int64]  # (E,) positions in `symbols`
    distances: NDArray[np.uint64]  # (E,)
    below: NDArray[np.bool_]  # (E,)
    raw: bytes


def split(array: CodedArray) -> SymbolStream:
    """Split an array into symbols, escapes and raw bits."""
    models = array.models.models
    values = array.values.reshape(1, -1) if array.classes is None else array.values
    classes = np.zeros(1, np.int64) if array.classes is None else array.classes
    symbols = np.zeros(values.shape, np.uint8)
    distance = np.zeros(values.shape, np.uint64)
    below = np.zeros(values.shape, np.bool_)
    coded = np.array([model.table is not None for model in models])[classes]
    raw: list[bytes] = []
    for index, model in enumerate(models):
        rows = classes == index
        difference = values[rows] - np.int64(model.centre)
        raw.append(pack_raw(difference.ravel().view(np.uint64), model.shift))
        if model.table is None:
            continue
        high = difference >> np.int64(model.shift)
        # NUMERICS: array operations throughout: they wrap modulo 2^64, and a table may lie at either end of it.
        low, last = np.int64(model.table.low), np.int64(model.table.last)
        under, over = high < low, high > last
        symbols[rows] = np.where(under | over, model.table.num_values, high - low)
        distance[rows] = np.where(under, low - high - 1, np.where(over, high - last - 1, 0)).view(np.uint64)
        below[rows] = under
        distance[rows] += np.where(under | over, np.uint64(1), np.uint64(0))  # 0 now means: no escape
    symbols, distance, below = symbols[coded].ravel(), distance[coded].ravel(), below[coded].ravel()
    escaped = np.flatnonzero(distance)
    lengths = np.full(int(coded.sum()), values.shape[1], np.int64)
    tables = classes[coded]
    distances = distance[escaped] - np.uint64(1)
    return SymbolStream(symbols, lengths, tables, escaped, distances, below[escaped], b"".join(raw))


def merge(
    spec: ArraySpec,
    classes: NDArray[np.int64],
    symbols: NDArray[np.uint8],
    distances: NDArray[np.uint64],
    below: NDArray[np.bool_],
    low: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Undo `split`: return the array's values (R, n) int64.

    Args:
        spec: of the array.
        classes: (R,) int64; zeros with one class.
        symbols: (S,) uint8, of the rows whose model has a table.
        distances, below: (E,) of the escapes among them, in order.
        low: (R, n) int64, the raw bits.
    """
    models = spec.models.models
    coded = np.array([model.table is not None for model in models])[classes]
    high = np.zeros(low.shape, np.int64)
    tables = [model.table for model in models]
    num_values = np.array([table.num_values if table else 0 for table in tables])[classes[coded]][:, None]
    first = np.array([table.low if table else 0 for table in tables])[classes[coded]][:, None]
    coded_high = symbols.reshape(int(coded.sum()), low.shape[1]).astype(np.int64)
    escaped = coded_high == num_values
    coded_high += first
    if distances.size:
        beyond = np.where(below, -1 - distances.view(np.int64), distances.view(np.int64) + 1)
        ends = np.broadcast_to(first, escaped.shape)[escaped]
        ends = np.where(below, ends, ends + np.broadcast_to(num_values, escaped.shape)[escaped] - 1)
        coded_high[escaped] = ends + beyond
    high[coded] = coded_high
    shift = np.array([model.shift for model in models])[classes][:, None]
    centre = np.array([model.centre for model in models])[classes][:, None]
    return (high << shift) + low + centre
