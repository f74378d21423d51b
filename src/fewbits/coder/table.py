"""Integer probability tables: 13-bit frequencies, an escape, and the alias layout of their slots.

The layout is `docs/format.md`, section 6. Buckets of 128 slots hold two symbols at most, so that a vector decoder can
keep a whole table in registers; here it is expanded to one entry a slot.
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import Corrupt

PRECISION = 13  # bits; docs/decisions/0001. WIRE
TOTAL = 1 << PRECISION
MAX_SYMBOLS = 64  # values and the escape
BUCKET = TOTAL // MAX_SYMBOLS
COST_ONE = 1 << 16  # costs are in 1/65536 bit


@dataclass(frozen=True)
class Table:
    """Frequencies of the values low, low + 1, … and of the escape; hashable.

    Symbols are 0 … n-1 for the values and n for the escape. Use `Table.checked` for untrusted numbers.
    """

    low: int
    frequencies: tuple[int, ...]
    escape: int

    @classmethod
    def checked(cls, low: int, frequencies: tuple[int, ...], escape: int) -> "Table":
        """Build a table from numbers of a file.

        Raises:
            Corrupt: the frequencies are no valid table.
        """
        positive = 0 < len(frequencies) < MAX_SYMBOLS and min(frequencies) >= 1 and escape >= 0
        if not positive or sum(frequencies) + escape != TOTAL:
            raise Corrupt("a probability table's frequencies do not form a table.")
        if frequencies[0] == TOTAL:  # no other symbol has a frequency then
            raise Corrupt("a probability table has one symbol only.")
        return cls(low, frequencies, escape)

    @property
    def num_values(self) -> int:
        """How many values the table has, the escape not counted."""
        return len(self.frequencies)

    @property
    def last(self) -> int:
        """The greatest value of the table."""
        return self.low + len(self.frequencies) - 1

    @cached_property
    def counts(self) -> NDArray[np.uint32]:
        """(64,) frequency of each symbol, 0 where there is none."""
        counts = np.zeros(MAX_SYMBOLS, np.uint32)
        counts[: self.num_values] = self.frequencies
        counts[self.num_values] = self.escape
        return counts

    @cached_property
    def starts(self) -> NDArray[np.uint32]:
        """(64,) place of each symbol's first slot in `slots`."""
        return np.cumsum(self.counts, dtype=np.uint32) - self.counts

    @cached_property
    def symbol_of_slot(self) -> NDArray[np.uint8]:
        """(8192,) the symbol each slot belongs to."""
        return _alias_layout(self.counts)

    @cached_property
    def slots(self) -> NDArray[np.uint32]:
        """(8192,) all slots, symbol by symbol, each symbol's ascending: the inverse of the layout."""
        return np.argsort(self.symbol_of_slot, kind="stable").astype(np.uint32)

    @cached_property
    def entries(self) -> NDArray[np.uint32]:
        """(8192,) for each slot: symbol | (frequency - 1) << 6 | offset << 19."""
        symbols = self.symbol_of_slot.astype(np.uint32)
        offsets = np.empty(TOTAL, np.uint32)
        offsets[self.slots] = np.arange(TOTAL, dtype=np.uint32) - np.repeat(self.starts, self.counts)
        one, six, nineteen = np.uint32(1), np.uint32(6), np.uint32(19)
        return symbols | (self.counts[symbols] - one) << six | offsets << nineteen

    @property
    def decoding_list(self) -> list[int]:
        """`entries` as Python integers, for the single-lane loop."""
        return _decoding_list(self)

    @property
    def encoding_lists(self) -> tuple[list[int], list[int], list[int]]:
        """`counts`, `starts` and `slots` as Python integers, for the single-lane loop."""
        return _encoding_lists(self)

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        """(n,) cost of each value in 1/65536 bit."""
        return FREQUENCY_COSTS[self.counts[: self.num_values]]

    @property
    def escape_cost(self) -> int:
        """Cost of the escape symbol in 1/65536 bit, its code not counted; huge if it cannot occur."""
        return int(FREQUENCY_COSTS[self.escape])


# Lists of Python integers take about 300 KB a table, so only the tables of late are kept.
@lru_cache(maxsize=256)
def _decoding_list(table: Table) -> list[int]:
    return table.entries.tolist()


@lru_cache(maxsize=256)
def _encoding_lists(table: Table) -> tuple[list[int], list[int], list[int]]:
    return table.counts.tolist(), table.starts.tolist(), table.slots.tolist()


@lru_cache(maxsize=1024)
def _layout_of(counts: tuple[int, ...]) -> NDArray[np.uint8]:
    left = list(counts)
    own = [0] * MAX_SYMBOLS
    alias = list(range(MAX_SYMBOLS))
    small = deque(b for b in range(MAX_SYMBOLS) if left[b] < BUCKET)
    large = deque(b for b in range(MAX_SYMBOLS) if left[b] >= BUCKET)
    # Invariant: the left slots of all buckets not yet laid out sum to BUCKET each, so `large` is never empty here.
    while small:
        bucket, giver = small.popleft(), large[0]
        own[bucket], alias[bucket] = left[bucket], giver
        left[giver] -= BUCKET - left[bucket]
        if left[giver] < BUCKET:
            small.append(large.popleft())
    for bucket in large:
        own[bucket] = BUCKET
    place = np.arange(BUCKET)
    is_own = place[None, :] < np.array(own)[:, None]
    layout = np.where(is_own, np.arange(MAX_SYMBOLS)[:, None], np.array(alias)[:, None])
    return layout.astype(np.uint8).reshape(TOTAL)


def _alias_layout(counts: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Cut the slots into 64 buckets of an own and an alias run (docs/format.md, section 6)."""
    return _layout_of(tuple(int(count) for count in counts))


def _frequency_costs() -> NDArray[np.int64]:
    """-log2(f / 8192) in 1/65536 bit for f = 0 … 8192, by integer arithmetic.

    NUMERICS: encoders choose tables by these costs, so they must not depend on a machine's log2. Each round squares a
    mantissa in [1, 2) held in 32-bit fixed point and reads one more binary digit of the logarithm off its overflow.
    """
    f = np.arange(1, TOTAL + 1, dtype=np.uint64)
    whole = np.array([int(x).bit_length() - 1 for x in f], dtype=np.uint64)
    mantissa = f << (np.uint64(31) - whole)
    log2 = whole << np.uint64(16)
    for bit in range(15, -1, -1):
        mantissa = (mantissa * mantissa) >> np.uint64(31)
        carry = mantissa >> np.uint64(32)
        log2 += carry << np.uint64(bit)
        mantissa >>= carry
    costs = (PRECISION << 16) - log2.astype(np.int64)
    return np.concatenate([[1 << 40], costs])


FREQUENCY_COSTS = _frequency_costs()
