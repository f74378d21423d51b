"""A table made from counts."""

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.table import FREQUENCY_COSTS, MAX_SYMBOLS, TOTAL, Table

_MAX_VALUES = MAX_SYMBOLS - 1
_ESCAPE_BITS = 12  # what escaping a value costs more than coding it, about


def histogram_table(low: int, counts: NDArray[np.int64], elsewhere: int = 0) -> Table | None:
    """Make the table of the consecutive values low, low + 1, … that codes them in the fewest bits.

    The 63 values that hold the most are kept, less the rare ones at their edges; what is outside is escaped.

    Args:
        counts: (n,) int64, how often each value occurs, at least one not 0.
        elsewhere: how many further values lie outside of them all.

    Returns:
        The table, or None if all counts are of one value.
    """
    total = int(counts.sum()) + elsewhere
    if counts.size > _MAX_VALUES:
        before = np.concatenate([[0], np.cumsum(counts)])
        begin = int(np.argmax(before[_MAX_VALUES:] - before[:-_MAX_VALUES]))
        low, counts = low + begin, counts[begin : begin + _MAX_VALUES]
    # An edge value earns its slot (total / 8192 * 1.44 bits) and byte of description if escaping it costs more.
    worth = counts * _ESCAPE_BITS * TOTAL > total * 3 // 2 + 8 * TOTAL
    kept = np.flatnonzero(worth)
    begin, stop = (int(kept[0]), int(kept[-1]) + 1) if kept.size else _mode(counts)
    low, counts = low + begin, counts[begin:stop]
    outside = total - int(counts.sum())
    if counts.size == 1 and outside == 0:
        return None
    least = np.append(np.ones(counts.size, np.int64), int(outside > 0))
    frequencies = _normalise(np.append(counts, outside), least)
    return Table(low, tuple(frequencies[:-1].tolist()), int(frequencies[-1]))


def _mode(counts: NDArray[np.int64]) -> tuple[int, int]:
    most = int(np.argmax(counts))
    return most, most + 1


def _normalise(counts: NDArray[np.int64], least: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scale counts (n,) to frequencies that sum to 8192, none below `least`, by greedy steps of least cost.

    NUMERICS: integers throughout; an encoder's choice must not depend on a machine's logarithm.
    """
    total = int(counts.sum())
    frequencies = np.maximum(least, (counts * TOTAL + total // 2) // total)
    while (excess := int(frequencies.sum()) - TOTAL) != 0:
        step = -1 if excess > 0 else 1
        changed = np.clip(frequencies + step, 0, TOTAL)
        added = counts * (FREQUENCY_COSTS[changed] - FREQUENCY_COSTS[frequencies])
        # What needs no slot (an escape that never occurs) gets none; nothing falls below its least.
        added[(frequencies + step < least) | (least == 0)] = np.iinfo(np.int64).max
        frequencies[int(np.argmin(added))] += step
    return frequencies
