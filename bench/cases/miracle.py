"""MIRACLE's rows on MNIST: LeNet5 at three sizes, three seeds each, and both parameterisations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import Options
from . import recipe_runs as runs_of
from .inputs import data_file, need
from .row import Figure, Measured, Row

takes_rivals = False

RUNS = "FEWBITS_MIRACLE_RUNS"
NUM_SEEDS = 3
RUN_SECONDS, MOST_MISSED = 3600, 0.01


@dataclass(frozen=True)
class Case:
    """One recipe, and what is asked of the seed chosen: bytes of its file, per cent of test errors; None for nothing.

    first_seed: 3 where settings were chosen a second time, after the test errors of the seeds before had been seen with
        other settings: no network that is scored now had been.
    """

    name: str
    most_size: int
    most_error: float | None
    first_seed: int = 0


CASES = (
    Case("lenet5_small", 1600, 0.96),
    Case("lenet5_accurate", 3150, 0.72, first_seed=3),
    Case("lenet5_best", 1140, 0.98),
    Case("lenet5_accurate_wide", 3150, None),
)
COMPARED, SEEDS_COMPARED = "lenet5_small", 1
# By parameterisation, steps before the first block is sent and between two sendings; and three fifths of both.
COMPARISON = (("divergence", 8000, 50), ("deviation", 8000, 50), ("divergence", 4800, 30))


def rows(options: Options) -> Iterator[Row]:
    """Train what the folder that FEWBITS_MIRACLE_RUNS names has not, hours if it is empty, and score everything."""
    need("torch", "fewbits")
    data = data_file("mnist/train-images-idx3-ubyte.gz").parents[1]
    with runs_of.folder(RUNS) as runs:
        for case in filter(lambda each: options.wants(each.name), CASES):
            yield from _rows(case, data, runs)
        if options.wants("parameterisations"):
            yield from _parameterisations(data, runs)


def _rows(case: Case, data: Path, runs: Path) -> Iterator[Row]:
    """Each seed's row, their mean, the one chosen."""
    shared = {"row": case.name, "augmentation": runs_of.augmentation("miracle", case.name)}
    if case.first_seed:
        shared["settings_chosen"] = f"a second time, after test errors of seeds 0 to {case.first_seed - 1} with others"
    seeds = [_run(case.name, case.first_seed + i, data, runs, {}) for i in range(NUM_SEEDS)]
    for found in seeds:
        asked = (
            Figure("size", "<=", case.most_size),
            Figure("missed_by", "<=", MOST_MISSED),
            Figure("training_seconds", "<=", RUN_SECONDS),
        )
        settings = shared | {"seed": found["seed"]}
        yield Row(f"fewbits {case.name} seed {found['seed']}", runs_of.without(found, "seed"), asked, settings)
    yield Row(f"fewbits {case.name} mean", runs_of.mean_of(seeds), (), shared | {"seeds": NUM_SEEDS})
    asked = [Figure("size", "<=", case.most_size)]
    if case.most_error is not None:
        asked.append(Figure("test_error", "<=", case.most_error))
    settings = shared | {"chosen_by": "validation error, then size"}
    yield Row(f"fewbits {case.name} chosen", runs_of.chosen_of(seeds), tuple(asked), settings)


def _parameterisations(data: Path, runs: Path) -> Iterator[Row]:
    """By divergence and with penalties, in fewer steps than the recipe's; of one seed."""
    for parameterisation, steps, between in COMPARISON:
        settings = {"parameterisation": parameterisation, "steps": steps, "steps_between": between}
        seeds = [_run(COMPARED, seed, data, runs, settings) for seed in range(SEEDS_COMPARED)]
        name = f"fewbits {COMPARED} by {parameterisation}, {steps} steps"
        yield Row(name, runs_of.mean_of(seeds), (), settings | {"row": COMPARED, "seeds": SEEDS_COMPARED})


def _run(name: str, seed: int, data: Path, runs: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of one run; it is trained if the folder has not got it."""
    marks = "".join(f"-{value}" for value in settings.values())
    file = runs / f"{name}-{seed}{marks}.fewbits"
    if not file.with_suffix(".json").exists():
        words = ["--set", *runs_of.setting_words(settings)] if settings else []
        runs_of.recipe("miracle/train.py", name, "--seed", seed, "--data", data, "--out", file, *words)
    found: dict[str, Measured] = runs_of.scored(file, seed, data)
    asked = runs_of.told(file)["asked_bytes"]
    size = runs_of.told(file)["parts_bytes"]
    return found | {"parts_size": size, "missed_by": round(abs(size - asked) / asked, 4)}
