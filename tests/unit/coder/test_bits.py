"""Raw bits and escapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.bits import EscapeReader, escape_bits, pack_escapes, pack_raw, raw_size, unpack_raw
from fewbits.errors import Corrupt

UINT64 = st.integers(0, 2**64 - 1)


@given(st.lists(UINT64, max_size=40), st.integers(0, 63))
def test_raw_bits_round_trip(values: list[int], width: int) -> None:
    packed = pack_raw(np.array(values, np.uint64), width)
    assert len(packed) == raw_size(len(values), width)
    unpacked = unpack_raw(memoryview(packed), len(values), width)
    assert unpacked.tolist() == [value % (1 << width) for value in values]


def test_raw_bits_fill_bytes_from_the_least_significant_bit() -> None:
    assert pack_raw(np.array([1, 2, 7], np.uint64), 3).hex() == "d101"


def test_padding_of_raw_bits_is_checked() -> None:
    with pytest.raises(Corrupt):
        unpack_raw(memoryview(b"\xd1\x03"), 3, 3)


@given(
    st.lists(st.tuples(st.integers(0, 2**64 - 2) | st.integers(0, 9), st.booleans()), max_size=40), st.integers(0, 40)
)
def test_escapes_round_trip_in_any_portions(escapes: list[tuple[int, bool]], first: int) -> None:
    distances = np.array([distance for distance, _ in escapes], np.uint64)
    below = np.array([side for _, side in escapes], np.bool_)
    packed = pack_escapes(distances, below)
    assert len(packed) == raw_size(int(escape_bits(distances).sum()), 1)
    reader = EscapeReader(memoryview(packed))
    portions = [reader.take(min(first, len(escapes))), reader.take(max(0, len(escapes) - first))]
    reader.finish()
    assert np.concatenate([portion[0] for portion in portions]).tolist() == distances.tolist()
    assert np.concatenate([portion[1] for portion in portions]).tolist() == below.tolist()


def test_an_escape_is_its_side_and_an_exponential_golomb_code() -> None:
    # above by 0: 0, 1; below by 4: 1, 00 101. From the least significant bit: 0 1 1 0 0 1 0 1.
    assert pack_escapes(np.array([0, 4], np.uint64), np.array([False, True])).hex() == "a6"


@pytest.mark.parametrize(
    ("data", "count"), [("", 1), ("00", 1), ("00" * 9 + "01", 1), ("02", 5), ("a600", 2), ("a6", 1)]
)
def test_escapes_that_are_too_few_too_long_or_too_many_are_corrupt(data: str, count: int) -> None:
    reader = EscapeReader(memoryview(bytes.fromhex(data)))
    with pytest.raises(Corrupt):
        reader.take(count)
        reader.finish()
