"""EPR's rows on MNIST: the recipes' networks of all seeds, those chosen on the validation split, and their means."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import Options
from .inputs import data_file, need
from .row import Figure, Measured, Row

takes_rivals = False

RUNS = "FEWBITS_EPR_RUNS"
NUM_SEEDS = 5
RUN_SECONDS = 300
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class Case:
    """One recipe: how many seeds, and what is asked of them; errors in per cent, sizes in bytes, None for nothing.

    Test errors are asked of the mean of the seeds if a mean size is, else of the seed chosen.

    first_seed: 5 where settings were chosen a second time, 15 where a fourth time, after the test errors of the seeds
        before had been seen with other settings: no network that is scored now had been.
    """

    name: str
    most_error: float | None = None
    chosen_size: int | None = None
    mean_size: int | None = None
    num_seeds: int = NUM_SEEDS
    first_seed: int = 0
    timed: bool = True


CASES = (
    Case("lenet300", 1.9, mean_size=2500),
    Case("lenet300_basis", 1.9, mean_size=1500, first_seed=5),
    Case("lenet300_1pct", 1.0, chosen_size=4500),
    Case("lenet5", 1.0, chosen_size=850, mean_size=1000, first_seed=15),
    Case("lenet5_07pct", 0.7, chosen_size=1800),
)
# What nothing is asked of.
MORE_CASES = (
    Case("lenet5_scalar", first_seed=10),
    Case("lenet5_dft", num_seeds=1, first_seed=5),
    Case("lenet300_paper", timed=False, num_seeds=1),
    Case("lenet5_paper", timed=False, num_seeds=1),
)


# Recipes in fewer steps, steered to bytes of the parts of a file.
BUDGETS = (("lenet300", 1800, 5000), ("lenet5", 1000, 3000))
MOST_MISSED = 0.02


def rows(options: Options) -> Iterator[Row]:
    """Train what the folder that FEWBITS_EPR_RUNS names has not, hours if it is empty, and score everything."""
    need("torch", "fewbits")
    data = data_file("mnist/train-images-idx3-ubyte.gz").parents[1]
    with _folder() as runs:
        for case in CASES:
            yield from _rows(case, data, runs)
        for name, budget, steps in BUDGETS:
            yield _with_budget(name, budget, steps, data, runs)
        for case in MORE_CASES:
            yield from _rows(case, data, runs)


def _rows(case: Case, data: Path, runs: Path) -> Iterator[Row]:
    """Each seed's row, their mean, the one chosen."""
    seeds = [_run(case.name, case.first_seed + i, data, runs) for i in range(case.num_seeds)]
    if not case.timed:
        seeds = [_without(found, "training_seconds") for found in seeds]
    for found in seeds:
        asked = [Figure("estimate_off_bytes", "<=", 16 + 0.01 * found["size"])]
        if case.timed:
            asked.append(Figure("training_seconds", "<=", RUN_SECONDS))
        settings = {"row": case.name, "seed": found["seed"], "augmentation": _augmentation(case.name), **_choice(case)}
        measured = _without(found, "seed")
        yield Row(f"fewbits {case.name} seed {found['seed']}", measured, tuple(asked), settings)
    yield _mean(case, seeds)
    yield _chosen(case, seeds)


@contextmanager
def _folder() -> Iterator[Path]:
    named = os.environ.get(RUNS)
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _run(name: str, seed: int, data: Path, runs: Path) -> dict[str, Any]:
    """The scores of one seed's network."""
    file = runs / f"{name}-{seed}.fewbits"
    trained = _trained(name, seed, data, runs, file)
    scored = json.loads(_recipe("evaluate.py", file, "--data", data, "--json"))
    if scored["bytes"] != trained["bytes"]:
        raise RuntimeError(f"{file.name} is not the file that its training has left.")
    return {
        "seed": seed,
        "size": scored["bytes"],
        "test_error": scored["test_error_percent"],
        "validation_error": scored["validation_error_percent"],
        "training_error": trained["training_error_percent"],
        "training_seconds": trained["training_seconds"],
        "estimate_off_bytes": abs(trained["estimated_bits"] - trained["actual_bits"]) / 8,
    }


