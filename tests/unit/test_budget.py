"""Sizes as text, and the search that meets a size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.budget import meet, parse_size, rate_at, tolerate
from fewbits.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (8_670_000, 8_670_000),
        ("123", 123),
        ("123B", 123),
        ("8.67MB", 8_670_000),
        ("8.6 MB", 8_600_000),
        (" 512KiB ", 524_288),
        ("1.5kb", 1500),
        (".5GB", 500_000_000),
        ("2GiB", 2 * 2**30),
        ("3MiB", 3 * 2**20),
        ("0.29kB", 290),
        ("1.1kB", 1100),
        ("4.35kB", 4350),
        ("8.2MB", 8_200_000),
    ],
)
def test_sizes_are_read(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "MB", "8,6MB", "8.6XB", "-1MB", "1e6", "8.MB6", "0", 0, -5, "0.1B", "ten", "1 2", "8.6 M B", "١MB", "inf"],
)
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(text)


@pytest.mark.parametrize("size", [2.5, float("nan"), float("inf"), None, b"8MB", True, [1]])
def test_what_is_neither_an_integer_nor_text_is_refused(size: object) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(size)


def smooth(rate_weight: float) -> float:
    """A size that falls as the rate weight rises, from 6,000 down to 50."""
    return 50 + 6000 / (1 + rate_weight**0.5)


@given(st.floats(60, 5900), st.floats(0.7, 1.4))
def test_the_size_found_fits_and_is_close(target: float, bias: float) -> None:
    trial = meet(target, lambda rate: bias * smooth(rate), lambda rate: (round(smooth(rate)), rate))
    assert trial.size <= target
    assert trial.size >= 0.99 * target - 1
    assert trial.result == trial.rate_weight


def test_the_search_does_not_depend_on_earlier_ones() -> None:
    trials = [meet(3000, smooth, lambda rate: (smooth(rate), None)) for _ in range(2)]
    assert trials[0] == trials[1]


def test_a_size_that_cannot_be_met_says_the_smallest_possible_and_that_one_can() -> None:
    def encode(rate_weight: float) -> tuple[float, None]:
        return round(smooth(rate_weight)), None

    with pytest.raises(InvalidArgument, match="the smallest possible is 50 bytes"):
        meet(49, smooth, encode)
    assert meet(50, smooth, encode).size <= 50


def test_a_prediction_that_is_far_off_still_finds_a_size_that_fits() -> None:
    for factor in (0.01, 100.0):
        trial = meet(2000, lambda rate, factor=factor: factor * smooth(rate), lambda rate: (smooth(rate), None))
        assert 1800 < trial.size <= 2000


def test_a_target_above_everything_gives_the_largest() -> None:
    trial = meet(1e9, smooth, lambda rate: (smooth(rate), None))
    assert trial.size == pytest.approx(6050, abs=2)


def test_a_size_that_never_changes_is_not_searched_for_long() -> None:
    calls: list[float] = []

    def encode(rate_weight: float) -> tuple[float, None]:
        calls.append(rate_weight)
        return 1000.0, None

    assert meet(5000, lambda rate: 1000.0, encode).size == 1000
    assert len(calls) <= 3


@given(st.floats(-30, 30), st.floats(0.3, 2.5), st.floats(-25, 25))
def test_the_loss_found_is_within_and_hardly_more_could_be(most: float, power: float, first: float) -> None:
    tried: list[float] = []

    def encode(rate_weight: float) -> tuple[float, float]:
        tried.append(rate_weight)
        return rate_weight**power, rate_weight

    trial = tolerate(2.0**most, encode, 2.0**first)
    best = 2.0 ** (most / power)
    if best < 2.0**-59:
        return
    assert trial is not None and trial.result == trial.rate_weight
    assert trial.size <= 2.0**most
    assert trial.rate_weight >= min(best, 2.0**60) / 2 ** (1 / 16 + 1 / 256)
    assert len(tried) == len(set(tried)) <= 20


def test_a_loss_that_jumps_or_is_no_number_is_searched_by_halves() -> None:
    tried: list[float] = []

    def encode(rate_weight: float) -> tuple[float, None]:
        tried.append(rate_weight)
        return (0.0 if rate_weight <= 40 else float("inf")), None

    trial = tolerate(0.0, encode, 1.0)
    assert trial is not None and 37 < trial.rate_weight <= 40
    assert len(tried) <= 14


def test_a_loss_that_is_always_too_much_is_said_and_one_that_never_is_ends_at_the_coarsest() -> None:
    assert tolerate(0.1, lambda rate: (1.0, rate), 1.0) is None
    trial = tolerate(0.1, lambda rate: (0.0, rate), 1.0)
    assert trial is not None and trial.rate_weight == 2.0**60


def test_a_rate_weight_is_found_for_a_size() -> None:
    rate = rate_at(1000, smooth)
    assert smooth(rate) <= 1000 < smooth(rate / 2 ** (1 / 256))
    assert rate_at(1, smooth) == 2.0**60
    assert rate_at(1e9, smooth) == 2.0**-60
