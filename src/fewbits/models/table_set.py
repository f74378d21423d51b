"""Many integer tables, one for each prior and dither level: made from densities, stored, and used by number.

A decoder knows which table a value has from what it decoded before; no density is ever computed again. Values of one
table are coded together (docs/payload/image.md).
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.coder.bits import escape_bits
from fewbits.coder.body import decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet
from fewbits.coder.table import COST_ONE, MAX_SYMBOLS, TOTAL, Table
from fewbits.errors import Corrupt
from fewbits.models.histogram import histogram_table

_COUNTS = 1 << 30  # of the counts that stand for a density
_REACH = 1 << 10  # of the values whose probability is looked at
_MOST_SHIFT = 32  # WIRE
# 32 lanes cost 93 bytes, half a per cent of a small photo; one lane takes milliseconds where networks take a second.
_LEAST_WIDE_BITS = 1 << 22
_TAIL = 2.0**-9  # of a density, which a table may leave to escapes

Integers = NDArray[np.int64]


class _Costs(NamedTuple):
    """Of each table: its least value, its shift, and what each symbol and an escape costs in 1/65536 bit."""

    low: Integers  # (T,)
    shift: Integers
    last: Integers
    symbols: Integers  # (T, 64); an escape is symbol 63 here


class TableSet(NamedTuple):
    """Tables by number, as they are stored.

    frequencies: (T, 64) int16, of the values low, low + 1, … and, last, of an escape.
    low: (T,) int16. shift: (T,) uint8: how many low bits of a value go raw.
    """

    frequencies: NDArray[np.int16]
    low: NDArray[np.int16]
    shift: NDArray[np.uint8]

    @classmethod
    def of_density(cls, between: Callable[[Tensor, Tensor], Tensor], num_priors: int, offsets: Tensor) -> "TableSet":
        """Make the tables of some priors, for cells k + t … k + t + 1 at each level's offset t.

        Args:
            between: -log2 of the probabilities of intervals, from ends (N, priors) float64.
            offsets: (levels,) float64.

        Returns:
            Tables in the order of priors, and within one of levels.
        """
        lower = torch.arange(-_REACH, _REACH, dtype=torch.float64)[:, None].repeat(1, num_priors)
        found: list[list[tuple[Table, int]]] = []
        with torch.no_grad():
            for offset in offsets.double():
                masses = torch.exp2(-between(lower + offset, lower + offset + 1)).numpy()
                found.append([_table_of(column) for column in masses.T])
        return cls.of_tables([level[prior] for prior in range(num_priors) for level in found])

    @classmethod
    def of_tables(cls, tables: list[tuple[Table, int]]) -> "TableSet":
        """Store tables with their shifts."""
        frequencies = np.zeros((len(tables), MAX_SYMBOLS), np.int16)
        for row, (table, _) in zip(frequencies, tables, strict=True):
            row[: table.num_values] = table.frequencies
            row[-1] = table.escape
        low = np.array([table.low for table, _ in tables], np.int16)
        return cls(frequencies, low, np.array([shift for _, shift in tables], np.uint8))

    def joined(self, other: "TableSet") -> "TableSet":
        """Return these tables, and others after them."""
        return TableSet(
            np.concatenate([self.frequencies, other.frequencies]),
            np.concatenate([self.low, other.low]),
            np.concatenate([self.shift, other.shift]),
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return {name: torch.from_numpy(value) for name, value in self._asdict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "TableSet":
        """Read what `to_tensors` gave.

        Raises:
            Corrupt: something is missing or of another shape, or a table is none.
        """
        count = len(tensors["low"]) if "low" in tensors and tensors["low"].ndim else 0
        shapes = {"frequencies": (count, MAX_SYMBOLS), "low": (count,), "shift": (count,)}
        dtypes = {"frequencies": torch.int16, "low": torch.int16, "shift": torch.uint8}
        for name, shape in shapes.items():
            if name not in tensors or tuple(tensors[name].shape) != shape or tensors[name].dtype != dtypes[name]:
                raise Corrupt("a codec has no tables, or tables that do not fit together.")
        frequencies = tensors["frequencies"].numpy()
        present = frequencies[:, :-1] > 0
        # A table has values from its first column on, none without a frequency, and two symbols or more.
        whole = (np.diff(present.astype(np.int8), axis=1) <= 0).all() and present[:, 0].all()
        sums = (frequencies.sum(1, dtype=np.int64) == TOTAL).all() and (frequencies >= 0).all()
        if not whole or not sums or (frequencies == TOTAL).any() or (tensors["shift"] > _MOST_SHIFT).any():
            raise Corrupt("a codec has a table that is none.")
        return cls(*(tensors[name].numpy() for name in cls._fields))

    def model(self, number: int) -> IntegerModel:
        """Return a table as the model of the integers that it codes."""
        row = self.frequencies[number]
        values = tuple(row[: np.count_nonzero(row[:-1])].tolist())
        return IntegerModel(Table(int(self.low[number]), values, int(row[-1])), int(self.shift[number]))


class IndexedCoder:
    """Codes values each of which has a table known to both sides."""

    def __init__(self, tables: TableSet) -> None:
        """Take the tables."""
        self.tables = tables
        self._models: dict[int, IntegerModel] = {}

    def bits(self, values: Integers, numbers: Integers) -> float:
        """Return what values (N,) int64 cost under the tables of these numbers (N,), in bits."""
        symbols, raw = self._parts_of(values, numbers)
        return float(symbols.sum()) / COST_ONE + float(raw.sum())

    def bits_of_each(self, values: Integers, numbers: Integers) -> NDArray[np.float64]:
        """Return what each of the values (N,) costs, (N,)."""
        symbols, raw = self._parts_of(values, numbers)
        return symbols / COST_ONE + raw

    def _parts_of(self, values: Integers, numbers: Integers) -> tuple[Integers, Integers]:
        """What values take as symbols, in 1/65536 bit, and raw, in bits; both whole, so that sums are exact."""
        costs = self._costs
        high = (values >> costs.shift[numbers]) - costs.low[numbers]
        outside = (high < 0) | (high > costs.last[numbers])
        raw = costs.shift[numbers]
        distances = np.where(high < 0, -1 - high, high - costs.last[numbers] - 1)[outside]
        raw[outside] += escape_bits(distances.view(np.uint64)).astype(np.int64)
        return costs.symbols[numbers, np.where(outside, MAX_SYMBOLS - 1, high)], raw

    def encode(self, values: Integers, numbers: Integers) -> bytes:
        """Return the bytes of values (N,) int64, of the tables with these numbers (N,) int64."""
        order = np.argsort(numbers, kind="stable")
        present, starts = np.unique(numbers[order], return_index=True)
        arrays = [
            CodedArray(part, self._model(number))
            for number, part in zip(present.tolist(), np.split(values[order], starts[1:]), strict=True)
            if part.size
        ]
        return encode_body(arrays, wide=self.bits(values, numbers) >= _LEAST_WIDE_BITS)

    def decode(self, data: bytes, numbers: Integers) -> Integers:
        """Return the values (N,) int64 of `encode`.

        Raises:
            Corrupt: these are not the bytes of so many values.
        """
        order = np.argsort(numbers, kind="stable")
        present, counts = np.unique(numbers, return_counts=True)
        specs = [
            ArraySpec(1, count, self._model(number))
            for number, count in zip(present.tolist(), counts.tolist(), strict=True)
        ]
        values = np.empty(len(numbers), np.int64)
        found = decode_body(data, specs)
        values[order] = np.concatenate([part.ravel() for part in found]) if found else values
        return values

    def _model(self, number: int) -> ModelSet:
        if number not in self._models:
            self._models[number] = self.tables.model(number)
        return ModelSet((self._models[number],))

    @cached_property
    def _costs(self) -> _Costs:
        models = [self.tables.model(number) for number in range(len(self.tables.low))]
        symbols = np.zeros((len(models), MAX_SYMBOLS), np.int64)
        for row, model in zip(symbols, models, strict=True):
            assert model.table is not None
            row[: model.table.num_values] = model.table.costs
            row[-1] = model.table.escape_cost
        last = np.array([model.table.num_values - 1 for model in models if model.table is not None], np.int64)
        return _Costs(self.tables.low.astype(np.int64), self.tables.shift.astype(np.int64), last, symbols)


def _table_of(masses: NDArray[np.float64]) -> tuple[Table, int]:
    """The table of probabilities (2 · 2^10,) of the values from -2^10, and the shift that makes it short enough."""
    shift, grouped = 0, masses
    while grouped.size > MAX_SYMBOLS - 1:
        sums = np.concatenate([[0.0], np.cumsum(grouped)])
        if (sums[MAX_SYMBOLS - 1 :] - sums[: -(MAX_SYMBOLS - 1)]).max() >= 1 - _TAIL:
            break
        shift, grouped = shift + 1, grouped.reshape(-1, 2).sum(1)
    counts = np.floor(grouped * _COUNTS + 0.5).astype(np.int64)
    # Something always lies elsewhere: every value has a code.
    table = histogram_table(-_REACH >> shift, counts, max(1, _COUNTS - int(counts.sum())))
    assert table is not None
    return table, shift
