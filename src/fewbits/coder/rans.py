"""The entropy coder, written out in NumPy: 32-lane and single-lane rANS (docs/format.md, section 9).

Three surprises first. Encoding runs backwards, from the last symbol to the first, so that decoding runs forwards.
The words of a stream are therefore written from its end to its start. And lanes and tables are free of each other:
which table a symbol uses has no trace in the state, so tables may change between any two groups at no cost.

Why decoding inverts encoding: a state x codes a symbol of frequency f by taking the x mod f-th of the symbol's slots
below 8192 and x div f above, which x div 8192 and the slot's offset give back. The state stays in [2^16, 2^32):
before coding, a lane with x >= f * 2^19 sheds its low 16 bits as a word, which leaves x >= f * 2^3, so that the new
state is at least 2^16; in the decoder exactly such a lane falls below 2^16 and takes the word back.

This is the specification in code; the native coder must match it byte for byte. Many chunks go in lockstep, one NumPy
operation for a group of each, which is what keeps it usable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.table import MAX_SYMBOLS, PRECISION, TOTAL, Table
from fewbits.errors import Corrupt

LANES = 32  # WIRE
LOWEST = 1 << 16  # a lane's lowest state, and its last
_EMIT_SHIFT = np.uint32(32 - PRECISION)
_LANE = np.arange(LANES)


@dataclass(frozen=True)
class Groups:
    """How a sequence of symbols is cut into groups of at most 32, each with one table.

    start: (G,) int64, first symbol of each group; length: (G,) int64, 1 … 32; table: (G,) int64, index of its table.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    table: NDArray[np.int64]

    @classmethod
    def of_segments(cls, lengths: NDArray[np.int64], tables: NDArray[np.int64]) -> "Groups":
        """Cut segments (S,) of the given lengths and tables into groups; empty segments have none."""
        per_segment = -(-lengths // LANES)
        first = np.cumsum(lengths) - lengths
        group_in_segment = np.arange(per_segment.sum()) - np.repeat(np.cumsum(per_segment) - per_segment, per_segment)
        start = np.repeat(first, per_segment) + LANES * group_in_segment
        left = np.repeat(lengths, per_segment) - LANES * group_in_segment
        return cls(start, np.minimum(left, LANES), np.repeat(tables, per_segment))


class WideChunk(NamedTuple):
    """One independent run of groups: lane states (32,) uint32 and words (W,) uint16."""

    states: NDArray[np.uint32]
    words: NDArray[np.uint16]


class _Lockstep(NamedTuple):
    """Chunks sorted by falling number of groups, so that the ones still running are always the first."""

    order: NDArray[np.int64]
    first: NDArray[np.int64]  # first group of each chunk, in `order`
    stop: NDArray[np.int64]
    running: list[int]  # step -> how many chunks have a group left
    all_full: list[bool]  # step -> whether all groups of that step have 32 symbols (counted from the front)


def _lockstep(groups: Groups, bounds: NDArray[np.int64], from_end: bool) -> _Lockstep:
    sizes = np.diff(bounds)
    order = np.argsort(-sizes, kind="stable")
    first, stop = bounds[:-1][order], bounds[1:][order]
    steps = int(sizes.max(initial=0))
    running = np.searchsorted(-sizes[order], -np.arange(steps), side="left").tolist()
    full = np.ones(steps, np.bool_)
    short = np.flatnonzero(groups.length < LANES)
    chunk = np.searchsorted(bounds, short, side="right") - 1
    full[bounds[chunk + 1] - 1 - short if from_end else short - bounds[chunk]] = False
    return _Lockstep(order, first, stop, running, full.tolist())


def encode_wide(
    symbols: NDArray[np.uint8], groups: Groups, bounds: NDArray[np.int64], tables: Sequence[Table]
) -> list[WideChunk]:
    """Encode chunks of whole groups.

    Args:
        symbols: (N,) uint8, each with a frequency above 0 in its group's table.
        groups: how the symbols are cut.
        bounds: (C + 1,) first group of each chunk, and the end.
        tables: what `groups.table` indexes.
    """
    plan = _lockstep(groups, bounds, from_end=True)
    counts = np.concatenate([table.counts for table in tables])
    starts = np.concatenate([table.starts + i * TOTAL for i, table in enumerate(tables)]).astype(np.int64)
    slots = np.concatenate([table.slots for table in tables])
    padded = np.concatenate([symbols, np.zeros(LANES, np.uint8)])
    state = np.full((len(plan.order), LANES), LOWEST, np.uint32)
    # A symbol sheds one word at most, so a chunk's words fit in as many places as it has symbols.
    words = np.empty(symbols.size, np.uint16)
    end = groups.start[plan.stop - 1] + groups.length[plan.stop - 1]
    write = end.copy()
    for step, running in enumerate(plan.running):
        group = plan.stop[:running] - 1 - step
        key = (groups.table[group] * MAX_SYMBOLS)[:, None] + padded[groups.start[group][:, None] + _LANE]
        x = state[:running]
        frequency = counts[key]
        shed = (x >> _EMIT_SHIFT) >= frequency
        full = plan.all_full[step]
        valid = None if full else groups.length[group][:, None] > _LANE
        if valid is not None:
            shed &= valid
            frequency = np.where(valid, frequency, np.uint32(1))
        place = shed.cumsum(axis=1)
        write[:running] -= place[:, -1]
        words[(write[:running, None] + place - 1)[shed]] = x[shed].astype(np.uint16)
        y = np.where(shed, x >> np.uint32(16), x)
        quotient = y // frequency
        inverse = starts[key] + (y - quotient * frequency)
        slot = slots[inverse if valid is None else np.where(valid, inverse, 0)]
        coded = (quotient << np.uint32(PRECISION)) + slot
        state[:running] = coded if valid is None else np.where(valid, coded, x)
    chunks: list[WideChunk] = [WideChunk(np.empty(0, np.uint32), np.empty(0, np.uint16))] * len(plan.order)
    for rank, chunk in enumerate(plan.order.tolist()):
        chunks[chunk] = WideChunk(state[rank].copy(), words[write[rank] : end[rank]].copy())
    return chunks


def decode_wide(
    chunks: Sequence[WideChunk], groups: Groups, bounds: NDArray[np.int64], tables: Sequence[Table]
) -> NDArray[np.uint8]:
    """Decode what `encode_wide` made; returns (N,) uint8 symbols.

    Raises:
        Corrupt: a state is out of range, words are missing or left over, or a lane does not end in its start state.
    """
    plan = _lockstep(groups, bounds, from_end=False)
    entries = np.concatenate([table.entries for table in tables])
    num_symbols = int(groups.start[-1] + groups.length[-1]) if groups.start.size else 0
    symbols = np.empty(num_symbols + LANES, np.uint8)
    state = np.stack([chunks[chunk].states for chunk in plan.order.tolist()]).astype(np.uint32)
    if (state < LOWEST).any():
        raise Corrupt("a stream's lane state is out of range.")
    sizes = np.array([chunks[chunk].words.size for chunk in plan.order.tolist()], np.int64)
    stop = np.cumsum(sizes)
    read = stop - sizes
    # NUMERICS: a damaged chunk may read past its words; it then reads its neighbour's or the padding, never outside,
    # and is refused at the end because its read position does not match.
    words = np.concatenate([chunks[chunk].words for chunk in plan.order.tolist()] + [np.zeros(LANES, np.uint16)])
    words = words.astype(np.uint32)
    for step, running in enumerate(plan.running):
        group = plan.first[:running] + step
        x = state[:running]
        entry = entries[(groups.table[group] * TOTAL)[:, None] + (x & np.uint32(TOTAL - 1))]
        where = groups.start[group][:, None] + _LANE
        y = ((entry >> np.uint32(6)) & np.uint32(TOTAL - 1)) + np.uint32(1)
        y = y * (x >> np.uint32(PRECISION)) + (entry >> np.uint32(19))
        needs = y < LOWEST
        if plan.all_full[step]:
            symbols[where] = entry & np.uint32(63)
        else:
            valid = groups.length[group][:, None] > _LANE
            symbols[where[valid]] = entry[valid] & np.uint32(63)
            needs &= valid
            y = np.where(valid, y, x)
        place = needs.cumsum(axis=1)
        index = np.minimum(read[:running, None] + place - 1, words.size - 1)
        state[:running] = np.where(needs, (y << np.uint32(16)) | words[index], y)
        read[:running] += place[:, -1]
        if (read[:running] > stop[:running]).any():
            raise Corrupt("a stream has too few words.")
    if (read != stop).any() or (state != LOWEST).any():
        raise Corrupt("a stream does not end where it started.")
    return symbols[:num_symbols]


def encode_lane(runs: Sequence[tuple[Table, NDArray[np.uint8]]]) -> bytes:
    """Encode runs of symbols, each with its table, in one lane: for what is small.

    A plain loop over symbols: one lane leaves nothing to vectorise. Plans keep what goes this way small.
    """
    x = 1
    words: list[int] = []
    for table, symbols in reversed(runs):
        counts, starts, slots = table.encoding_lists
        for symbol in reversed(symbols.tolist()):
            frequency = counts[symbol]
            if x >= frequency << 19:
                words.append(x & 0xFFFF)
                x >>= 16
            quotient, rest = divmod(x, frequency)
            x = (quotient << PRECISION) + slots[starts[symbol] + rest]
    if x == 1:
        return b""
    # WIRE: the state's leading zero bytes are stripped; the length's parity tells 3 bytes from 4.
    head = x.to_bytes((x.bit_length() + 7) // 8, "little")
    return head + np.array(words[::-1], "<u2").tobytes()


class LaneDecoder:
    """Decodes a single-lane stream run by run.

    Invariant: `_state` and the unread words are what the encoder held after coding everything still to come.
    """

    def __init__(self, data: bytes) -> None:
        """Start at the front of a stream.

        Raises:
            Corrupt: the state is not stored in its shortest form.
        """
        size = len(data)
        head = size if size <= 2 else 4 - size % 2
        if (head and data[head - 1] == 0) or data == b"\x01":  # state 1 is written as no bytes
            raise Corrupt("a single-lane stream's state is not in its shortest form.")
        self._state = int.from_bytes(data[:head], "little") if head else 1
        self._words: list[int] = np.frombuffer(data, "<u2", offset=head).tolist()
        self._read = 0

    def take(self, table: Table, count: int) -> NDArray[np.uint8]:
        """Decode the next `count` symbols; returns (count,) uint8."""
        symbols = bytearray(count)
        entries = table.decoding_list
        x, words, read, available = self._state, self._words, self._read, len(self._words)
        for i in range(count):
            entry = entries[x & (TOTAL - 1)]
            symbols[i] = entry & 63
            x = (((entry >> 6) & (TOTAL - 1)) + 1) * (x >> PRECISION) + (entry >> 19)
            if x < LOWEST and read < available:
                x = x << 16 | words[read]
                read += 1
        self._state, self._read = x, read
        return np.frombuffer(symbols, np.uint8)

    def finish(self) -> None:
        """Check that the stream is used up.

        Raises:
            Corrupt: words are left, or the state is not the encoder's first.
        """
        if self._read != len(self._words) or self._state != 1:
            raise Corrupt("a single-lane stream does not end where it started.")
