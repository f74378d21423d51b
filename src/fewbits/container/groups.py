"""Which tensors a group holds, in a few bytes however many they are (`docs/format.md`, section 4)."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

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

    Plain lists: importing NumPy would take longer than all else that `fewbits info` does.
    """

    def __init__(self, tensors: Sequence[TensorEntry]) -> None:
        """Start with all stored tensors."""
        self._elements = {i: entry.spec.num_elements for i, entry in enumerate(tensors) if entry.target is None}

    @property
    def positions(self) -> list[int]:
        """Their positions in the file, ascending."""
        return list(self._elements)

    def claim(self, selection: Selection) -> tuple[int, ...] | None:
        """Claim what a selection takes; return its positions, or None if it takes nothing or what is not there."""
        candidates = self._candidates(selection.bound_log2)
        if not candidates or sum(skip + take for skip, take in selection.runs) > len(candidates):
            return None
        taken: list[int] = []
        at = 0
        for skip, take in selection.runs or ((0, len(candidates)),):
            taken += candidates[at + skip : at + skip + take]
            at += skip + take
        return self._remove(taken)

    def select(self, members: Sequence[int]) -> Selection:
        """Claim the tensors at positions `members` (ascending, unclaimed); return the shortest selection that does.

        Tried are no bound and the smallest that lets all members be candidates.
        """
        bound = bound_log2_of(max(self._elements[position] for position in members))
        selections = [self._runs(members, bound_log2) for bound_log2 in (0, bound)]
        self._remove(members)
        return min(selections, key=lambda selection: len(write_selection(selection)))

    def _candidates(self, bound_log2: int) -> list[int]:
        """Positions, ascending."""
        if bound_log2 == 0:
            return list(self._elements)
        bound = 1 << bound_log2
        return [position for position, num_elements in self._elements.items() if num_elements < bound]

    def _runs(self, members: Sequence[int], bound_log2: int) -> Selection:
        candidates = self._candidates(bound_log2)
        if len(candidates) == len(members):
            return Selection(bound_log2, ())
        wanted = set(members)
        lengths = [(taken, len(list(run))) for taken, run in groupby(candidates, wanted.__contains__)]
        if lengths[0][0]:
            lengths.insert(0, (False, 0))
        skips, takes = (length for _, length in lengths[0::2]), (length for _, length in lengths[1::2])
        return Selection(bound_log2, tuple(zip(skips, takes, strict=False)))  # what is skipped at the end is no run

    def _remove(self, taken: Sequence[int]) -> tuple[int, ...]:
        for position in taken:
            del self._elements[position]
        return tuple(taken)