def _with_budget(name: str, budget: int, steps: int, data: Path, runs: Path) -> Row:
    """A run that is told the bytes of its parts."""
    settings = {"budget": budget, "steps": steps, "refine": 5000}
    trained = _trained(name, 0, data, runs, runs / f"{name}-budget{budget}.fewbits", settings)
    size = trained["actual_bits"] / 8
    measured: dict[str, Measured] = {
        "parts_size": int(size),
        "missed_by": round(abs(size - budget) / budget, 4),
        "validation_error": trained["validation_error_percent"],
    }
    asked = (Figure("parts_size", "<=", budget), Figure("missed_by", "<=", MOST_MISSED))
    return Row(f"fewbits {name} budget {budget}", measured, asked, {"row": name, "seed": 0} | settings)


def _trained(
    name: str, seed: int, data: Path, runs: Path, file: Path, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the recipe says of a run; it is trained if the folder has not got it."""
    teacher = runs / "teacher.pt"
    if not file.with_suffix(".json").exists():
        if _settings(name).distil and not teacher.exists():
            _recipe("epr/teacher.py", "--data", data, "--out", teacher)
        train = ["epr/train.py", name, "--seed", seed, "--data", data, "--out", file]
        if settings is None:
            train += ["--resume", runs / "checkpoints"]  # they are told by row and seed alone
        else:
            train += ["--set", *(f"{setting}={json.dumps(value)}" for setting, value in settings.items())]
        _recipe(*train, *(["--teacher", teacher] if _settings(name).distil else []))
    return json.loads(file.with_suffix(".json").read_text(encoding="utf8"))


def _recipe(*words: object) -> str:
    script, *arguments = map(str, words)
    done = subprocess.run([sys.executable, RECIPES / script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"recipes/{script} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def _settings(name: str) -> Any:
    sys.path.insert(0, str(RECIPES))
    try:
        from epr.rows import ROWS  # pyright: ignore
    finally:
        sys.path.pop(0)
    return ROWS[name]


def _augmentation(name: str) -> str:
    return "shifts by up to a pixel" if _settings(name).shifts else "none"


def _mean(case: Case, seeds: list[dict[str, Any]]) -> Row:
    measured: dict[str, Measured] = {
        measure: round(statistics.mean(found[measure] for found in seeds), 3)
        for measure in ("size", "test_error", "validation_error", "training_error", "training_seconds")
        if all(measure in found for found in seeds)
    }
    measured["worst_test_error"] = max(found["test_error"] for found in seeds)
    asked: tuple[Figure, ...] = ()
    if case.mean_size is not None:
        asked = (Figure("size", "<=", case.mean_size), Figure("test_error", "<=", case.most_error or 100.0))
    settings = {"row": case.name, "seeds": len(seeds), "augmentation": _augmentation(case.name), **_choice(case)}
    return Row(f"fewbits {case.name} mean", measured, asked, settings)


def _chosen(case: Case, seeds: list[dict[str, Any]]) -> Row:
    """The seed of the least validation error, of equal ones that of the smallest file."""
    best = min(seeds, key=lambda found: (found["validation_error"], found["size"]))
    asked: list[Figure] = []
    if case.chosen_size is not None:
        asked.append(Figure("size", "<=", case.chosen_size))
    if case.most_error is not None:
        asked.append(Figure("test_error", "<=", case.most_error))
    settings = {"row": case.name, "chosen_by": "validation error, then size", **_choice(case)}
    return Row(f"fewbits {case.name} chosen", best, tuple(asked), settings)


def _choice(case: Case) -> dict[str, Any]:
    if not case.first_seed or case.most_error is None:
        return {}
    turn = {5: "a second", 15: "a fourth"}[case.first_seed]
    return {"settings_chosen": f"{turn} time, after test errors of seeds 0 to {case.first_seed - 1} with others"}


def _without(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != name}
