"""A bar for each stage of a long call, with the time that is left."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]  # (what is being done, parts done, parts in all)


@contextmanager
def progress_bar() -> Generator[Progress | None]:
    """Give a `progress=` that draws bars on stderr, with the time that is left; None where stderr is no terminal.

    >>> with fewbits.progress_bar() as progress:  # doctest: +SKIP
    ...     fewbits.compress(model, "model.fewbits", budget="5MB", inputs=batches, progress=progress)
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            elif done <= bars.tasks[tasks[what]].completed:  # the stage again, as of a search: its time anew
                bars.reset(tasks[what], total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance
