"""Runs of the recipes: trained where a folder has not got them, scored by recipes/evaluate.py."""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .row import Measured

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@contextmanager
def folder(variable: str) -> Iterator[Path]:
    """The folder that an environment variable names, where runs are and are left; else a temporary one."""
    named = os.environ.get(variable)
    if named:
        Path(named).mkdir(parents=True, exist_ok=True)
        yield Path(named)
        return
    with scratch() as temporary:
        yield temporary


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def recipe(*words: object) -> str:
    """Run a program of recipes/, and return what it prints."""
    script, *arguments = map(str, words)
    done = subprocess.run([sys.executable, RECIPES / script, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"recipes/{script} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def module_of(name: str) -> Any:
    """Return a module of recipes/."""
    sys.path.insert(0, str(RECIPES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def settings_of(method: str, name: str) -> Any:
    """Return a row's settings, of recipes/METHOD/rows.py."""
    return module_of(f"{method}.rows").ROWS[name]


def augmentation(method: str, name: str) -> str:
    """Say what a row does to its training images."""
    return "shifts by up to a pixel" if settings_of(method, name).shifts else "none"


def setting_words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as train.py's --set has them."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def told(file: Path) -> dict[str, Any]:
    """Return what training has said of the run that left a file."""
    return json.loads(file.with_suffix(".json").read_text(encoding="utf8"))


def scored(file: Path, seed: int, data: Path) -> dict[str, Measured]:
    """Score a file, and return that with what its training has said.

    Raises:
        RuntimeError: the file is not the one that the training has left.
    """
    found, trained = json.loads(recipe("evaluate.py", file, "--data", data, "--json")), told(file)
    if found["bytes"] != trained["bytes"]:
        raise RuntimeError(f"{file.name} is not the file that its training has left.")
    return {
        "seed": seed,
        "size": found["bytes"],
        "test_error": found["test_error_percent"],
        "validation_error": found["validation_error_percent"],
        "training_error": trained["training_error_percent"],
        "training_seconds": trained["training_seconds"],
    }


def mean_of(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """Return the means of what all seeds have measured, and the worst test error."""
    measured: dict[str, Measured] = {
        measure: round(statistics.mean(found[measure] for found in seeds), 3)
        for measure in ("size", "test_error", "validation_error", "training_error", "training_seconds")
        if all(measure in found for found in seeds)
    }
    measured["worst_test_error"] = max(found["test_error"] for found in seeds)
    return measured


def chosen_of(seeds: Sequence[dict[str, Measured]]) -> dict[str, Measured]:
    """Return the seed of the least validation error, of equal ones that of the smallest file."""
    return min(seeds, key=lambda found: (found["validation_error"], found["size"]))


def without(found: Mapping[str, Measured], name: str) -> dict[str, Measured]:
    """Return what was measured but for one measure."""
    return {key: value for key, value in found.items() if key != name}
