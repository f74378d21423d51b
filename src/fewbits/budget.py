"""Meeting a size: the one search over the Lagrangian multiplier that serves every method. Knows no torch."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from operator import index
from typing import Generic, NamedTuple, TypeVar

from fewbits.errors import InvalidArgument

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_GRID = 256  # rate weights are 2^(k / 256): a grid fine enough for 0.1 % of size, and the same on every machine
_LOWEST, _HIGHEST = -60 * _GRID, 60 * _GRID
COARSEST = 2.0 ** (_HIGHEST / _GRID)  # the highest rate weight tried
_ATTEMPTS = 10
_CLOSE = 0.9965  # a file of at least this share of its target is not searched further
_AIM = 0.9985  # the share aimed at, so that a small miss still fits

Result = TypeVar("Result")


def parse_size(size: int | str) -> int:
    """Return a size in bytes: a number of bytes, or text such as "8.6MB" (10^6) or "512KiB" (2^10).

    Raises:
        InvalidArgument: it is no size above 0.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", size)
        if match is None or match[2].upper() not in _UNITS:
            raise InvalidArgument(f"{size!r} is not a size; write bytes, or a number and kB, MB or GB.")
        num_bytes = int(Decimal(match[1]) * _UNITS[match[2].upper()])  # a float would make 8.2MB a byte less
    else:
        try:
            num_bytes = index(size)
        except TypeError as error:
            raise InvalidArgument(f"{size!r} is not a size; write a whole number of bytes, or text.") from error
    if num_bytes <= 0 or isinstance(size, bool):
        raise InvalidArgument(f"a size must be a number of bytes above 0, not {size!r}.")
    return num_bytes


class Trial(NamedTuple, Generic[Result]):
    """One encoding tried: its rate weight, its size in the target's units, and what was encoded."""

    rate_weight: float
    size: float
    result: Result


def meet(
    target: float,
    expected: Callable[[float], float],
    encode: Callable[[float], tuple[float, Result]],
    unit: str = "bytes",
) -> Trial[Result]:
    """Find the smallest rate weight on the grid whose encoding fits the target, or comes within 0.35 % below it.

    Args:
        target: largest size, in any unit.
        expected: predicts the size at a rate weight from statistics; falls as the rate weight rises.
        encode: encodes at a rate weight; returns the real size and the result.
        unit: of the sizes, for the message.

    Raises:
        InvalidArgument: even the highest rate weight does not fit.
    """
    best: Trial[Result] | None = None
    over, under = _LOWEST - 1, _HIGHEST + 1  # every grid point left lies strictly between them
    ratios: dict[int, float] = {}  # real to expected size, at the points tried
    last, last_point = -1.0, over

    def predicted(point: int) -> float:
        return _interpolated(ratios, over, under, point) * expected(2.0 ** (point / _GRID))

    for _ in range(_ATTEMPTS):
        point = _first_fit(lambda k: predicted(k) <= target * _AIM, over, under)
        if point == under:  # by the prediction nothing left fits; it may be wrong, but then it is of no more help
            point = _HIGHEST if under > _HIGHEST else (over + under) // 2
        rate_weight = 2.0 ** (point / _GRID)
        size, result = encode(rate_weight)
        ratios[point] = size / max(expected(rate_weight), 1e-9)
        if size <= target:
            under = point
            if best is None or size > best.size:
                best = Trial(rate_weight, size, result)
            # Close enough; or finer than before and no larger: all there is has been kept.
            if size >= target * _CLOSE or (size == last and point < last_point):
                break
        else:
            over = point
        if under - over <= 1:
            break
        last, last_point = size, point
    if best is None:
        rate_weight = COARSEST
        size, result = encode(rate_weight)
        if size > target:
            raise InvalidArgument(
                f"{target:,.12g} {unit} cannot be met: the smallest possible is {_round_up(size):,.12g} {unit}."
            )
        best = Trial(rate_weight, size, result)
    return best


def _round_up(size: float) -> float:
    """A size that fits, short enough to type."""
    return math.ceil(size) if size >= 100 else math.ceil(size * 10_000) / 10_000


def _interpolated(ratios: dict[int, float], over: int, under: int, point: int) -> float:
    """The ratio at a point: between those at `over` and `under`, or the one that is known, or 1."""
    if over in ratios and under in ratios:
        share = (point - over) / (under - over)
        return ratios[over] * (1 - share) + ratios[under] * share
    return ratios.get(over, ratios.get(under, 1.0))


def _first_fit(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The least grid point strictly between `low` and `high` that fits, by bisection; `high` if none does."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
