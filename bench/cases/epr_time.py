"""A whole run of an EPR recipe on MNIST, trained, refined and written on one thread, with nothing else on the machine.

The rows of `epr` have times of runs that ran several at once.
"""

from collections.abc import Iterator
from pathlib import Path

from . import Options
from . import recipe_runs as runs_of
from .epr import RUN_SECONDS
from .inputs import data_file, need
from .row import Figure, Row

takes_rivals = False

RUNS = {"lenet300": 0, "lenet5": 15, "lenet5_07pct": 0}  # the first seed of each row


def rows(options: Options) -> Iterator[Row]:
    """Train one network a recipe, minutes each, one after another."""
    need("torch", "fewbits")
    data = data_file("mnist/train-images-idx3-ubyte.gz").parents[1]
    with runs_of.scratch() as scratch:
        for name, seed in RUNS.items():
            if options.wants(name):
                yield _row(name, seed, data, scratch)


def _row(name: str, seed: int, data: Path, scratch: Path) -> Row:
    file = scratch / f"{name}.fewbits"
    runs_of.recipe("epr/train.py", name, "--seed", seed, "--data", data, "--out", file)
    trained = runs_of.told(file)
    measured = {
        "seconds": trained["training_seconds"],
        "size": trained["bytes"],
        "validation_error": trained["validation_error_percent"],
    }
    settings = {"row": name, "seed": seed, "steps": runs_of.settings_of("epr", name).steps, "threads": 1}
    return Row(f"fewbits {name}", measured, (Figure("seconds", "<=", RUN_SECONDS),), settings)
