"""The part index: its bytes, and which tensors each part claims (`docs/format.md`, section 4)."""

from collections.abc import Sequence
from typing import NamedTuple

from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.container.format import CHECK_SIZE, MAX_GROUPS, MAX_PART_ELEMENTS, Part, TensorEntry
from fewbits.container.groups import Selection, Unclaimed, read_selection, write_selection
from fewbits.errors import Corrupt, InvalidArgument, TooLarge

WHOLE, TILE, GROUP = 0, 1, 2  # WIRE: kinds of parts


class IndexEntry(NamedTuple):
    """One entry as it stands in the index, before it claims tensors."""

    position: int  # byte offset of the entry
    kind: int
    method: int
    elements: int  # of a tile, else 0
    selection: Selection | None  # of a group, else None
    size: int
    check: int | None


def read_entries(data: bytes, position: int, *, checks: bool) -> list[IndexEntry]:
    """Read num_parts and the entries from byte `position` to the very end of `data`.

    Raises:
        Corrupt: an entry breaks a rule, or the index is not used up exactly; names the byte offset.
    """
    start = position
    num_parts, position = read_uint(data, position)
    smallest = 2 + CHECK_SIZE * checks
    if num_parts * smallest > len(data) - position:
        raise Corrupt(f"the index at byte offset {start} has no room for the {num_parts} parts it declares.")
    entries: list[IndexEntry] = []
    for _ in range(num_parts):
        entry, position = _read_entry(data, position, checks)
        entries.append(entry)
    if position != len(data):
        raise Corrupt(f"the index has bytes after its last part, at byte offset {position}.")
    return entries


def _read_entry(data: bytes, position: int, checks: bool) -> tuple[IndexEntry, int]:
    start = position
    what, position = read_uint(data, position)
    method, kind = divmod(what, 4)
    elements, selection = 0, None
    if kind == TILE:
        elements, position = read_uint(data, position)
        if elements == 0:
            raise Corrupt(f"the index entry at byte offset {start} is a tile without elements.")
    elif kind == GROUP:
        selection, position = read_selection(data, position)
    elif kind != WHOLE:
        raise Corrupt(f"the index entry at byte offset {start} is of a kind that does not exist.")
    size, position = read_uint(data, position)
    check = None
    if checks:
        if len(data) - position < CHECK_SIZE:
            raise Corrupt(f"the index entry at byte offset {start} runs past its end.")
        check = int.from_bytes(data[position : position + CHECK_SIZE], "little")
        position += CHECK_SIZE
    return IndexEntry(start, kind, method, elements, selection, size, check), position


def claim(
    entries: Sequence[IndexEntry], tensors: Sequence[TensorEntry], num_methods: int, offset: int
) -> tuple[Part, ...]:
    """Give each part its tensors and its place in the file; the first payload is at byte `offset`.

    Raises:
        Corrupt: a group takes what is not there, a tensor is claimed by no part, tiles do not end with their
            tensor or differ in method, or a method does not exist or is never used; names the tensor or the
            byte offset of the entry.
        TooLarge: there are more groups than `MAX_GROUPS`, or a part has more than `MAX_PART_ELEMENTS`.
    """
    unused = set(range(num_methods)) - {entry.method for entry in entries}
    if unused:
        raise Corrupt(f"no part uses method {min(unused)} of the {num_methods} that the file lists.")
    groups, unclaimed = _claim_groups(entries, tensors)
    parts: list[Part] = []
    next_tensor = 0  # position in `unclaimed`
    tiled = 0  # elements of that tensor that tiles have claimed
    for entry in entries:
        if entry.method >= num_methods:
            raise Corrupt(f"the index entry at byte offset {entry.position} has a method that does not exist.")
        if tiled and (entry.kind != TILE or entry.method != parts[-1].method):
            name = tensors[unclaimed[next_tensor]].spec.name
            raise Corrupt(
                f"the tiles of the tensor {name!r} do not follow each other with one method"
                f" (byte offset {entry.position})."
            )
        span = None
        if entry.kind == GROUP:
            positions = groups[entry.position]
        else:
            if next_tensor == len(unclaimed):
                raise Corrupt(f"the index entry at byte offset {entry.position} has no tensor left to claim.")
            positions = (unclaimed[next_tensor],)
            if entry.kind == TILE:
                spec = tensors[positions[0]].spec
                span = (tiled, tiled + entry.elements)
                if span[1] > spec.num_elements:
                    raise Corrupt(f"the tiles of the tensor {spec.name!r} go beyond its last element.")
                tiled = span[1] % spec.num_elements
            next_tensor += tiled == 0
        parts.append(Part(entry.method, positions, span, offset, entry.size, entry.check))
        _check_elements(parts[-1], tensors)
        offset += entry.size
    if next_tensor < len(unclaimed):
        raise Corrupt(
            f"no part, or not enough of them, holds the tensor {tensors[unclaimed[next_tensor]].spec.name!r}."
        )
    return tuple(parts)


def _check_elements(part: Part, tensors: Sequence[TensorEntry]) -> None:
    if part.span is not None:
        count = part.span[1] - part.span[0]
    else:
        count = sum(tensors[position].spec.num_elements for position in part.tensors)
    if count > MAX_PART_ELEMENTS:
        name = tensors[part.tensors[0]].spec.name
        raise TooLarge(f"the part of the tensor {name!r} has more than 2^24 elements.")


def _claim_groups(
    entries: Sequence[IndexEntry], tensors: Sequence[TensorEntry]
) -> tuple[dict[int, tuple[int, ...]], list[int]]:
    """Return each group's tensors by the entry's byte offset, and the stored tensors that no group holds."""
    if sum(entry.kind == GROUP for entry in entries) > MAX_GROUPS:
        raise TooLarge(f"the index has more than {MAX_GROUPS} groups.")
    unclaimed = Unclaimed(tensors)
    groups: dict[int, tuple[int, ...]] = {}
    for entry in entries:
        if entry.selection is None:
            continue
        members = unclaimed.claim(entry.selection)
        if members is None:
            raise Corrupt(f"the group at byte offset {entry.position} takes tensors that are not there.")
        groups[entry.position] = members
    return groups, unclaimed.positions


def write_entries(parts: Sequence[Part], tensors: Sequence[TensorEntry], *, checks: bool) -> bytes:
    """Return num_parts and the entries of parts in canonical order, groups first.

    Raises:
        InvalidArgument: there are more groups than `MAX_GROUPS`.
    """
    if sum(len(part.tensors) > 1 for part in parts) > MAX_GROUPS:
        raise InvalidArgument(f"a file has room for {MAX_GROUPS} groups: put more tensors in each.")
    unclaimed = Unclaimed(tensors)
    pieces = [write_uint(len(parts))]
    for part in parts:
        kind = TILE if part.span is not None else GROUP if len(part.tensors) > 1 else WHOLE
        pieces.append(write_uint(part.method * 4 + kind))
        if part.span is not None:
            pieces.append(write_uint(part.span[1] - part.span[0]))
        elif kind == GROUP:
            pieces.append(write_selection(unclaimed.select(part.tensors)))
        pieces.append(write_uint(part.size))
        if checks and part.check is not None:
            pieces.append(part.check.to_bytes(CHECK_SIZE, "little"))
    return b"".join(pieces)
