"""The layout of slots and the costs of frequencies."""

import math

import numpy as np
import pytest
from hypothesis import given

from fewbits.coder.table import BUCKET, COST_ONE, FREQUENCY_COSTS, TOTAL, Table
from fewbits.errors import Corrupt
from tests.unit.coder.samples import tables


@given(tables())
def test_each_symbol_owns_exactly_its_frequency_of_slots(table: Table) -> None:
    owned = np.bincount(table.symbol_of_slot, minlength=64)
    assert owned.tolist() == table.counts.tolist()


@given(tables())
def test_a_bucket_is_its_own_symbols_run_and_then_at_most_one_other(table: Table) -> None:
    for bucket, symbols in enumerate(table.symbol_of_slot.reshape(64, BUCKET).tolist()):
        own = symbols.count(bucket)
        assert symbols[:own] == [bucket] * own
        assert len(set(symbols[own:])) <= 1


@given(tables())
def test_the_offset_of_a_slot_counts_the_smaller_slots_of_its_symbol(table: Table) -> None:
    for symbol in np.flatnonzero(table.counts):
        entries = table.entries[table.symbol_of_slot == symbol]
        assert (entries >> 19).tolist() == list(range(int(table.counts[symbol])))
        assert set((entries & 63).tolist()) == {symbol}
        assert set((entries >> 6 & 8191).tolist()) == {int(table.counts[symbol]) - 1}


@given(tables())
def test_slots_are_the_inverse_of_the_layout(table: Table) -> None:
    assert sorted(table.slots.tolist()) == list(range(TOTAL))
    assert table.symbol_of_slot[table.slots].tolist() == np.repeat(np.arange(64), table.counts).tolist()


def test_the_layout_pairs_in_the_order_of_the_format() -> None:
    """Two symbols: bucket 0 is small and is filled from bucket 1; 62 empty buckets are filled from there as well."""
    table = Table(0, (100, 8092), 0)
    assert table.symbol_of_slot[:128].tolist() == [0] * 100 + [1] * 28
    assert set(table.symbol_of_slot[128:].tolist()) == {1}


def test_costs_are_those_of_the_logarithm_within_2_to_minus_15_bit() -> None:
    exact = [-math.log2(frequency / TOTAL) for frequency in range(1, TOTAL + 1)]
    assert np.abs(FREQUENCY_COSTS[1:] / COST_ONE - exact).max() < 2**-15
    assert FREQUENCY_COSTS[TOTAL] == 0 and (np.diff(FREQUENCY_COSTS) <= 0).all()


@pytest.mark.parametrize(
    ("frequencies", "escape"),
    [
        ((), 8192),
        ((8192,), 0),
        ((8191,), 0),
        ((8191, 1), 1),
        ((8192, 0), 0),
        ((8193, -1), 0),
        ((8193,), -1),
        ((128,) * 64, 0),
        ((2**63, 8192 - 2**63), 0),
    ],
)
def test_frequencies_that_are_no_table_are_corrupt(frequencies: tuple[int, ...], escape: int) -> None:
    with pytest.raises(Corrupt):
        Table.checked(0, frequencies, escape)
