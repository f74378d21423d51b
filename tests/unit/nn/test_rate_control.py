"""What a bit is worth while a network trains: warm-up, steering to a budget, and going on from a checkpoint."""

import copy
import math

import pytest
import torch
from torch import nn

from fewbits.errors import InvalidArgument
from fewbits.nn.rate_control import Budget, RateControl


class Plant:
    """A toy run: its size goes with the weight's power -1/2, follows it by and by, and is large at first."""

    def __init__(self, constant: float, lag: float) -> None:
        self.constant, self.lag = constant, lag
        self.log_size = math.log(100 * constant)

    def step(self, weight: float) -> float:
        target = math.log(self.constant) - 0.5 * math.log(max(weight, 1e-12))
        self.log_size += (target - self.log_size) / self.lag
        return math.exp(self.log_size)


def run(control: RateControl, plant: Plant, steps: int) -> tuple[float, list[float]]:
    """Train for some steps; returns the size at the end and the weight at each of them."""
    size, weights = 0.0, []
    for _ in range(steps):
        weights.append(control.weight())
        size = plant.step(control.weight())
        if control.advance():
            control.steer(size)
    return size, weights


def test_the_weight_rises_from_0_in_a_line_and_then_stays() -> None:
    control = RateControl(3.0, 4, None)
    weights = []
    for _ in range(8):
        weights.append(control.weight())
        assert not control.advance()
    assert weights == pytest.approx([0, 0.75, 1.5, 2.25, 3, 3, 3, 3])
    assert control.rate_weight == 3.0


def test_without_a_warm_up_the_weight_is_there_at_once() -> None:
    assert RateControl(0.7, 0, None).weight() == 0.7
    assert RateControl(0.0, 0, None).weight() == RateControl(0.0, 10, None).weight() == 0.0


@pytest.mark.parametrize("first", [0.05, 5.0, 500.0])
@pytest.mark.parametrize("lag", [5.0, 60.0])
def test_a_size_ends_a_little_above_the_budget(first: float, lag: float) -> None:
    control = RateControl(first, 100, Budget(2000, 3000))
    size, weights = run(control, Plant(2000 * 20**0.5, lag), 3000)  # 20 is the weight that gives the budget
    assert 1.01 < size / 2000 < 1.09  # refining makes it fit
    assert weights[-1] == pytest.approx(20, rel=0.15)


def test_the_warm_up_holds_with_a_budget_too() -> None:
    control = RateControl(5.0, 100, Budget(1000, 1000))
    _, weights = run(control, Plant(1000.0, 20.0), 1000)
    assert weights[:100] == pytest.approx([0.05 * step for step in range(100)])


def test_the_size_is_asked_for_some_fifty_times_and_neither_early_nor_after_the_end() -> None:
    control = RateControl(5.0, 0, Budget(1000, 1000))
    asked = [step for step in range(1, 1501) if control.advance()]
    assert asked == list(range(160, 1000, 20))  # from 15 % of the run on
    control = RateControl(5.0, 0, Budget(1000, 7))
    assert [step for step in range(1, 20) if control.advance()] == [2, 3, 4, 5, 6]


def test_too_large_a_size_makes_bits_dearer_and_too_small_a_one_cheaper() -> None:
    for size, sign in ((1e9, 1), (1e5, 1), (1, -1), (0, -1)):
        control = RateControl(5.0, 0, Budget(1000, 100))
        for _ in range(90):
            control.advance()
        control.steer(size)
        assert sign * math.log(control.weight() / 5.0) > 0
        assert abs(math.log(control.weight() / 5.0)) <= 0.5 + 1e-9  # never by more at a time


def test_a_run_that_starts_near_its_budget_is_not_told_to_grow() -> None:
    for first, sign in ((math.inf, -1), (1_150.0, 1), (900.0, 1)):
        control = RateControl(5.0, 0, Budget(1000, 100))
        control.start_from(first)
        for _ in range(20):
            control.advance()
        control.steer(1_180.0)  # far below what a run from random weights has by then
        assert sign * math.log(control.weight() / 5.0) > 0


def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    whole, plant = RateControl(1.0, 50, Budget(500, 1000)), Plant(3000.0, 30.0)
    run(whole, plant, 400)
    state = copy.deepcopy(whole.state_dict())
    resumed, same_plant = RateControl(77.0, 50, Budget(500, 1000)), copy.deepcopy(plant)
    resumed.load_state_dict(state)
    assert resumed.rate_weight == whole.rate_weight
    assert run(resumed, same_plant, 600) == run(whole, plant, 600)


def test_the_state_goes_through_a_module_that_holds_it_and_through_a_copy() -> None:
    control = RateControl(2.0, 10, None)
    for _ in range(5):
        control.advance()
    holder = nn.ModuleDict({"control": RateControl(0.5, 10, None)})
    holder.load_state_dict(nn.ModuleDict({"control": control}).state_dict())
    held = holder["control"]
    assert isinstance(held, RateControl)
    assert held.weight() == copy.deepcopy(control).weight() == 1.0


def test_a_weight_of_0_stays_0_in_a_state() -> None:
    resumed = RateControl(1.0, 0, None)
    resumed.load_state_dict(RateControl(0.0, 0, None).state_dict())
    assert resumed.weight() == 0.0


def test_nothing_is_trained() -> None:
    control = RateControl(1.0, 0, None)
    assert not list(control.parameters())
    assert {name: value.dtype for name, value in control.state_dict().items()} == {
        "step": torch.int64,
        "log_weight": torch.float64,
        "excess": torch.float64,
        "first": torch.float64,
    }


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_finite_number_of_at_least_0_is_refused(weight: float) -> None:
    for budget in (None, Budget(1000, 1000)):
        with pytest.raises(InvalidArgument, match="rate_weight"):
            RateControl(weight, 0, budget)


@pytest.mark.parametrize(
    ("warm_up", "budget", "message"),
    [
        (-1, None, "warm_up"),
        (0, Budget(0, 100), "budget"),
        (0, Budget(-5, 100), "budget"),
        (0, Budget(100, 0), "budget"),
    ],
)
def test_numbers_out_of_their_range_are_refused(warm_up: int, budget: Budget | None, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        RateControl(1.0, warm_up, budget)


def test_a_budget_needs_a_weight_above_0_to_start_from() -> None:
    with pytest.raises(InvalidArgument, match="rate_weight"):
        RateControl(0.0, 0, Budget(1000, 1000))
