"""Variable-length integers of the file format (`docs/format.md`, section 1): LEB128, shortest form only."""

from collections.abc import Iterable
from typing import TypeAlias

from fewbits.errors import Corrupt, InvalidArgument

Bytes: TypeAlias = bytes | memoryview  # of a view nobody has made a copy: a payload in a file, a body in a payload

MAX_BYTES = 10  # WIRE: 64 bits in groups of 7

_SINGLE = [bytes([value]) for value in range(0x80)]


def write_uint(value: int) -> bytes:
    """Encode an unsigned integer, 7 bits a byte, least significant group first.

    Raises:
        InvalidArgument: `value` is negative or needs more than 64 bits.
    """
    if 0 <= value < 0x80:  # as most are
        return _SINGLE[value]
    if not 0 <= value < 1 << 64:
        raise InvalidArgument(f"{value} is not an unsigned 64-bit integer.")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def write_uints(values: Iterable[int]) -> bytes:
    """Encode as many unsigned integers, one after the other.

    Raises:
        InvalidArgument: as `write_uint`.
    """
    encoded = bytearray()
    for value in values:
        if 0 <= value < 0x80:
            encoded.append(value)
        elif 0 < value < 0x4000:
            encoded.append(value & 0x7F | 0x80)
            encoded.append(value >> 7)
        else:
            encoded += write_uint(value)
    return bytes(encoded)


def read_uint(data: Bytes | bytearray, position: int) -> tuple[int, int]:
    """Decode the unsigned integer at byte `position`; return it and the position after it.

    Raises:
        Corrupt: the integer is not in its shortest form, needs more than 64 bits, or runs past the
            end of `data`; names the byte offset in `data`.
    """
    if position < len(data) and data[position] < 0x80:  # as most are
        return data[position], position + 1
    end = min(len(data), position + MAX_BYTES)
    value = 0
    for at in range(position, end):
        byte = data[at]
        value |= (byte & 0x7F) << 7 * (at - position)
        if byte < 0x80:
            if byte == 0 and at > position:
                raise Corrupt(f"the integer at byte offset {position} is not in its shortest form.")
            if value >> 64:
                raise Corrupt(f"the integer at byte offset {position} needs more than 64 bits.")
            return value, at + 1
    if end == position + MAX_BYTES:
        raise Corrupt(f"the integer at byte offset {position} is longer than {MAX_BYTES} bytes.")
    raise Corrupt(f"the integer at byte offset {position} runs past the end of its field.")


def read_uints(data: Bytes | bytearray, position: int, count: int) -> tuple[list[int], int]:
    """Decode as many unsigned integers from byte `position` on; return them and the position after them.

    Raises:
        Corrupt: as `read_uint`.
    """
    values: list[int] = []
    try:
        for _ in range(count):
            low = data[position]
            if low < 0x80:
                values.append(low)
                position += 1
            elif 0 < (high := data[position + 1]) < 0x80:
                values.append(low & 0x7F | high << 7)
                position += 2
            else:
                value, position = read_uint(data, position)
                values.append(value)
    except IndexError:
        read_uint(data, position)  # says what is missing
        raise
    return values, position


def write_sint(value: int) -> bytes:
    """Encode a signed 64-bit integer as the `uint` of its zigzag: 0, -1, 1, -2, ... are 0, 1, 2, 3, ...

    Raises:
        InvalidArgument: `value` needs more than 64 bits.
    """
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(f"{value} is not a signed 64-bit integer.")
    return write_uint(value << 1 if value >= 0 else (-value << 1) - 1)


def read_sint(data: Bytes | bytearray, position: int) -> tuple[int, int]:
    """Decode the signed integer at byte `position`; return it and the position after it.

    Raises:
        Corrupt: as `read_uint`.
    """
    zigzag, position = read_uint(data, position)
    return (zigzag >> 1) ^ -(zigzag & 1), position
