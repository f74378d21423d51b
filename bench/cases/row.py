"""What a case yields: rows of measured values, each with the figures asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Measured = bool | int | float | str


class Absent(Exception):
    """The data or a package that a case needs is not here; the message says which."""


@dataclass(frozen=True)
class Figure:
    """A bound asked of one measured value: `measure` is its name, `relation` is "<=", ">=" or "is"."""

    measure: str
    relation: str
    bound: Measured

    def holds(self, measured: Mapping[str, Measured]) -> bool:
        """Say whether the measured value keeps the bound; a value that was not measured does not."""
        if self.measure not in measured:
            return False
        value = measured[self.measure]
        if self.relation == "is":
            return value == self.bound
        if isinstance(value, str) or isinstance(self.bound, str):
            raise TypeError(f"{self.measure} is text and cannot be compared with {self.relation}.")
        return value <= self.bound if self.relation == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.measure} {self.relation} {self.bound}"


@dataclass(frozen=True)
class Row:
    """One line of a case's table.

    name: what was run, unique in its case, e.g. "nncodec qp -24".
    measured: sizes in bytes (`size`), times in seconds (`*_seconds`), the rest unitless.
    asked: empty for an informative row.
    settings: what was asked of the program, e.g. {"budget": "8.67MB"}.
    versions: of packages beyond fewbits, torch and numpy.
    """

    name: str
    measured: Mapping[str, Measured]
    asked: tuple[Figure, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> tuple[Figure, ...]:
        """The figures that the measured values do not keep."""
        return tuple(figure for figure in self.asked if not figure.holds(self.measured))

    @property
    def passed(self) -> bool | None:
        """Whether every figure is kept; None where none was asked."""
        return not self.missed if self.asked else None
