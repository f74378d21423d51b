"""Bit streams beside the entropy coder: raw bits and escapes (docs/format.md, sections 8 and 9.3)."""

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import Corrupt


def pack_raw(values: NDArray[np.uint64], width: int) -> bytes:
    """Write the low `width` (0 … 63) bits of each value, least significant first, padded to a byte.

    Args:
        values: (n,) uint64.
    """
    if width == 0 or values.size == 0:
        return b""
    octets = np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)
    if width % 8 == 0:
        return octets[:, : width // 8].tobytes()
    bits = np.unpackbits(octets[:, : (width + 7) // 8], axis=1, bitorder="little", count=width)
    return np.packbits(bits, bitorder="little").tobytes()


def raw_size(count: int, width: int) -> int:
    """Bytes that `count` values of `width` bits take."""
    return (count * width + 7) // 8


def unpack_raw(data: memoryview, count: int, width: int) -> NDArray[np.uint64]:
    """Read what `pack_raw` wrote: `data` has `raw_size(count, width)` bytes. Returns (count,) uint64.

    Raises:
        Corrupt: the padding is not zero.
    """
    if width == 0 or count == 0:
        return np.zeros(count, np.uint64)
    octets = np.zeros((count, 8), np.uint8)
    if width % 8 == 0:
        octets[:, : width // 8] = np.frombuffer(data, np.uint8).reshape(count, -1)
    else:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        if bits[count * width :].any():
            raise Corrupt("the padding after raw bits is not zero.")
        packed = np.packbits(bits[: count * width].reshape(count, width), axis=1, bitorder="little")
        octets[:, : packed.shape[1]] = packed
    return octets.view("<u8").reshape(count).astype(np.uint64, copy=False)


def pack_escapes(distances: NDArray[np.uint64], below: NDArray[np.bool_]) -> bytes:
    """Write each escape as its side (1: below the table) and the order-0 exponential-Golomb code of its distance.

    Args:
        distances: (n,) uint64, 0 for the first value beyond the table.
        below: (n,) bool.
    """
    if distances.size == 0:
        return b""
    plus_one = distances + np.uint64(1)
    zeros = _bit_lengths(plus_one) - 1
    lengths = 2 * zeros + 2
    ends = np.cumsum(lengths)
    starts = ends - lengths
    bits = np.zeros(int(ends[-1]), np.uint8)
    bits[starts] = below
    for place in range(int(zeros.max()) + 1):  # `place` counts from the most significant bit
        has = zeros >= place
        shift = (zeros[has] - place).astype(np.uint64)
        bits[starts[has] + 1 + zeros[has] + place] = (plus_one[has] >> shift) & np.uint64(1)
    return np.packbits(bits, bitorder="little").tobytes()


def _bit_lengths(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    lengths = np.zeros(values.shape, np.int64)
    rest = values.copy()
    for step in (32, 16, 8, 4, 2, 1):
        big = rest >> np.uint64(step) != 0
        lengths[big] += step
        rest[big] >>= np.uint64(step)
    return lengths + (rest != 0)


def escape_bits(distances: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits of each escape's side and distance."""
    return 2 * _bit_lengths(distances + np.uint64(1))


class EscapeReader:
    """Reads what `pack_escapes` wrote, some escapes at a time."""

    def __init__(self, data: memoryview) -> None:
        """Start at the front of the bytes of one stream's escapes."""
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        # As text, because finding the next 1 and reading binary digits are then single calls.
        self._bits = (bits + np.uint8(ord("0"))).tobytes().decode("ascii")
        self._position = 0

    def take(self, count: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Read the next `count` escapes; returns distances (count,) uint64 and below (count,) bool.

        Raises:
            Corrupt: there are not so many, or a code is longer than 64 bits.
        """
        bits, position = self._bits, self._position
        if 2 * count > len(bits) - position:
            raise Corrupt("a stream has more escapes than its escape bits hold.")
        distances: list[int] = []
        below: list[bool] = []
        # A loop over escapes, not over symbols: encoders choose tables under which escapes are rare.
        for _ in range(count):
            first = bits.find("1", position + 1)
            zeros = first - position - 1
            end = first + zeros + 1
            if first < 0 or zeros > 63 or end > len(bits):
                raise Corrupt("an escape code runs past its end.")
            below.append(bits[position] == "1")
            distances.append(int(bits[first:end], 2) - 1)
            position = end
        self._position = position
        return np.array(distances, np.uint64), np.array(below, np.bool_)

    def finish(self) -> None:
        """Check that only padding is left.

        Raises:
            Corrupt: something else is.
        """
        rest = self._bits[self._position :]
        if len(rest) >= 8 or "1" in rest:
            raise Corrupt("escape bits are left over.")
