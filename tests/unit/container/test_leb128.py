import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.leb128 import read_sint, read_uint, write_sint, write_uint
from fewbits.errors import Corrupt, InvalidArgument


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_uint_round_trips_at_any_position(value: int, before: bytes) -> None:
    encoded = before + write_uint(value)
    assert read_uint(encoded + b"\xff", len(before)) == (value, len(encoded))


@given(st.integers(-(2**63), 2**63 - 1))
def test_sint_round_trips(value: int) -> None:
    assert read_sint(write_sint(value), 0) == (value, len(write_sint(value)))


def test_encodings_are_those_of_the_format() -> None:
    assert [write_uint(value).hex() for value in (0, 127, 128, 300)] == ["00", "7f", "8001", "ac02"]
    assert [write_sint(value) for value in (0, -1, 1, -2, 2)] == [bytes([value]) for value in range(5)]


@pytest.mark.parametrize("encoded", ["8000", "ff8000", "ffffffffffffffffff02", "80808080808080808080", "80", ""])
def test_another_form_than_the_shortest_is_corrupt(encoded: str) -> None:
    with pytest.raises(Corrupt, match="byte offset 1"):
        read_uint(b"\x00" + bytes.fromhex(encoded), 1)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_uint_out_of_range_is_an_invalid_argument(value: int) -> None:
    with pytest.raises(InvalidArgument):
        write_uint(value)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_sint_out_of_range_is_an_invalid_argument(value: int) -> None:
    with pytest.raises(InvalidArgument):
        write_sint(value)
