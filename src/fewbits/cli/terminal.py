"""What the command writes: rich on a terminal, plain aligned text in a pipe, JSON on request."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fewbits.report import aligned, fact_grid, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def write_json(values: object) -> None:
    """Write one JSON value to stdout."""
    json.dump(values, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def write(lines: Callable[[], Sequence[str]], render: "Callable[[], RenderableType]") -> None:
    """Write what `render` gives to stdout if that is a terminal, else the lines; rich loads only then."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(render())
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines()))


def write_table(
    facts: Sequence[tuple[str, str]],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
) -> None:
    """Write (what, how much) pairs, then a table if it has rows; the columns in `right` are flush right."""

    def lines() -> list[str]:
        return aligned(facts) + (["", *aligned([columns, *rows], right=right)] if rows else [])

    def render() -> "RenderableType":
        from rich.console import Group

        return Group(fact_grid(facts), *([table(columns, rows, right=right)] if rows else []))

    write(lines, render)
