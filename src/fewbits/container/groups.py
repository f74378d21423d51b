"""Which tensors a group holds, in a few bytes however many they are (`docs/format.md`, section 4)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.container.format import TensorEntry
from fewbits.errors import Corrupt

_BOUNDS = 64  # WIRE: selection = number of runs * 64 + bound_log2


class Selection(NamedTuple):
    """What a group takes of its candidates.

    bound_log2: candidates have fewer than 2^bound_log2 elements; 0: any number.
    runs: (skip, take) over the candidates in order; none: the group takes them all.
    """

    bound_log2: int
    runs: tuple[tuple[int, int], ...]


def read_selection(data: bytes, position: int) -> tuple[Selection, int]:
    """Read a selection at byte `position`; return it and the position after it.

    Raises:
        Corrupt: it is not in its canonical form, or runs past the end of `data`.
    """
    start = position
    selection, position = read_uint(data, position)
    num_runs, bound_log2 = divmod(selection, _BOUNDS)
    if 2 * num_runs > len(data) - position:
        raise Corrupt(f"the group at byte offset {start} has more runs than the index has bytes.")
    runs: list[tuple[int, int]] = []
    for _ in range(num_runs):
        skip, position = read_uint(data, position)
        take, position = read_uint(data, position)
        if take == 0 or (skip == 0 and runs):
            raise Corrupt(f"the group at byte offset {start} has a run that skips or takes nothing.")
        runs.append((skip, take))
    return Selection(bound_log2, tuple(runs)), position


def write_selection(selection: Selection) -> bytes:
    """Return the bytes of a selection."""
    fields = [write_uint(len(selection.runs) * _BOUNDS + selection.bound_log2)]
    fields += [write_uint(number) for run in selection.runs for number in run]
    return b"".join(fields)


def bound_log2_of(num_elements: int) -> int:
    """The smallest bound, at least 1, under which a tensor of so many elements is a candidate."""
    return max(1, num_elements.bit_length())


class Unclaimed:
    """The stored tensors that no group of the index has claimed so far.

    Invariant: `_positions` and `_elements` are of the same tensors, in the file's order.
    """

    def __init__(self, tensors: Sequence[TensorEntry]) -> None:
        """Start with all stored tensors."""
        stored = [position for position, entry in enumerate(tensors) if entry.target is None]
        self._positions = np.array(stored, np.int64)
        self._elements = np.array([tensors[position].spec.num_elements for position in stored], np.int64)

    @property
    def positions(self) -> list[int]:
        """Their positions in the file, ascending."""
        return self._positions.tolist()

    def claim(self, selection: Selection) -> tuple[int, ...] | None:
        """Claim what a selection takes; return its positions, or None if it takes nothing or what is not there."""
        candidates = self._candidates(selection.bound_log2)
        end = sum(skip + take for skip, take in selection.runs)
        if end > candidates.size or not candidates.size:
            return None
        taken = candidates
        if selection.runs:
            kept = np.zeros(candidates.size, np.bool_)
            at = 0
            for skip, take in selection.runs:
                kept[at + skip : at + skip + take] = True
                at += skip + take
            taken = candidates[kept]
        return self._remove(taken)

    def select(self, members: Sequence[int]) -> Selection:
        """Claim the tensors at positions `members` (ascending, unclaimed); return the shortest selection that does.

        Tried are no bound and the smallest that lets all members be candidates.
        """
        taken = np.searchsorted(self._positions, np.array(members, np.int64))
        bound = bound_log2_of(int(self._elements[taken].max()))
        selections = [self._runs(taken, bound_log2) for bound_log2 in (0, bound)]
        self._remove(taken)
        return min(selections, key=lambda selection: len(write_selection(selection)))

    def _candidates(self, bound_log2: int) -> NDArray[np.int64]:
        """Indices into `_positions`."""
        if bound_log2 == 0:
            return np.arange(self._positions.size)
        return np.flatnonzero(self._elements <= (1 << bound_log2) - 1)

    def _runs(self, taken: NDArray[np.int64], bound_log2: int) -> Selection:
        candidates = self._candidates(bound_log2)
        if candidates.size == taken.size:
            return Selection(bound_log2, ())
        rank = np.searchsorted(candidates, taken)
        first = np.flatnonzero(np.diff(rank, prepend=-2) != 1)  # of each run, in `rank`
        take = np.diff(first, append=rank.size)
        skip = np.diff(rank[first], prepend=0) - np.concatenate([[0], take[:-1]])
        return Selection(bound_log2, tuple(zip(skip.tolist(), take.tolist(), strict=True)))

    def _remove(self, taken: NDArray[np.int64]) -> tuple[int, ...]:
        positions = tuple(self._positions[taken].tolist())
        self._positions = np.delete(self._positions, taken)
        self._elements = np.delete(self._elements, taken)
        return positions
