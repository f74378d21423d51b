"""Tables from counts, the shipped constants, descriptions, and what a fit costs."""

import hashlib
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.body import encode_body
from fewbits.coder.integers import CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.coder.table import FREQUENCY_COSTS, TOTAL, Table
from fewbits.errors import Corrupt, FewbitsError
from fewbits.models.descriptions import MAX_CLASSES, read_model, read_models, write_model, write_models
from fewbits.models.fit import Fit, Spectrum, fit_rows, fit_values, model_cost
from fewbits.models.histogram import histogram_table
from fewbits.models.shipped import NUM_SHIPPED, REACH, shipped_table
from tests.unit.coder.samples import INT64, models, tables

# ---- shipped tables


def test_there_are_192_shipped_tables_and_each_sums_to_8192() -> None:
    assert NUM_SHIPPED == 192
    for code in range(NUM_SHIPPED):
        table = shipped_table(code)
        assert sum(table.frequencies) + table.escape == TOTAL
        assert table == Table.checked(table.low, table.frequencies, table.escape)
        assert table.frequencies == table.frequencies[::-1]
        assert table.low == -table.last and table.last <= REACH


def test_shipped_tables_have_an_escape_and_fall_from_the_centre() -> None:
    for code in range(NUM_SHIPPED):
        table = shipped_table(code)
        assert table.escape >= 1
        falls = np.diff(table.frequencies[-table.low :])
        assert (falls[:1] <= 1).all() and (falls[1:] <= 0).all()  # the centre takes the rounding of the sum


def test_shipped_tables_never_change() -> None:
    text = resources.files("fewbits.models").joinpath("shipped_tables.csv").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "8e2f78d763b33596b148ea3b27da7262c3fd70c3769608479b1dd47d81374777"


# ---- histograms


@given(st.integers(-50, 50), st.lists(st.integers(0, 10**6) | st.just(0), min_size=1, max_size=90), st.integers(0, 50))
def test_a_histogram_is_a_table_that_can_code_what_it_was_made_from(
    low: int, counts: list[int], elsewhere: int
) -> None:
    counts = [*counts[:-1], counts[-1] + 1]
    table = histogram_table(low, np.array(counts), elsewhere)
    if table is None:
        return
    assert table == Table.checked(table.low, table.frequencies, table.escape)
    outside = elsewhere + sum(count for value, count in enumerate(counts, low) if not table.low <= value <= table.last)
    assert (table.escape > 0) == (outside > 0)


def test_a_histogram_of_one_value_is_none() -> None:
    assert histogram_table(3, np.array([0, 7, 0])) is None


def test_a_histogram_costs_little_more_than_the_entropy() -> None:
    counts = np.array([1000, 5000, 20000, 5000, 1000])
    table = histogram_table(-2, counts)
    assert table is not None
    entropy = -(counts * np.log2(counts / counts.sum())).sum()
    assert (counts * table.costs).sum() / 65536 < 1.0001 * entropy


# ---- descriptions


@given(models() | st.builds(IntegerModel, st.none(), st.integers(0, 63), INT64))
def test_model_descriptions_round_trip(model: IntegerModel) -> None:
    data = write_model(model)
    assert read_model(data + b"\0", 0) == (model, len(data))


@given(st.lists(models(), min_size=2, max_size=4), models())
def test_model_set_descriptions_round_trip(several: list[IntegerModel], class_model: IntegerModel) -> None:
    for set_ in (ModelSet(tuple(several), class_model), ModelSet((class_model,))):
        data = write_models(set_)
        assert read_models(b"\0" + data, 1) == (set_, len(data) + 1)


@given(tables())
def test_shipped_tables_take_one_byte(table: Table) -> None:
    size = len(write_model(IntegerModel(table)))
    assert size == 1 if table in {shipped_table(code) for code in range(NUM_SHIPPED)} else size > 4


HISTOGRAM = b"\xc0" + write_sint(0) + write_uint(1) + write_uint(4096) + write_uint(4096) + b"\0"
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "a reserved byte": b"\xc4",
    "a set within a set": b"\xc3\x00\xc3\x00\x00\x00\x00",
    "a set as class model": b"\xc3\x00\x00\x00\xc3\x00\x00\x00\x00",
    "a shift above 63": b"\xc1\x40\x00",
    "a shifted table with a shift above 63": b"\xc2\x40\x00\x00",
    "a shifted table that is not shifted": b"\xc2\x00\x00\x00",
    "a shifted constant": b"\xc2\x01\x00\xc1\x00\x00",
    "a shifted table within another": b"\xc2\x01\x00\xc2\x01\x00\x00",
    "a shifted set": b"\xc2\x01\x00\xc3\x00\x00\x00\x00",
    "a histogram of 64 values": b"\xc0\x00" + write_uint(63) + write_uint(128) * 64 + b"\0",
    "a histogram of 2^63 values": b"\xc0\x00" + write_uint(2**63),
    "a histogram that sums to less": HISTOGRAM[:-1] + b"\x01",
    "a histogram of one symbol": b"\xc0\x00\x00" + write_uint(8192) + b"\0",
    "a histogram cut short": HISTOGRAM[:-1],
    "4097 classes": b"\xc3" + write_uint(MAX_CLASSES - 1) + b"\0" * (MAX_CLASSES + 2),
    "2^63 classes": b"\xc3" + write_uint(2**63),
    "classes cut short": b"\xc3\x00\x00\x00",
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_descriptions_are_corrupt(what: str) -> None:
    with pytest.raises(Corrupt):
        read_models(BROKEN[what], 0)


