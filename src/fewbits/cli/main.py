"""The `fewbits` command: its words, options and exit codes.

Importing this imports no torch, and `info`, `verify` and `--help` never do: what needs it is imported inside
the commands.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.image import app as image_app
from fewbits.cli.terminal import write, write_json, write_table
from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument, TooLarge, Truncated
from fewbits.progress import progress_bar

EXIT_CODES: dict[type[BaseException], int] = {
    InvalidArgument: 2,  # as for a mistyped option
    Incompatible: 3,
    Corrupt: 4,
    Truncated: 5,
    TooLarge: 6,
}
EXIT_CODES_HELP = (
    "Exit codes: 0 fine; 1 any other failure (disk full, no permission); 2 the call asks for something "
    "impossible (no such file, unknown option); 3 the file needs a newer fewbits; 4 the file is damaged; "
    "5 the file ends too early; 6 the file declares more than --limit."
)
DEBUG_VARIABLE = "FEWBITS_DEBUG"  # set to 1: tracebacks instead of one-line errors

app = typer.Typer(
    help="Neural networks in as few bits as possible, in one checksummed file.",
    epilog=EXIT_CODES_HELP,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
File = Annotated[Path, typer.Argument(help="A .fewbits file.")]
Limit = Annotated[str | None, typer.Option(help="Refuse a file whose decoded tensors take more than this, e.g. 2GB.")]


def limit_in_bytes(limit: str | None) -> int | None:
    """Return --limit in bytes, None where it was not given; only then does `api` (and torch) load."""
    if limit is None:
        return None
    from fewbits.budget import parse_size

    return parse_size(limit)


def print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"fewbits {version('fewbits')}")
        except PackageNotFoundError:
            typer.echo("fewbits (not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Neural networks in as few bits as possible, in one checksummed file."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(epilog=EXIT_CODES_HELP)
def compress(
    source: Annotated[Path, typer.Argument(help="A .safetensors or .pt file, or a folder of shards with its index.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .fewbits file to write.")],
    budget: Annotated[
        str | None, typer.Option(help="Size of the whole file, in bytes or as 8.6MB (MB = 10^6 B).")
    ] = None,
    bits: Annotated[float | None, typer.Option(help="Payload bits per lossily coded weight.")] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Keep every bit.")] = False,
    max_error: Annotated[
        float | None, typer.Option(help="The smallest file in which no tensor's relative error is above this.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="How weights are made cheap: ecsq (else), or qswd, sparse quantised factors.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads, by default one a processor; the file does not depend on it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random; stored in the file.")] = 0,
    bare: Annotated[
        bool, typer.Option("--bare", help="No names, shapes or records: needs the module to load.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compress a checkpoint: to a budget, to a rate, as far as an error allows, or without loss."""
    from fewbits import api

    with progress_bar() as progress:
        report = api.compress(
            source,
            out,
            budget=budget,
            bits=bits,
            lossless=lossless,
            max_error=max_error,
            method=method,
            workers=workers,
            seed=seed,
            bare=bare,
            progress=progress,
        )
    if as_json:
        write_json(report.to_json())
    else:
        write(report.lines, report.render)


@app.command(epilog=EXIT_CODES_HELP)
def decompress(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors or .pt file to write.")],
    limit: Limit = None,
) -> None:
    """Write a file's tensors back as .safetensors or .pt."""
    from fewbits import api

    api.decompress(file, out, limit=limit_in_bytes(limit))
    typer.echo(f"{out}: {out.stat().st_size:,} B")


@app.command(epilog=EXIT_CODES_HELP)
def info(file: File, limit: Limit = None, as_json: AsJson = False) -> None:
    """Show what a file holds: tensors, methods, bytes, errors. Payloads are not read."""
    from fewbits.cli.listing import COLUMNS, RIGHT, facts, rows
    from fewbits.container import inspect

    found = inspect.info(file, limit=limit_in_bytes(limit))
    if as_json:
        write_json(found.to_json())
    else:
        write_table(facts(str(file), found), COLUMNS, rows(found), right=RIGHT)


@app.command(epilog=EXIT_CODES_HELP)
def verify(file: File, limit: Limit = None) -> None:
    """Check every byte of a file against its checksums."""
    from fewbits.container import inspect

    checked = inspect.verify(file, limit=limit_in_bytes(limit))
    typer.echo(f"{file}: sound, {checked:,} B checked")


@app.command(epilog=EXIT_CODES_HELP)
def report(
    file: File,
    against: Annotated[
        Path | None, typer.Option(help="The original: errors are measured, and a size-error curve is drawn.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML page to write; by default beside the file.")
    ] = None,
    tensor: Annotated[
        list[str] | None, typer.Option(help="Draw this tensor's histogram first; may be given several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page on a file: bytes and errors by tensor, values before and after, size against error."""
    from fewbits.cli.file_report import report_on
    from fewbits.cli.file_report_page import facts, write_page
    from fewbits.container.atomic import check_target

    page = out or file.with_suffix(".html")
    check_target(page)
    with progress_bar() as progress:
        found = report_on(file, against=against, tensors=tensor or (), progress=progress)
    write_page(found, page)
    if as_json:
        write_json(found.to_json() | {"page": str(page)})
    else:
        write_table([*facts(found), ("page", str(page))], (), ())


@app.command(epilog=EXIT_CODES_HELP)
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML report to write.")] = Path("fewbits-demo.html"),
    as_json: AsJson = False,
) -> None:
    """Compress a small digit classifier to many sizes; print size against accuracy, write a page."""
    from fewbits.cli.demo import run_demo
    from fewbits.cli.demo_page import COLUMNS, RIGHT, facts, rows, write_page
    from fewbits.container.atomic import check_target

    check_target(out)
    with progress_bar() as progress:
        result = run_demo(progress)
    write_page(result, out)
    if as_json:
        write_json(result.to_json() | {"page": str(out)})
    else:
        write_table(facts(result), COLUMNS, rows(result), right=RIGHT)
        typer.echo(f"\nThe picture: {out}")


app.add_typer(image_app, name="image")


def sentence_and_code(error: BaseException) -> tuple[str, int]:
    """Return one line that says what went wrong, and the exit code."""
    if isinstance(error, FewbitsError):
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
        return str(error), code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or type(error).__name__}", 1
    usage_message = getattr(error, "format_message", None)
    if usage_message is not None:  # typer's usage errors, whichever click it builds on
        return usage_message(), getattr(error, "exit_code", 2)
    # Others are faults of ours, and their text may quote a tensor.
    return f"unexpected {type(error).__name__}; {DEBUG_VARIABLE}=1 shows where, please report it.", 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit the process with a documented code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="fewbits", standalone_mode=False)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            import traceback

            traceback.print_exc()
        sentence, code = sentence_and_code(error)
        print(f"fewbits: error: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
