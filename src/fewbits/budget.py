"""Meeting a size or a loss: the searches over the Lagrangian multiplier that serve every method. Knows no torch."""

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
_MOST_LOSSES = 20  # that are looked at: each takes an encoding, and a user's evaluation
_NEAR, _FARTHEST = _GRID // 16, 6.0  # points that two rate weights may be apart at last; octaves of a loss at a time
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
    """One encoding tried: its rate weight, its size (or loss) in the target's units, and what was encoded."""

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
        del result  # while the next one is made
    if best is None:
        rate_weight = COARSEST
        size, result = encode(rate_weight)
        if size > target:
            raise InvalidArgument(
                f"{target:,.12g} {unit} cannot be met: the smallest possible is {_round_up(size):,.12g} {unit}."
            )
        best = Trial(rate_weight, size, result)
    return best


def rate_at(size: float, expected: Callable[[float], float]) -> float:
    """Return the least rate weight on the grid whose expected size is at most that, in any unit."""
    return 2.0 ** (_first_fit(lambda k: expected(2.0 ** (k / _GRID)) <= size, _LOWEST - 1, _HIGHEST) / _GRID)


def tolerate(most: float, encode: Callable[[float], tuple[float, Result]], first: float) -> Trial[Result] | None:
    """Find the greatest rate weight, to a sixteenth of an octave, whose loss is at most that; None if none is.

    A loss is taken to grow as fast as the rate weight, by which the search goes on from one point, and between two.

    Args:
        most: the greatest loss, in any unit.
        encode: encodes at a rate weight; returns the loss, of which infinity is too much, and the result.
        first: the rate weight to begin with.
    """
    best: Trial[Result] | None = None
    good, bad = _LOWEST - 1, _HIGHEST + 1  # every point left to try lies strictly between them
    losses: dict[int, float] = {}
    point = min(max(round(_GRID * math.log2(first)), _LOWEST), _HIGHEST)
    for _ in range(_MOST_LOSSES):
        rate_weight = 2.0 ** (point / _GRID)
        loss, result = encode(rate_weight)
        losses[point] = loss
        if loss <= most:
            good, best = point, Trial(rate_weight, loss, result)
        else:
            bad = point
        if bad - good <= _NEAR:
            break
        point = _between(good, bad, losses, most)
    return best


def _between(good: int, bad: int, losses: dict[int, float], most: float) -> int:
    """The next point: where a loss of `most` is to be expected, not too near to what is known."""

    def octaves(point: int) -> float:
        """How far the loss of a point is below `most`, in octaves."""
        loss = losses[point]
        if loss <= 0 or most <= 0:
            return _FARTHEST if loss <= most else -_FARTHEST
        return min(max(math.log2(most) - math.log2(loss), -_FARTHEST), _FARTHEST)

    if bad not in losses:
        return min(good + max(round(_GRID * octaves(good)), _GRID // 4), bad - 1)
    if good not in losses:
        return max(bad + min(round(_GRID * octaves(bad)), -_GRID // 4) - 1, good + 1)
    below, above = octaves(good), -octaves(bad)
    share = below / (below + above) if below + above > 0 else 0.5
    return min(max(good + round((bad - good) * min(max(share, 0.1), 0.9)), good + 1), bad - 1)


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
