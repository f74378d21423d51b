"""Choosing the integer model, and the classes of rows, that code given integers in the fewest bytes.

All costs are integers in 1/65536 bit, counted from the very tables that will code, descriptions included: what is
compared is what will be written, to the rounding of a stream.

What is written out here in NumPy is the specification; `fewbits._core` makes the same choices, at the same cost.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.bits import escape_bits
from fewbits.coder.integers import IntegerModel, ModelSet
from fewbits.coder.table import COST_ONE, Table
from fewbits.models.descriptions import MAX_CLASSES, write_model, write_models
from fewbits.models.histogram import histogram_table
from fewbits.models.shipped import NUM_SHIPPED, REACH, shipped_costs, shipped_table
from fewbits.native import core

if TYPE_CHECKING:
    from fewbits import _core

_BYTE = 8 * COST_ONE
_HISTOGRAM_BYTES = 5  # what describing a histogram costs, at least, more than naming a shipped table
_TAIL = 4096  # a shift lets its table reach all but 1 / 4096 of the values at either end, to begin with
_NARROW = 1 << 16  # integers that spread no farther are counted one by one
_PART_BITS = 14  # of integers that spread farther, 2^14 + 1 parts at most are counted to begin with


class Fit(NamedTuple):
    """A model set, each row's class (or None with one class), and the cost of coding with them in 1/65536 bit."""

    models: ModelSet
    classes: NDArray[np.int64] | None
    cost: int

    @property
    def bits(self) -> float:
        """The cost in bits."""
        return self.cost / COST_ONE