def test_4096_classes_are_read() -> None:
    set_, _ = read_models(b"\xc3" + write_uint(MAX_CLASSES - 2) + b"\0" * (MAX_CLASSES + 1), 0)
    assert len(set_.models) == MAX_CLASSES


@given(st.binary(max_size=30))
def test_any_bytes_are_a_model_set_or_corrupt(data: bytes) -> None:
    for first in (b"", b"\xc0", b"\xc2", b"\xc3"):
        try:
            read_models(first + data, 0)
        except FewbitsError as error:
            assert isinstance(error, Corrupt)


# ---- fits


def size_of(values: np.ndarray, fit: Fit, *, wide: bool) -> int:
    body = encode_body([CodedArray(values, fit.models, fit.classes)], wide=wide)
    return len(write_models(fit.models)) + len(body)


SOURCES = {
    "laplace": lambda g: np.rint(g.laplace(0, 2, (20, 500))),
    "narrow": lambda g: np.rint(g.laplace(0, 0.1, (20, 500))),
    "wide": lambda g: np.rint(g.normal(100, 5000, (20, 500))),
    "heavy tails": lambda g: np.rint(g.standard_cauchy((20, 500)) * 3).clip(-(2**40), 2**40),
    "uniform bytes": lambda g: g.integers(0, 256, (20, 500)),
    "uniform 40 bits": lambda g: g.integers(-(2**39), 2**39, (20, 500)),
    "two far values": lambda g: g.integers(0, 2, (20, 500)) * 2**50,
    "rows of their own scale": lambda g: np.rint(g.laplace(0, 1, (20, 500)) * 2.0 ** np.arange(20)[:, None]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_cost_of_a_fit_is_the_size_that_is_written(source: str) -> None:
    values = SOURCES[source](np.random.default_rng(0)).astype(np.int64)
    fits = [fit_values(values), fit_rows(values, np.arange(20) // 2)]
    for fit in fits:
        assert fit is not None
        assert abs(size_of(values, fit, wide=False) - fit.bits / 8) <= 0.005 * fit.bits / 8 + 16
        assert abs(size_of(values, fit, wide=True) - fit.bits / 8) <= 0.005 * fit.bits / 8 + 160  # the lanes' states


@pytest.mark.parametrize("source", SOURCES)
def test_a_fit_is_never_worse_than_raw_bits(source: str) -> None:
    values = SOURCES[source](np.random.default_rng(1)).astype(np.int64)
    width = (int(values.max()) - int(values.min())).bit_length()
    assert size_of(values, fit_values(values), wide=False) <= values.size * width / 8 + 24


@given(st.lists(INT64 | st.integers(-300, 300), min_size=1, max_size=30))
def test_a_fit_of_any_integers_is_never_worse_than_raw_bits_and_costs_what_it_says(values: list[int]) -> None:
    array = np.array([values])
    fit = fit_values(array)
    size = size_of(array, fit, wide=False)
    assert abs(size - fit.bits / 8) <= 0.005 * fit.bits / 8 + 16
    width = (max(values) - min(values)).bit_length()
    if width < 64:
        assert size <= len(values) * width / 8 + 24


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=50), tables())
def test_the_cost_of_a_model_is_the_sum_of_its_symbols_costs(values: list[int], table: Table) -> None:
    inside = [min(max(value, table.low), table.last) for value in values]
    cost = model_cost(IntegerModel(table), Spectrum.of(np.array(inside)))
    assert cost == sum(int(FREQUENCY_COSTS[table.frequencies[value - table.low]]) for value in inside)


def test_a_constant_costs_its_description_only() -> None:
    fit = fit_values(np.full((5, 5), -7))
    assert fit.models.models == (IntegerModel(None, 0, -7),)
    assert size_of(np.full((5, 5), -7), fit, wide=False) == 6


def test_rows_of_one_class_or_of_too_many_are_not_fitted() -> None:
    values = np.zeros((MAX_CLASSES + 1, 1), np.int64)
    assert fit_rows(values, np.zeros(MAX_CLASSES + 1, np.int64)) is None
    assert fit_rows(values, np.arange(MAX_CLASSES + 1)) is None
