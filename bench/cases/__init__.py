"""The cases, a module each: a docstring of one sentence, `takes_rivals`, `rows(options) -> Iterator[Row]`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rivals import Rival

NAMES = (
    "minilm",
    "calibrated",
    "correlated",
    "gaussian",
    "resnet20",
    "stories",
    "smollm",
    "coder",
    "load",
    "small",
    "epr",
    "epr_step",
    "epr_time",
    "epr_order",
    "factored",
    "qswd",
    "channel",
    "miracle",
    "resnet20_samples",
    "universal",
    "images",
)


@dataclass(frozen=True)
class Options:
    """What the command line asks of a case."""

    rivals: tuple[Rival, ...] = ()
    rivals_only: bool = False
    seed: int = 0
    num_symbols: int | None = None  # of each large stream of the case `coder`, or weights of `load`; None: as meant
    recipes: tuple[str, ...] = ()  # of cases that train; none: all

    def wants(self, recipe: str) -> bool:
        """Say whether a recipe's rows are asked for."""
        return not self.recipes or recipe in self.recipes


def case_module(name: str) -> ModuleType:
    """Import one case by its name."""
    return import_module(f"cases.{name}")
