"""Sets of hidden units, and the axes of values and tensors that run over them.

Sets are joined where they turn out to be the same, and marked by what is not sure of them; neither is ever taken back,
so that the order in which a module's graphs are read does not matter.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Role = Literal["producer", "vector", "consumer"]
Effect = Literal["rectify", "keep", "keep zero", "shift"]

# What an operation on all units alike does to a unit that is 0 everywhere, and to one that is nowhere above 0.
RECTIFY: Effect = "rectify"  # both become 0
KEEP: Effect = "keep"  # both stay what they are
KEEP_ZERO: Effect = "keep zero"  # 0 stays 0; of the other nothing is known
SHIFT: Effect = "shift"  # nothing is known of either


@dataclass(frozen=True)
class Value:
    """A value in a graph; one without `space` is not known to run over units.

    batch: the node whose first axis is as long as this value's.
    rank: its number of axes, where known.
    space: the set of units that it runs over: permuting the units permutes this axis of it, and nothing else.
    axis: along which, counted from the end: -1 is the last.
    merged: the axis may hold several indices per unit, the same number for each, those of a unit together.
    rectified: a unit whose producer rows are 0 and whose vectors hold nothing above 0 is 0 here; else it is nowhere
        above 0, unless the set is marked as unrectified.
    """

    batch: str
    rank: int | None = None
    space: int | None = None
    axis: int = -1
    merged: bool = False
    rectified: bool = False


class Place(NamedTuple):
    """The set that an axis of a tensor runs over, with how many indices per unit, and in what role."""

    space: int
    repeat: int
    role: Role


class Found(NamedTuple):
    """A set of units, as `UnitGroup` has it; the uses are name, axis, repeat and role."""

    size: int
    uses: tuple[tuple[str, int, int, Role], ...]
    removable: bool
    rectified: bool


class UnitSets:
    """The sets found so far, with the axes of tensors that run over each."""

    def __init__(self) -> None:
        """Start with none."""
        self._parents: list[int] = []
        self._sizes: list[int] = []
        self._places: dict[tuple[str, int], Place] = {}
        self._frozen: set[int] = set()
        self._shifted: set[int] = set()
        self._unrectified: set[int] = set()

    def size(self, space: int) -> int:
        """Return the number of units."""
        return self._sizes[self._find(space)]

    def made_by(self, name: str, size: int) -> int:
        """Return the set of units that the rows of a tensor make, wherever it is used."""
        known = self._places.get((name, 0))
        if known is not None:
            return known.space
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        self.place(name, 0, Place(len(self._parents) - 1, 1, "producer"))
        return len(self._parents) - 1

    def place(self, name: str, axis: int, place: Place) -> None:
        """Say that an axis of a tensor runs over a set; said before of another set, they are the same."""
        known = self._places.setdefault((name, axis), place)
        if known[1:] != place[1:]:
            self._frozen.add(place.space)
        self.join(known.space, place.space)

    def join(self, first: int, second: int) -> None:
        """Make two sets one; of different sizes, they are frozen."""
        first, second = sorted((self._find(first), self._find(second)))
        if self._sizes[first] != self._sizes[second]:
            self._frozen |= {first, second}
        self._parents[second] = first

    def freeze(self, value: object) -> None:
        """Leave the units of a value alone."""
        if isinstance(value, Value) and value.space is not None:
            self._frozen.add(value.space)

    def runs_along(self, value: Value, axis: int, size: int, repeat: int) -> bool:
        """Whether a value's units lie along this axis of this size, each with `repeat` indices."""
        if value.space is None or value.axis != axis or repeat < 1 or (repeat > 1 and not value.merged):
            return False
        return size == repeat * self.size(value.space)

    def repeat(self, value: Value, size: int) -> int:
        """Return how many indices each unit of a value has along an axis of this size; 0 if it runs over none."""
        return size // max(1, self.size(value.space)) if value.space is not None else 0

    def unrectify(self, value: Value) -> Value:
        """Return a value of which nothing is known once producer rows are 0 and vectors below."""
        if value.space is not None:
            self._unrectified.add(value.space)
        return replace(value, rectified=False)

    def after(self, value: Value, effect: Effect) -> Value:
        """Return the value after an operation on each unit by itself, the same one for all."""
        if effect == RECTIFY:
            return replace(value, rectified=True)
        if effect == SHIFT and value.space is not None:
            self._shifted.add(value.space)
        # The operation may have worked in place: its mark is on all that runs over the set.
        return self.unrectify(value) if effect == SHIFT or (effect == KEEP_ZERO and not value.rectified) else value

    def groups(self, frozen_axes: set[tuple[str, int]]) -> tuple[Found, ...]:
        """Return the sets that nothing froze and something reads, in the order in which they were found.

        Args:
            frozen_axes: axes of tensors that something unknown uses.
        """
        members: dict[int, list[tuple[str, int, int, Role]]] = {}
        for (name, axis), place in self._places.items():
            if (name, axis) in frozen_axes:
                self._frozen.add(place.space)
            members.setdefault(self._find(place.space), []).append((name, axis, place.repeat, place.role))
        frozen, shifted, unrectified = (
            {self._find(space) for space in marks} for marks in (self._frozen, self._shifted, self._unrectified)
        )
        return tuple(
            Found(self._sizes[root], tuple(uses), root not in shifted, root not in unrectified)
            for root, uses in members.items()
            if root not in frozen and self._sizes[root] and any(role == "consumer" for *_, role in uses)
        )

    def _find(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space
