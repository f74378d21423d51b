"""Run one benchmark case: `python bench/run.py CASE [--rivals a,b] [--json FILE]`.

Prints a table; with --json also appends each row, as soon as it is measured, to FILE as one line of JSON.
Exit codes: 0 every figure asked is reached; 1 one is missed, or the case failed; 2 the command line is wrong;
3 the case's data or a package it needs is absent.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cases
import rivals
from cases.row import Absent, Row
from cases.timing import Unmeasured
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rivals import symbol_coders

EXIT_MISSED, EXIT_ABSENT = 1, 3  # a wrong command line is 2, by argparse
SIZED = ("coder", "load")  # cases that --symbols means something to
TRAINED = (
    "calibrated",
    "epr",
    "epr_time",
    "miracle",
    "images",
    "qswd",
    "smollm",
    "stories",
)  # those that --recipes does
ROOT = Path(__file__).resolve().parent.parent


def parse(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Read the command line; a wrong one exits with code 2."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description="Run one benchmark case of fewbits.")
    parser.add_argument("case", nargs="?", choices=cases.NAMES, metavar="CASE", help="one of --list")
    parser.add_argument("--rivals", default="", metavar="a,b", help="also run these rivals; 'all' for every one")
    parser.add_argument("--rivals-only", action="store_true", help="leave out fewbits itself")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to FILE, one JSON object a line")
    parser.add_argument("--list", action="store_true", help="list cases and rivals, and whether these can run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--symbols", type=int, metavar="N", help="case coder: length of a stream; load: number of weights"
    )
    parser.add_argument("--recipes", default="", metavar="a,b", help=f"cases {', '.join(TRAINED)}: these recipes alone")
    options = parser.parse_args(arguments)
    if options.case is None and not options.list:
        parser.error("name a CASE, or use --list.")
    unknown = set(_names(options.rivals)) - set(rivals.NAMES)
    if unknown:
        parser.error(f"no rival is called {', '.join(sorted(unknown))}; see --list.")
    if options.rivals_only and not options.rivals:
        parser.error("--rivals-only needs --rivals.")
    if options.case and options.rivals and not cases.case_module(options.case).takes_rivals:
        parser.error(f"the case {options.case} has no rivals.")
    if options.symbols is not None and options.case not in SIZED:
        parser.error(f"--symbols means nothing to the case {options.case}.")
    if options.recipes and options.case not in TRAINED:
        parser.error(f"--recipes means nothing to the case {options.case}.")
    if options.symbols is not None and options.symbols < 1:
        parser.error("--symbols must be at least 1.")
    if options.seed < 0:
        parser.error("--seed must not be negative.")
    return parser, options


def _names(text: str) -> tuple[str, ...]:
    return rivals.NAMES if text == "all" else tuple(dict.fromkeys(name for name in text.split(",") if name))


def print_list(console: Console) -> None:
    """Print the cases, the rivals, and the coders of the case `coder`; of what cannot run, why not."""
    for name in cases.NAMES:
        console.print(f"case   {name:<14}{(cases.case_module(name).__doc__ or '').splitlines()[0]}")
    for name in rivals.NAMES:
        reason = rivals.variants(name)[0].available()
        console.print(f"rival  {name:<14}{f'absent: {reason}' if reason else 'can run'}")
    for coder in symbol_coders.coders():
        reason = symbol_coders.absent(coder)
        console.print(f"coder  {coder.name:<20}{f'absent: {reason}' if reason else 'installed'}")


def command(options: argparse.Namespace) -> str:
    """Return the command that repeats a run, without the place its rows went to."""
    words = ["python bench/run.py", options.case]
    if options.rivals:
        words += ["--rivals", options.rivals]
    if options.rivals_only:
        words.append("--rivals-only")
    if options.seed:
        words += ["--seed", str(options.seed)]
    if options.symbols is not None:
        words += ["--symbols", str(options.symbols)]
    if options.recipes:
        words += ["--recipes", options.recipes]
    return " ".join(words)


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Return what every row of a run shares: command, commit, versions, machine, date."""
    return {
        "command": command(options),
        **commit(),
        "versions": {"python": platform.python_version()} | rivals.installed("torch", "numpy"),
        "seed": options.seed,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def commit() -> dict[str, Any]:
    """Return the checkout's commit and whether its files differ from it; None where git cannot say."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *words], cwd=ROOT, capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--", "src", "bench", ":!bench/results")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def machine() -> dict[str, Any]:
    """Return CPU model, cores and system; no names of hosts, users or paths."""
    model = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {"cpu": model, "cores": os.cpu_count(), "arch": platform.machine(), "os": platform.system()}


def record(case: str, row: Row, shared: dict[str, Any]) -> dict[str, Any]:
    """Return a row as a JSON object."""
    versions = shared["versions"] | dict(row.versions)
    if row.name.startswith("fewbits"):
        versions["fewbits"] = fewbits_version()
    return {
        "case": case,
        "row": row.name,
        "measured": dict(row.measured),
        "asked": [str(figure) for figure in row.asked],
        "passed": row.passed,
        "settings": dict(row.settings),
        **shared,
        "versions": versions,
    }


def fewbits_version() -> str:
    """Return the version of the installed package, else of the checkout."""
    try:
        return version("fewbits")
    except PackageNotFoundError:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf8")
        return next(line.split('"')[1] for line in text.splitlines() if line.startswith("version = "))


def print_rows(console: Console, case: str, rows: Sequence[Row]) -> None:
    """Print rows that measure the same things as one table; sizes in bytes, times in seconds."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.measured), []).append(row)
    for measures, group in groups.items():
        table = Table(title=case, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
        table.add_column("row", no_wrap=True)
        for measure in measures:
            table.add_column(measure.replace("_", " "), justify="right")
        table.add_column("figures asked")
        for row in group:
            cells = [shown(row.measured[measure]) for measure in measures]
            table.add_row(escape(row.name), *map(escape, cells), verdict(row))
        console.print(table)


def shown(value: object) -> str:
    """Return a measured value for people to read."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def verdict(row: Row) -> str:
    """Return the figures of a row: the missed ones in red, in yellow those that could not be measured."""
    if isinstance(row, Unmeasured):
        return "\n".join(f"[yellow]not measured: {escape(str(figure))}[/]" for figure in row.asked)
    lines = [
        f"[red]missed: {escape(str(figure))}[/]" if figure in row.missed else f"[green]{escape(str(figure))}[/]"
        for figure in row.asked
    ]
    return "\n".join(lines)


def outcome(row: Row) -> str:
    """Return how a row ended, in a few words."""
    if isinstance(row, Unmeasured):
        return f"not measured: {row.measured['not_measured']}"
    return "missed" if row.missed else "done"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a case and return the exit code."""
    _, options = parse(arguments)
    # In a pipe there is no terminal to fit: wide enough that nothing is cut.
    console = Console() if sys.stdout.isatty() else Console(width=220)
    progress = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    if options.list:
        print_list(Console(markup=False, highlight=False, soft_wrap=True))
        return 0
    chosen: list[rivals.Rival] = []
    for name in _names(options.rivals):
        found = rivals.variants(name)
        reason = found[0].available()
        if reason:
            progress.print(f"rival {name} skipped: {reason}.")
        else:
            chosen += found
    asked = cases.Options(tuple(chosen), options.rivals_only, options.seed, options.symbols, _names(options.recipes))
    shared, rows = circumstances(options), []
    try:
        for row in cases.case_module(options.case).rows(asked):
            rows.append(row)
            progress.print(f"{options.case}: {row.name} {outcome(row)}")
            if options.json:
                with options.json.open("a", encoding="utf8") as file:
                    file.write(json.dumps(record(options.case, row, shared), ensure_ascii=False) + "\n")
    except Absent as absent:
        print_rows(console, options.case, rows)
        progress.print(f"bench/run.py: {absent}")
        return EXIT_ABSENT
    print_rows(console, options.case, rows)
    missed = [row.name for row in rows if row.missed]
    if missed:
        progress.print(f"figures missed in: {', '.join(missed)}")
    return EXIT_MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