class Spectrum(NamedTuple):
    """Which integers occur, and how often.

    Of widely spread integers only the multiples of 2^grain below them are told apart: no table's shift gets that low.
    """

    values: NDArray[np.int64]  # (U,), sorted: value >> grain
    counts: NDArray[np.int64]  # (U,)
    grain: int
    low: int  # no integer is less, none is greater; nearly the least and the greatest, to the grain
    high: int

    @classmethod
    def of(cls, values: NDArray[np.int32 | np.uint32 | np.int64], within: tuple[int, int] | None = None) -> "Spectrum":
        """Count the integers of an array (not empty) of any shape, or of a part of one, `within` its low and high."""
        values = values.astype(np.int64, copy=False)
        low, high = within or (int(values.min()), int(values.max()))
        if high - low > _NARROW:
            # A grain by which any array has few parts, so that all classes of its rows can be counted in one pass.
            parts = cls._at_grain(values, (high - low).bit_length() - _PART_BITS, low, high)
            asked = _grain_for(parts._least_spread())
            if asked >= parts.grain:
                return cls._at_grain(values, asked, low, high)
        # An outlier dwarfs the rest. What the rest asks for is found out from the array, or the part, alone.
        low, high = int(values.min()), int(values.max())
        if high - low <= _NARROW:
            return cls._at_grain(values, 0, low, high)
        first, last = values.size // _TAIL, values.size - 1 - values.size // _TAIL
        ends = np.partition(values.ravel(), [first, last])
        return cls._at_grain(values, _grain_for(int(ends[last]) - int(ends[first])), low, high)

    @classmethod
    def _at_grain(cls, values: NDArray[np.int64], grain: int, low: int, high: int) -> "Spectrum":
        """Count value >> grain, all values being in low … high."""
        values = values >> np.int64(grain)
        first, last = int(values.min()), int(values.max())
        low, high = max(low, first << grain), min(high, (last + 1 << grain) - 1)
        if last - first > max(_NARROW, 2 * values.size):
            return cls(*np.unique(values, return_counts=True), grain, low, high)
        counts = np.bincount((values - first).ravel())
        present = np.flatnonzero(counts)
        return cls(present + first, counts[present], grain, low, high)

    def _least_spread(self) -> int:
        """How far the core, all but 1 / 4096 of the integers at either end, spreads at least, going by the grain."""
        total = int(self.counts.sum())
        tail = total // _TAIL
        places = np.searchsorted(np.cumsum(self.counts), [tail + 1, total - tail])
        first, last = (int(part) for part in self.values[places])
        return (last - first - 1 << self.grain) + 1 if last > first else 0

    def quantile(self, place: int) -> int:
        """The integer (to the grain) at a place, 1 … total, in sorted order."""
        return int(self.values[np.searchsorted(np.cumsum(self.counts), place)]) << self.grain

    def high_parts(self, shift: int, centre: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Values (sorted) and counts of (integer - centre) >> shift, where shift is at least the grain."""
        # Differences wrap modulo 2^64, as they do in the coder, so they may come out of order.
        high = ((self.values << np.int64(self.grain)) - np.int64(centre)) >> np.int64(shift)
        order = np.argsort(high, kind="stable")
        high = high[order]
        first = np.flatnonzero(np.concatenate([[True], high[1:] != high[:-1]]))
        return high[first], np.add.reduceat(self.counts[order], first)


def _grain_for(spread: int) -> int:
    """The coarsest grain that the shifts tried for integers of this spread can do with."""
    return max(0, (spread // (4 * REACH)).bit_length() - 3)


def model_cost(model: IntegerModel, spectrum: Spectrum) -> int:
    """Cost of coding a spectrum's integers with a model, in 1/65536 bit, its description not counted."""
    cost = int(spectrum.counts.sum()) * model.shift * COST_ONE
    if model.table is None:
        return cost
    table, (high, counts) = model.table, spectrum.high_parts(model.shift, model.centre)
    below, above = high < table.low, high > table.last
    outside = below | above
    cost += int((counts[~outside] * table.costs[high[~outside] - table.low]).sum())
    if outside.any():
        distance = np.where(below, table.low - 1 - high, high - table.last - 1)[outside]
        each = table.escape_cost + escape_bits(distance.view(np.uint64)) * COST_ONE
        cost += int((counts[outside] * each).sum())
    return cost


def bits_of_each(model: IntegerModel, integers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each of some integers, any shape, costs in bits with a model: huge where it cannot be coded."""
    if model.table is None:
        return np.full(integers.shape, float(model.shift))
    table, high = model.table, (integers - np.int64(model.centre)) >> np.int64(model.shift)
    below, above = high < table.low, high > table.last
    outside = below | above
    distance = np.where(below, table.low - 1 - high, np.where(above, high - table.last - 1, 0))
    escaped = table.escape_cost + escape_bits(distance.view(np.uint64)) * COST_ONE
    inside = table.costs[np.where(outside, 0, high - table.low)]
    return model.shift + np.where(outside, escaped, inside) / COST_ONE


def fit_model(spectrum: Spectrum) -> tuple[IntegerModel, int]:
    """Choose the model that codes a spectrum in the fewest bits; returns it and its cost, its description included."""
    low, high, total = spectrum.low, spectrum.high, int(spectrum.counts.sum())
    if low == high:
        model = IntegerModel(None, 0, low)
        return model, len(write_model(model)) * _BYTE
    width = (high - low).bit_length()
    candidates = [IntegerModel(None, width, low)] if width < 64 else []
    median = spectrum.quantile((total + 1) // 2)
    ends = spectrum.quantile(total // _TAIL + 1), spectrum.quantile(total - total // _TAIL)
    needed = (max(median - ends[0], ends[1] - median) // REACH).bit_length()
    least = spectrum.grain + 1 if spectrum.grain else 0
    for shift in range(max(least, needed - 2), max(least + 1, min(needed + 2, width))):
        half = 1 << shift >> 1
        centre = (((median + half) >> shift) << shift) - half
        candidates += _with_tables(spectrum, shift, (centre + (1 << 63)) % (1 << 64) - (1 << 63))
    # A small centre is not worth its bytes when the table already reaches: the plain model is tried as well.
    if needed == 0 and abs(median) < REACH and least == 0:
        candidates += _with_tables(spectrum, 0, 0)
    costs = [model_cost(model, spectrum) + len(write_model(model)) * _BYTE for model in candidates]
    best = min(range(len(candidates)), key=costs.__getitem__)
    return candidates[best], costs[best]


def _with_tables(spectrum: Spectrum, shift: int, centre: int) -> list[IntegerModel]:
    """The best histogram and the best shipped table for high parts at one shift and centre."""
    high, counts = spectrum.high_parts(shift, centre)
    inside = (high >= -REACH) & (high <= REACH)
    near = np.zeros(2 * REACH + 1, np.int64)
    near[high[inside] + REACH] = counts[inside]
    outside = int(counts[~inside].sum())
    # NUMERICS: what no table reaches counts as -31, near enough to choose a scale by.
    weighted = near.astype(np.float64)
    weighted[0] += outside
    costs = weighted @ shipped_costs()
    code = int(np.argmin(costs))
    models = [IntegerModel(shipped_table(code), shift, centre)]
    if not outside and costs[code] <= _HISTOGRAM_BYTES * _BYTE:
        return models  # of a few values no histogram can save what its description costs
    # A histogram may sit anywhere within reach of 2^15; values farther off are escapes wherever it sits.
    reach = (high > -(1 << 15)) & (high < 1 << 15)
    if reach.any():
        first = int(high[reach][0])
        dense = np.zeros(int(high[reach][-1]) - first + 1, np.int64)
        dense[high[reach] - first] = counts[reach]
        table = histogram_table(first, dense, int(counts[~reach].sum()))
        if table is not None:
            models.append(IntegerModel(table, shift, centre))
    return models


def fit_values(values: NDArray[np.int32 | np.uint32 | np.int64]) -> Fit:
    """Fit one model to all integers of an array (not empty)."""
    native = core()
    if native is not None:
        described, cost = native.fit_values(_in_memory_order(values), _native_tables())
        return Fit(ModelSet((_model_of(described),)), None, cost)
    model, cost = fit_model(Spectrum.of(values))
    return Fit(ModelSet((model,)), None, cost)


def fit_rows(values: NDArray[np.int32 | np.uint32 | np.int64], keys: NDArray[np.int64]) -> Fit | None:
    """Fit a model to each class of rows.

    Args:
        values: (R, n), n not 0.
        keys: (R,) int64; rows of equal keys form a class.

    Returns:
        The fit, or None if there is only one class, or more than a file can hold.
    """
    classes, num_classes = _classes_of(keys)
    if not 2 <= num_classes <= MAX_CLASSES:
        return None
    native = core()
    if native is not None:
        models, class_model, cost = native.fit_rows(_in_memory_order(values), classes, num_classes, _native_tables())
        return _native_fit(models, class_model, classes, cost)
    within = int(values.min()), int(values.max())
    fits = [fit_model(Spectrum.of(values[classes == index], within)) for index in range(num_classes)]
    class_model, class_cost = fit_model(Spectrum.of(classes))
    models = ModelSet(tuple(model for model, _ in fits), class_model)
    described_bytes = sum(len(write_model(model)) for model in (*models.models, class_model))
    framing = len(write_models(models)) - described_bytes
    return Fit(models, classes, sum(cost for _, cost in fits) + class_cost + framing * _BYTE)


def best_fit(
    values: NDArray[np.int32 | np.uint32 | np.int64], keys: NDArray[np.int64] | None, class_bytes: int = 0
) -> Fit:
    """The cheaper one of `fit_values` and `fit_rows` (R, n), with the same arguments, from one count of the integers.

    Args:
        values: (R, n), not empty.
        keys: (R,) int64, or None to fit one model without further ado.
        class_bytes: what the caller will write for each class; compared, but no part of the fit's cost.
    """
    if keys is None:
        return fit_values(values)
    native = core()
    if native is not None:
        classes, num_classes = _classes_of(keys)
        if not 2 <= num_classes <= MAX_CLASSES:
            return fit_values(values)
        fit = native.best_fit(_in_memory_order(values), classes, num_classes, class_bytes, _native_tables())
        return _native_fit(*fit[:2], classes, fit[2])
    whole, by_class = fit_values(values), fit_rows(values, keys)
    if by_class is None:
        return whole
    further = class_bytes * (len(by_class.models.models) - 1) * _BYTE
    return by_class if by_class.cost + further < whole.cost else whole


def _classes_of(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Each row's class (R,), equal for equal keys and ascending with them, and the number of classes."""
    present, classes = np.unique(keys, return_inverse=True)
    return classes.reshape(-1).astype(np.int64, copy=False), present.size


# ---- the compiled core


@lru_cache(maxsize=1)
def _native_tables() -> "_core.ShippedTables":
    native = core()
    assert native is not None
    tables = [shipped_table(code) for code in range(NUM_SHIPPED)]
    counts = np.array([table.counts for table in tables], np.uint16)
    return native.ShippedTables(counts, np.array([table.num_values for table in tables], np.int64))


def _in_memory_order(values: NDArray[np.int32 | np.uint32 | np.int64]) -> NDArray[np.int32 | np.uint32 | np.int64]:
    """The array as the core reads it: aligned, element after element, of a type that it knows."""
    known = any(values.dtype == each for each in (np.int32, np.uint32, np.int64))
    return np.require(values, values.dtype if known else np.int64, ["C_CONTIGUOUS", "ALIGNED"])


def _model_of(described: "_core.DescribedModel") -> IntegerModel:
    shift, centre, table = described
    if isinstance(table, int):
        return IntegerModel(shipped_table(table), shift, centre)
    return IntegerModel(table and Table(*table), shift, centre)


def _native_fit(
    models: "list[_core.DescribedModel]",
    class_model: "_core.DescribedModel | None",
    classes: NDArray[np.int64],
    cost: int,
) -> Fit:
    fitted = tuple(_model_of(each) for each in models)
    if class_model is None:
        return Fit(ModelSet(fitted), None, cost)
    return Fit(ModelSet(fitted, _model_of(class_model)), classes, cost)
