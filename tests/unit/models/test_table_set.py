"""Tables by number: near the densities they are made of, and coding every value."""

import numpy as np
import pytest
import torch

from fewbits.coder.table import Table
from fewbits.errors import Corrupt
from fewbits.models.scale_indexed import NUM_SCALES, ScaleIndexed, index_of, scale_of
from fewbits.models.table_set import IndexedCoder, TableSet

OFFSETS = torch.tensor([-0.75, -0.5, -0.25], dtype=torch.float64)
FAMILY = ScaleIndexed("gaussian")
NUMBERS = torch.arange(0, NUM_SCALES, 5).double()


def between(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    return FAMILY.interval_bits(lower, upper, NUMBERS)


@pytest.fixture(scope="module")
def coder() -> IndexedCoder:
    return IndexedCoder(TableSet.of_density(between, len(NUMBERS), OFFSETS))


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of all densities at all levels, the numbers of their tables, and their entropy in bits."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, len(NUMBERS) * len(OFFSETS), count)
    prior, level = torch.from_numpy(numbers // len(OFFSETS)), torch.from_numpy(numbers % len(OFFSETS))
    latents = torch.from_numpy(rng.standard_normal(count)) * scale_of(NUMBERS[prior])
    values = torch.floor(latents - OFFSETS[level])
    lower = values + OFFSETS[level]
    bits = FAMILY.interval_bits(lower, lower + 1, NUMBERS[prior])
    return values.long().numpy(), numbers, float(bits.sum())


@pytest.mark.parametrize("count", [1, 7, 300, 60_000])
def test_values_come_back_and_take_what_the_tables_say(coder: IndexedCoder, count: int, isa: str) -> None:
    values, numbers, _ = drawn(count, count)
    data = coder.encode(values, numbers)
    assert np.array_equal(coder.decode(data, numbers), values)
    assert 8 * len(data) == pytest.approx(coder.bits(values, numbers), rel=0.005, abs=120)


def test_tables_take_hardly_more_than_their_densities(coder: IndexedCoder) -> None:
    values, numbers, entropy = drawn(9, 200_000)
    assert entropy < coder.bits(values, numbers) < 1.006 * entropy


def test_every_value_has_a_code(coder: IndexedCoder) -> None:
    values = np.array([0, 5000, -5000, 1 << 40, -(1 << 40), 17])
    for number in range(len(coder.tables.low)):
        numbers = np.full(len(values), number)
        data = coder.encode(values, numbers)
        assert np.array_equal(coder.decode(data, numbers), values)
        assert 8 * len(data) == pytest.approx(coder.bits(values, numbers), abs=70)


def test_bytes_of_other_values_are_refused_or_give_as_many(coder: IndexedCoder) -> None:
    values, numbers, _ = drawn(4, 500)
    data = coder.encode(values, numbers)
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(Corrupt):
            coder.decode(data[:cut], numbers)
    with pytest.raises(Corrupt):
        coder.decode(data + b"\0", numbers)


def test_they_are_stored_and_read(coder: IndexedCoder) -> None:
    tensors = coder.tables.to_tensors()
    again = TableSet.from_tensors(tensors)
    assert all(np.array_equal(one, other) for one, other in zip(again, coder.tables, strict=True))
    for changes in (
        {"low": tensors["low"].int()},
        {"shift": tensors["shift"][1:]},
        {"frequencies": tensors["frequencies"][:, 1:]},
    ):
        with pytest.raises(Corrupt, match="tables"):
            TableSet.from_tensors(tensors | changes)
    del tensors["low"]
    with pytest.raises(Corrupt, match="tables"):
        TableSet.from_tensors(tensors)


@pytest.mark.parametrize(("column", "value"), [(0, 1), (0, -3), (63, 8192), (62, 1)])
def test_a_row_that_is_no_table_is_corrupt(column: int, value: int) -> None:
    tables = TableSet.of_tables([(Table(-1, (2000, 4000, 2000), 192), 0)])
    TableSet.from_tensors(tables.to_tensors())
    tables.frequencies[0, column] = value
    with pytest.raises(Corrupt, match="none"):
        TableSet.from_tensors(tables.to_tensors())


def test_tables_of_one_symbol_gaps_and_shifts_beyond_are_corrupt() -> None:
    right = TableSet.of_tables([(Table(-1, (2000, 4000, 2000), 192), 32)])
    TableSet.from_tensors(right.to_tensors())
    one, gap = (right._replace(frequencies=np.zeros((1, 64), np.int16)) for _ in range(2))
    one.frequencies[0, 0] = 8192
    gap.frequencies[0, [0, 2]] = 4096
    for tables in (one, gap, right._replace(shift=np.array([33], np.uint8))):
        with pytest.raises(Corrupt, match="none"):
            TableSet.from_tensors(tables.to_tensors())


def test_numbers_of_scales_and_scales() -> None:
    scales = scale_of(torch.arange(NUM_SCALES).double())
    assert float(scales[0]) == pytest.approx(0.02) and float(scales[-1]) == pytest.approx(124.2, abs=0.2)
    assert torch.allclose(index_of(scales), torch.arange(NUM_SCALES).double())
    assert torch.equal(scale_of(torch.tensor([-5.0, 100.0])), scale_of(torch.tensor([0.0, NUM_SCALES - 1.0])))


def test_the_nearest_scale_costs_hardly_anything() -> None:
    # Half a step off, the worst there is: the divergence of the two densities, by the entropy of many values.
    torch.manual_seed(0)
    index = torch.tensor(42.5, dtype=torch.float64)
    values = scale_of(index) * torch.randn(400_000, dtype=torch.float64)
    own = FAMILY.interval_bits(values - 0.5, values + 0.5, index)
    for other in (42.0, 43.0):
        near = FAMILY.interval_bits(values - 0.5, values + 0.5, torch.tensor(other, dtype=torch.float64))
        assert 0 < float((near - own).mean()) < 0.0075
