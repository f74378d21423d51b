"""Random tables, models and arrays for the coder's tests."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.coder.integers import CodedArray, IntegerModel, ModelSet
from fewbits.coder.table import TOTAL, Table
from fewbits.models.shipped import NUM_SHIPPED, shipped_table

INT64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A shipped table, or any frequencies: flat, skewed, one symbol nearly certain, with an escape or without."""
    if draw(st.booleans()):
        return shipped_table(draw(st.integers(0, NUM_SHIPPED - 1)))
    num_values = draw(st.integers(1, 63))
    weights = draw(st.lists(st.sampled_from([1, 2, 30, 1000, 10**6]), min_size=num_values, max_size=num_values))
    has_escape = num_values == 1 or draw(st.booleans())
    weights = np.array(weights + ([draw(st.sampled_from([1, 5, 10**6]))] if has_escape else []))
    frequencies = 1 + (TOTAL - weights.size) * weights // weights.sum()
    frequencies[int(np.argmax(frequencies))] += TOTAL - int(frequencies.sum())
    escape = int(frequencies[-1]) if has_escape else 0
    return Table(draw(st.integers(-100, 100)), tuple(frequencies[:num_values].tolist()), escape)


def symbols_of(table: Table, count: int, seed: int) -> NDArray[np.uint8]:
    """Symbols drawn from the table's own frequencies."""
    generator = np.random.default_rng(seed)
    return generator.choice(64, count, p=table.counts / TOTAL).astype(np.uint8)


@st.composite
def models(draw: st.DrawFn) -> IntegerModel:
    """Any model that can code every 64-bit integer: with an escape, or 63 raw bits of them."""
    shift, centre = draw(st.sampled_from([0, 0, 1, 5, 8, 31, 62, 63])), draw(st.sampled_from([0, 3, -(2**63)]) | INT64)
    table = draw(tables().filter(lambda table: table.escape > 0))
    return IntegerModel(table, shift, centre)


@st.composite
def arrays(draw: st.DrawFn) -> CodedArray:
    """Values of every size with random models: one, or several classes of rows."""
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 70))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1, 10, 1000, 2**40, 2**63 - 1]))
    values = generator.integers(-scale, scale, (rows, columns), np.int64, endpoint=True)
    if not values.size or draw(st.booleans()):
        return CodedArray(values, ModelSet((draw(models()),)))
    classes = generator.integers(0, draw(st.integers(2, 4)), rows)
    set_ = [draw(models()) for _ in range(max(2, int(classes.max()) + 1))]
    class_model = draw(models() | st.just(IntegerModel(None, 2, 0)))
    return CodedArray(values, ModelSet(tuple(set_), class_model), classes)
