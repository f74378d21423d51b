"""What one `compress` did, in numbers: sizes, bits, errors, time. Knows no torch."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_TENSORS = 8  # for people; `to_json` has all of them
TENSOR_COLUMNS = ("tensor", "dtype", "shape", "method", "bytes", "bits/weight", "rel. error")
TENSOR_RIGHT = (4, 5, 6)
ERRORS = ("overall_error", "worst_error")


@dataclass(frozen=True, kw_only=True)
class TensorReport:
    """What one tensor cost and lost.

    size_bits: its share of its part's payload, estimated, in bits.
    relative_error: ‖W − Ŵ‖ / ‖W‖, 0 for an exact tensor.
    note: why the tensor was kept exactly where it could not be coded lossily, else "".
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    method: str
    size_bits: float
    relative_error: float
    note: str = ""

    @property
    def num_elements(self) -> int:
        """Product of the shape; 1 for a 0-dimensional tensor."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `compress` wrote.

    size: bytes of the file, all of it. source_size: bytes of what it was made from.
    num_weights: weights coded lossily; bits_per_weight: their payload bits over their number, 0 if none.
    estimated_bits: payload bits as the method counted them before coding; actual_bits: as written.
    overall_error: ‖W − Ŵ‖ / ‖W‖ over the whole model; worst_tensor: the name with the largest error.
    rate_weight: the Lagrangian multiplier settled on, None where nothing was coded lossily.
    """

    path: str
    size: int
    source_size: int
    num_weights: int
    bits_per_weight: float
    estimated_bits: float
    actual_bits: int
    overall_error: float
    worst_tensor: str
    worst_error: float
    seconds: float
    rate_weight: float | None
    tensors: tuple[TensorReport, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than its source."""
        return self.source_size / self.size if self.size else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all fields and `ratio` as JSON values; an infinite error becomes None."""
        values: dict[str, Any] = {**asdict(self), "ratio": self.ratio, "notes": list(self.notes)}
        tensors: list[dict[str, Any]] = [{**asdict(t), "shape": list(t.shape)} for t in self.tensors]
        values["tensors"] = tensors
        for part, key in [*((t, "relative_error") for t in tensors), *((values, k) for k in ERRORS)]:
            if not math.isfinite(part[key]):
                part[key] = None
        return values

    def facts(self) -> list[tuple[str, str]]:
        """Return the report as (what, how much) pairs, for people to read."""
        facts = [
            ("file", self.path),
            ("size", f"{self.size:,} B of {self.source_size:,} B ({self.ratio:.2f} times smaller)"),
        ]
        if self.num_weights:
            rate = f"{self.bits_per_weight:.3f} bits per weight, {self.num_weights:,} weights"
            facts.append(("rate", rate))
        payload = f"{self.estimated_bits:,.0f} bits estimated, {self.actual_bits:,} written"
        if self.estimated_bits > 0:
            payload += f" ({self.actual_bits / self.estimated_bits - 1:+.2%})"
        facts.append(("payload", payload))
        if self.num_weights:
            facts.append(("relative error", f"{self.overall_error:.4g} over all"))
            facts.append(("worst tensor", f"{self.worst_tensor} ({self.worst_error:.4g})"))
        else:
            facts.append(("relative error", "0 (every bit is kept)"))
        facts.append(("time", f"{self.seconds:.1f} s"))
        return facts

    def warnings(self) -> list[str]:
        """Return the notes, then why tensors were kept exactly: one sentence each for the first few."""
        kept = [f"{t.name}: {t.note}" for t in self.tensors if t.note]
        more = len(kept) - SHOWN_TENSORS
        return [*self.notes, *kept[:SHOWN_TENSORS], *([f"and {more:,} tensors more"] if more > 0 else [])]

    def largest(self, count: int = SHOWN_TENSORS) -> list[TensorReport]:
        """Return the tensors with most payload, the largest first."""
        return sorted(self.tensors, key=lambda t: -t.size_bits)[:count]

    def _omitted(self) -> list[str]:
        more = len(self.tensors) - SHOWN_TENSORS
        return [f"and {more:,} smaller tensors (all of them: --json)"] if more > 0 else []

    def lines(self) -> list[str]:
        """Return the report as aligned plain text, for a pipe or a log."""
        lines = aligned(self.facts())
        lines += [f"warning: {warning}" for warning in self.warnings()]
        if self.tensors:
            lines += ["", *aligned([TENSOR_COLUMNS, *map(tensor_row, self.largest())], right=TENSOR_RIGHT)]
            lines += self._omitted()
        return lines

    def render(self) -> "RenderableType":
        """Return the report as something that rich prints on a terminal."""
        from rich.console import Group
        from rich.markup import escape

        parts: list[RenderableType] = [fact_grid(self.facts())]
        parts += [f"[yellow]warning[/]: {escape(warning)}" for warning in self.warnings()]
        if self.tensors:
            parts.append(table(TENSOR_COLUMNS, [tensor_row(t) for t in self.largest()], right=TENSOR_RIGHT))
            parts += [f"[dim]{line}[/]" for line in self._omitted()]
        return Group(*parts)


def tensor_row(tensor: TensorReport) -> tuple[str, ...]:
    """Return one tensor as the cells of `TENSOR_COLUMNS`."""
    rate = f"{tensor.size_bits / tensor.num_elements:.3f}" if tensor.num_elements else "-"
    return (
        tensor.name,
        tensor.dtype,
        "×".join(map(str, tensor.shape)) or "scalar",
        tensor.method,
        f"{tensor.size_bits / 8:,.0f}",
        rate,
        f"{tensor.relative_error:.4g}",
    )


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return rows of equally many cells as lines with aligned columns; columns in `right` flush right."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def fact_grid(facts: Sequence[tuple[str, str]]) -> "RenderableType":
    """Return (what, how much) pairs as a rich grid."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for what, value in facts:
        grid.add_row(what, escape(value))
    return grid


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> "RenderableType":
    """Return a rich table; columns in `right` are flush right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        result.add_column(column, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*map(escape, row))
    return result
