"""The weight of the rate while a network trains: warm-up, and steering to a byte budget."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument

_UPDATES = 50  # of the weight in a run with a budget
_FIRST = 0.15  # of the run: before, a network is still finding out what it needs
# What a size is of the one that the run ends with, as training goes on: 1 + 0.11 ((1 - f) / f)^1.2 at the fraction f.
# Measured on the LeNets, with rates that fall along a cosine. A wrong curve steers later, not elsewhere.
_EXCESS, _POWER = 0.11, 1.2
# Of the logarithm of the weight, for each update: sizes go with about its power -1/2, and follow after some updates.
# More so where a size is too small: it goes on falling for a while, and hardly grows again.
_GAIN, _GAIN_BELOW = 0.35, 0.7
_AHEAD = 2.0  # updates by which the trend of the excess is followed; from 2.4 on, what follows at once swings
_LARGEST_MOVE = 0.5
_AIM = 1.04  # of the budget: what is too small hardly grows again, what is too large can be refined to fit


class Budget(NamedTuple):
    """A file's size to steer to, in bytes, and the training steps that there are for it."""

    num_bytes: int
    num_steps: int


class RateControl(nn.Module):
    """What a bit is worth at each training step; a module, so that a run's state_dict carries it.

    Constant after a linear warm-up; with a budget the weight moves until sizes head for it.
    """

    step: Tensor  # () int64: training steps so far
    log_weight: Tensor  # () float64
    excess: Tensor  # () float64, logarithm: of the last size over what it should have been then
    first: Tensor  # () float64: bytes before training; infinite where nobody has said

    def __init__(self, rate_weight: float, warm_up: int, budget: Budget | None) -> None:
        """Start with a weight, of at least 0, or above 0 with a budget.

        Raises:
            InvalidArgument: a number is out of its range.
        """
        super().__init__()
        if not 0 <= rate_weight < math.inf:
            raise InvalidArgument(f"rate_weight must be a finite number of at least 0, not {rate_weight}.")
        if budget is not None and not rate_weight:
            raise InvalidArgument("rate_weight must be above 0 to start the search for a budget from.")
        if warm_up < 0:
            raise InvalidArgument(f"warm_up must be a number of steps of at least 0, not {warm_up}.")
        if budget is not None and (budget.num_bytes < 1 or budget.num_steps < 1):
            raise InvalidArgument("a budget needs bytes and training steps to reach it in, at least 1 each.")
        self.warm_up, self.budget = warm_up, budget
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        log_weight = math.log(rate_weight) if rate_weight else -math.inf
        self.register_buffer("log_weight", torch.tensor(log_weight, dtype=torch.float64))
        self.register_buffer("excess", torch.tensor(math.inf, dtype=torch.float64))  # there is none before the first
        self.register_buffer("first", torch.tensor(math.inf, dtype=torch.float64))
        self._step, self._weight = 0, rate_weight  # the same as numbers: a GPU need not be waited for

    @property
    def rate_weight(self) -> float:
        """What a bit per weight is worth after the warm-up."""
        return self._weight

    def weight(self) -> float:
        """Return what a bit per weight is worth at this step."""
        warmth = min(1.0, self._step / self.warm_up) if self.warm_up else 1.0
        return self._weight * warmth

    def advance(self) -> bool:
        """Count a training step; returns whether it is time to measure the size, for `steer`."""
        self._step += 1
        self.step += 1
        if self.budget is None or self._step < _FIRST * self.budget.num_steps or self._step >= self.budget.num_steps:
            return False
        return self._step % max(1, self.budget.num_steps // _UPDATES) == 0

    def start_from(self, num_bytes: float) -> None:
        """Take note of a file's size before training: one that starts near its budget is not to grow away from it."""
        self.first.fill_(num_bytes)

    def steer(self, num_bytes: float) -> None:
        """Move the weight, a file being of this size now."""
        assert self.budget is not None
        fraction = min(1.0, self._step / self.budget.num_steps)
        aim = _AIM * self.budget.num_bytes
        expected = min(1 + _EXCESS * ((1 - fraction) / fraction) ** _POWER, max(1.0, float(self.first) / aim))
        excess = math.log(max(num_bytes, 1.0) / (aim * expected))
        trend = excess - float(self.excess) if math.isfinite(self.excess) else 0.0
        self.excess.fill_(excess)
        ahead = excess + _AHEAD * trend
        gain = _GAIN if ahead > 0 else _GAIN_BELOW
        move = max(-_LARGEST_MOVE, min(_LARGEST_MOVE, gain * ahead))
        self.log_weight += move
        self._weight = math.exp(float(self.log_weight))

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._step, self._weight = int(self.step), math.exp(float(self.log_weight))
