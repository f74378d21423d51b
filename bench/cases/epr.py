"""EPR's rows on MNIST: the recipes' networks of all seeds, those chosen on the validation split, and their means."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import Options
from . import recipe_runs as runs_of
from .inputs import data_file, need
from .row import Figure, Measured, Row

takes_rivals = False

RUNS = "FEWBITS_EPR_RUNS"
NUM_SEEDS = 5
RUN_SECONDS = 300


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
    Case("lenet5_straight_through", num_seeds=1, timed=False),
    Case("lenet5_soft", num_seeds=1, timed=False),
    Case("lenet5_universal", num_seeds=1, timed=False),
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
    with runs_of.folder(RUNS) as runs:
        for case in filter(lambda each: options.wants(each.name), CASES):
            yield from _rows(case, data, runs)
        for name, budget, steps in BUDGETS:
            if options.wants(f"{name}_budget"):
                yield _with_budget(name, budget, steps, data, runs)
        for case in filter(lambda each: options.wants(each.name), MORE_CASES):
            yield from _rows(case, data, runs)


def _rows(case: Case, data: Path, runs: Path) -> Iterator[Row]:
    """Each seed's row, their mean, the one chosen."""
    seeds = [_run(case.name, case.first_seed + i, data, runs) for i in range(case.num_seeds)]
    if not case.timed:
        seeds = [runs_of.without(found, "training_seconds") for found in seeds]
    for found in seeds:
        asked = [Figure("estimate_off_bytes", "<=", 16 + 0.01 * found["size"])]
        if case.timed:
            asked.append(Figure("training_seconds", "<=", RUN_SECONDS))
        settings = {
            "row": case.name,
            "seed": found["seed"],
            "augmentation": runs_of.augmentation("epr", case.name),
            **_choice(case),
        }
        measured = runs_of.without(found, "seed")
        yield Row(f"fewbits {case.name} seed {found['seed']}", measured, tuple(asked), settings)
    yield _mean(case, seeds)
    yield _chosen(case, seeds)


def _run(name: str, seed: int, data: Path, runs: Path) -> dict[str, Any]:
    """The scores of one seed's network."""
    file = runs / f"{name}-{seed}.fewbits"
    trained = _trained(name, seed, data, runs, file)
    off = abs(trained["estimated_bits"] - trained["actual_bits"]) / 8
    return {**runs_of.scored(file, seed, data), "estimate_off_bytes": off}


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
        if runs_of.settings_of("epr", name).distil and not teacher.exists():
            runs_of.recipe("epr/teacher.py", "--data", data, "--out", teacher)
        train = ["epr/train.py", name, "--seed", seed, "--data", data, "--out", file]
        if settings is None:
            train += ["--resume", runs / "checkpoints"]  # they are told by row and seed alone
        else:
            train += ["--set", *runs_of.setting_words(settings)]
        runs_of.recipe(*train, *(["--teacher", teacher] if runs_of.settings_of("epr", name).distil else []))
    return runs_of.told(file)


def _mean(case: Case, seeds: list[dict[str, Any]]) -> Row:
    asked: tuple[Figure, ...] = ()
    if case.mean_size is not None:
        asked = (Figure("size", "<=", case.mean_size), Figure("test_error", "<=", case.most_error or 100.0))
    settings = {
        "row": case.name,
        "seeds": len(seeds),
        "augmentation": runs_of.augmentation("epr", case.name),
        **_choice(case),
    }
    return Row(f"fewbits {case.name} mean", runs_of.mean_of(seeds), asked, settings)


def _chosen(case: Case, seeds: list[dict[str, Any]]) -> Row:
    """The seed chosen on the validation split."""
    asked: list[Figure] = []
    if case.chosen_size is not None:
        asked.append(Figure("size", "<=", case.chosen_size))
    if case.most_error is not None:
        asked.append(Figure("test_error", "<=", case.most_error))
    settings = {"row": case.name, "chosen_by": "validation error, then size", **_choice(case)}
    return Row(f"fewbits {case.name} chosen", runs_of.chosen_of(seeds), tuple(asked), settings)


def _choice(case: Case) -> dict[str, Any]:
    if not case.first_seed or case.most_error is None:
        return {}
    turn = {5: "a second", 15: "a fourth"}[case.first_seed]
    return {"settings_chosen": f"{turn} time, after test errors of seeds 0 to {case.first_seed - 1} with others"}
