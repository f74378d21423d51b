"""Timing of programs in turns, so that what else the machine does falls on all of them alike; rows not measured."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .row import Measured, Row


class Seconds(NamedTuple):
    """What one run took: CPU seconds of the whole process, all its threads, and wall seconds."""

    cpu: float
    wall: float


class Action(NamedTuple):
    """What is timed, between what is not.

    before: makes the argument of `run`, fresh for each. after: says whether the result of `run` is right.
    units: symbols, bytes or whatever rates count.
    """

    run: Callable[[Any], Any]
    before: Callable[[], Any] = lambda: None
    after: Callable[[Any], bool] = lambda result: True
    units: int = 1


@dataclass(frozen=True)
class Times:
    """All runs of one action, in order, and whether every result was right."""

    runs: tuple[Seconds, ...]
    right: bool
    units: int

    def seconds(self, clock: str = "cpu") -> float:
        """Return the median of the runs."""
        return statistics.median(getattr(run, clock) for run in self.runs)

    def rate(self, clock: str = "cpu") -> float:
        """Return units per median second."""
        return self.units / self.seconds(clock)

    def over(self, other: "Times", clock: str = "cpu") -> float:
        """Return how many times the other's rate this one's is, by the medians."""
        return self.rate(clock) / other.rate(clock)

    def over_pairwise(self, other: "Times", clock: str = "cpu") -> float:
        """Return the median of the ratios of rates of runs of the same round."""
        pairs = zip(self.runs, other.runs, strict=True)
        ratios = [getattr(theirs, clock) / getattr(ours, clock) for ours, theirs in pairs]
        return statistics.median(ratios) * self.units / other.units


def interleaved(actions: Mapping[str, Action], repeats: int) -> dict[str, Times]:
    """Run every action once a round, in order; a first round of all is not counted."""
    runs: dict[str, list[Seconds]] = {name: [] for name in actions}
    right = dict.fromkeys(actions, True)
    for number in range(repeats + 1):
        gc.collect()
        for name, action in actions.items():
            is_right, seconds = _run_once(action)
            right[name] &= is_right
            if number:
                runs[name].append(seconds)
    return {name: Times(tuple(runs[name]), right[name], action.units) for name, action in actions.items()}


def _run_once(action: Action) -> tuple[bool, Seconds]:
    """Run an action; what it was given and made is gone when this returns."""
    argument = action.before()
    result, seconds = timed(lambda: action.run(argument))
    return action.after(result), seconds


def timed(run: Callable[[], Any]) -> tuple[Any, Seconds]:
    """Run once, with no garbage collected meanwhile; return the result and what it took."""
    gc.disable()
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        return result, Seconds(time.process_time() - cpu, time.perf_counter() - wall)
    finally:
        gc.enable()


class Unmeasured(Row):
    """A row whose figures could not be measured here: neither kept nor missed. `measured` says why."""

    @property
    def missed(self) -> tuple:
        """None: nothing was measured."""
        return ()

    @property
    def passed(self) -> None:
        """Unknown."""
        return None


def unmeasured(row: Row, reason: str) -> Unmeasured:
    """Return the row with a reason in place of its values."""
    measured: dict[str, Measured] = {"not_measured": reason}
    return Unmeasured(row.name, measured, row.asked, row.settings, row.versions)
