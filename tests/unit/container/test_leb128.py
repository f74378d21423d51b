import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.leb128 import read_sint, read_uint, read_uints, write_sint, write_uint
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


def test_many_integers_are_read_as_one_by_one() -> None:
    values = [0, 1, 127, 128, 129, 16_383, 16_384, 1 << 40, (1 << 64) - 1, 5]
    data = b"".join(map(write_uint, values))
    assert read_uints(b"\xff" + data, 1, len(values)) == (values, 1 + len(data))
    assert read_uints(data, 0, 0) == ([], 0)
    for end in range(len(data)):
        with pytest.raises(Corrupt, match="runs past"):
            read_uints(data[:end], 0, len(values))
    for wrong in (b"\x80\x00", b"\xff\x80\x00", b"\xff" * 11):
        with pytest.raises(Corrupt, match="byte offset 1"):
            read_uints(b"\x07" + wrong, 0, 2)
