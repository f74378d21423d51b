"""What the command writes: rich on a terminal, plain aligned text in a pipe, JSON on request."""

import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fewbits.report import aligned, fact_grid, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Progress = Callable[[str, int, int], None]  # (what is being done, parts done, parts in all)


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


@contextmanager
def progress_bar() -> Generator[Progress | None]:
    """Give a progress function that draws a bar on stderr, or None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance
