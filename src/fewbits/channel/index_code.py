"""Numbers of candidates as bytes: an octave by a table, the rest of a number raw (docs/format.md, section 13).

A number n from 1 on is 2^c and something below 2^c: c, its octave, has a Zipf distribution's probability, in integers;
inside an octave all numbers count alike, which costs 0.03 to 0.1 bit. Where no exponent suits, octaves have the
probabilities of Elias's delta code, or a table of their own, which is worth its bytes for some hundred indices or more.

Source: the exponent by Theis, Yosri 2022 (arXiv:2110.12805), section 2; Elias 1975.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.body import decode_body, encode_body
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.coder.table import TOTAL, Table
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.models.descriptions import read_model, write_table
from fewbits.models.histogram import histogram_table

NUM_EXPONENTS = 64  # WIRE: exponent i is 1 + 2^(-i/8)
DELTA = NUM_EXPONENTS  # WIRE: Elias's delta code
OWN = DELTA + 1  # WIRE: a table of the octaves follows
_HISTOGRAM = 192  # WIRE: how it begins
MOST_OCTAVES = 63

# WIRE: 2^16 times 2^-(2^(-i/8)), rounded: how much less an octave's probability is than the one's before.
_RATIOS = tuple(round(2**16 * 2 ** -(2 ** (-i / 8))) for i in range(NUM_EXPONENTS))
# WIRE: 2^16 times the sum of 1/n over an octave, rounded; of later ones the last.
_HARMONIC = (65536, 54613, 49776, 47538, 46466, 45942, 45683, 45554, 45490, 45458, 45442, 45434, 45430, 45428, 45426)


def exponent_for(bits: float) -> int:
    """Return the exponent for indices that tell this many bits, the targets' mean divergence.

    PAPER: 1 + 1 / (I + log2(e) / e + 1); for hybrid coding I without the bits of the cells.
    """
    return max(0, min(NUM_EXPONENTS - 1, round(8 * math.log2(bits + math.log2(math.e) / math.e + 1))))


def octave_table(exponent: int, cap: int) -> Table:
    """Return the table of the octaves of numbers 1 … cap.

    Args:
        exponent: 0 … 63, or DELTA.
        cap: from 2 to 2^63 - 1.
    """
    num_octaves = cap.bit_length()
    if exponent == DELTA:
        weights = [1 << (62 - 2 * (octave + 1).bit_length()) for octave in range(num_octaves)]
    else:
        height, weights = 1 << 32, list[int]()
        for octave in range(num_octaves):
            weights.append(_HARMONIC[min(octave, len(_HARMONIC) - 1)] * height >> 16)
            height = height * _RATIOS[exponent] >> 16
    last = num_octaves - 1
    weights[last] = weights[last] * (cap - (1 << last) + 1) >> last  # the last octave may not be whole
    total = sum(weights)
    counts = [1 + (TOTAL - num_octaves) * weight // total for weight in weights]
    counts[0] += TOTAL - sum(counts)
    return Table(0, tuple(counts), 0)


def encode_indices(indices: NDArray[np.int64], cap: int, exponent: int | None = None) -> bytes:
    """Return the bytes of indices.

    Args:
        indices: (N,) int64 from 0 to cap - 1.
        cap: number of candidates that there may be, from 1 to 2^63 - 1; the decoder knows it.
        exponent: 0 … 63, or DELTA; by default the one that takes the fewest bits, or OWN where that takes fewer.

    Raises:
        InvalidArgument: an index, the cap or the exponent is out of its range.
    """
    _check_cap(cap)
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= cap):
        raise InvalidArgument(f"an index is not from 0 to {cap - 1}.")
    if exponent is not None and not 0 <= exponent <= DELTA:
        raise InvalidArgument(f"an exponent is from 0 to {DELTA}, not {exponent}.")
    numbers = indices.astype(np.uint64) + np.uint64(1)
    octaves = _octaves(numbers)
    if not indices.size or cap < 2:
        return b""
    if exponent is not None:
        head = _head(bytes([exponent]), octave_table(exponent, cap), octaves)
    else:
        used = np.bincount(octaves, minlength=cap.bit_length())
        exponent = min(range(DELTA + 1), key=lambda each: _cost(octave_table(each, cap), used))
        head, own = _head(bytes([exponent]), octave_table(exponent, cap), octaves), histogram_table(0, used)
        if own is not None and (described := write_table(own))[0] == _HISTOGRAM:
            head = min(head, _head(bytes([OWN]) + described, own, octaves), key=len)
    return head + _packed(numbers, octaves)


def decode_indices(data: bytes, count: int, cap: int) -> NDArray[np.int64]:
    """Return the indices (count,) int64 that `encode_indices` wrote; the data is theirs to its end.

    Raises:
        Corrupt: the data breaks a rule, or an index is not below the cap.
        InvalidArgument: the cap is out of its range.
    """
    _check_cap(cap)
    if not count or cap < 2:
        if data:
            raise Corrupt("there are bytes where no index needs any.")
        return np.zeros(count, np.int64)
    model, position = _read_model(data, cap)
    size, position = read_uint(data, position)
    if position + size > len(data):
        raise Corrupt("the octaves of indices end too soon.")
    array = ArraySpec(1, count, ModelSet((model,)))
    octaves = decode_body(data[position : position + size], [array])[0].reshape(-1)
    if int(octaves.min()) < 0 or int(octaves.max()) >= cap.bit_length():
        raise Corrupt(f"an index is beyond the cap of {cap}.")
    indices = _unpacked(data[position + size :], octaves) - 1
    if int(indices.max()) >= cap:
        raise Corrupt(f"an index is beyond the cap of {cap}.")
    return indices


def _head(described: bytes, table: Table, octaves: NDArray[np.int64]) -> bytes:
    body = encode_body([CodedArray(octaves, ModelSet((IntegerModel(table),)))], wide=False)
    return described + write_uint(len(body)) + body


def _read_model(data: bytes, cap: int) -> tuple[IntegerModel, int]:
    if not data or data[0] > OWN or (data[0] == OWN and data[1:2] != bytes([_HISTOGRAM])):
        raise Corrupt("indices have no exponent.")
    return read_model(data, 1) if data[0] == OWN else (IntegerModel(octave_table(data[0], cap)), 1)


def _check_cap(cap: int) -> None:
    if not 1 <= cap < 1 << MOST_OCTAVES:
        raise InvalidArgument(f"a cap is from 1 to 2^{MOST_OCTAVES} - 1, not {cap}.")


def _octaves(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The place of the highest bit."""
    octaves = np.zeros(numbers.shape, np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        high = (numbers >> (octaves + shift).astype(np.uint64)) > 0
        octaves += shift * high
    return octaves


def _cost(table: Table, used: NDArray[np.int64]) -> float:
    return float((used * -np.log2(np.array(table.frequencies))).sum())


def _packed(numbers: NDArray[np.uint64], octaves: NDArray[np.int64]) -> bytes:
    """The bits below each number's highest one, least significant first, one number after the other."""
    ends = np.add.accumulate(octaves)
    place = np.arange(int(ends[-1])) - np.repeat(ends - octaves, octaves)
    bits = np.repeat(numbers, octaves) >> place.astype(np.uint64) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def _unpacked(data: bytes, octaves: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.add.accumulate(octaves)
    total = int(ends[-1])
    if len(data) != (total + 7) // 8:
        raise Corrupt("the raw bits of indices have another length than their octaves say.")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[total:].any():
        raise Corrupt("the padding after raw bits is not zero.")
    place = np.arange(total) - np.repeat(ends - octaves, octaves)
    sums = np.concatenate([np.zeros(1, np.int64), np.add.accumulate(bits[:total].astype(np.int64) << place)])
    return sums[ends] - sums[ends - octaves] + (np.int64(1) << octaves)
