"""From weights to levels: by rounding or by a trellis, with the rate in view, whichever costs less in all."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.integers import IntegerModel
from fewbits.coder.table import COST_ONE
from fewbits.methods.ecsq.config import EcsqConfig
from fewbits.methods.ecsq.payload import Points
from fewbits.models.fit import Fit, best_fit, bits_of_each
from fewbits.quantize.rounding import BIT_WORTH, Centroids, Gains, row_magnitudes
from fewbits.quantize.trellis import (
    MOST_PRICED,
    NO_CORRECTIONS,
    Corrections,
    Trellis,
    prices_of_costs,
    trellis_step,
)
from fewbits.quantize.weights import Distortion, Scaled, Weights

LEAST_TRELLIS = 1024  # elements below which a trellis is not tried: its 32 paths lose a bit or two each at their start
_LEAST_ROW = 32  # elements of a row below which classes of rows are not tried
_LEAST_CENTROIDS = 256  # elements below which three bytes of centroids are not tried
# Row scales that part classes of rows, half an octave apart, in units of the step.
_ROW_SCALES = 2.0 ** (np.arange(-16, 49) / 2)
_PRICED_BITS = 2.5  # an element: where levels take more, a search gains nothing by knowing what they cost
# Each search changes the tables, and so the prices: below a bit an element it takes some until they settle.
_MOST_SEARCHES, _LEAST_GAIN = 10, 0.001
# Elements that prices are settled on, and more than which have a sample; it is of every so-many-th block of elements.
_SAMPLE, _SAMPLED, _BLOCK = 1 << 17, 1 << 18, 1 << 10


class Candidate(NamedTuple):
    """Levels (R, n) that a tensor or tile may be written as, and what a reader must know of them."""

    points: Points
    levels: NDArray[np.int32]
    fit: Fit
    distortion: Distortion

    @property
    def bits(self) -> float:
        """What it takes, its description included."""
        return self.fit.bits + 8 * len(self.points.to_bytes())

    def cost(self, step: float) -> float:
        """Its error and rate together, at the slope of scalar quantisation with a step."""
        return self.distortion.error + BIT_WORTH * step * step * self.bits


class _Prices(NamedTuple):
    """What a trellis search goes by: the points of levels, and the prices (K, 2 * MOST_PRICED + 1) of rows' classes."""

    corrections: Corrections
    prices: NDArray[np.float32]
    classes: NDArray[np.int64] | None

    @classmethod
    def nothing(cls) -> "_Prices":
        """No level has a price."""
        return cls(NO_CORRECTIONS, np.zeros((1, 2 * MOST_PRICED + 1), np.float32), None)

    @classmethod
    def after(cls, found: Candidate) -> "_Prices":
        """What the levels found would cost by their own tables."""
        levels = np.arange(-MOST_PRICED, MOST_PRICED + 1)
        bits = np.stack([bits_of_each(model, levels) for model in found.fit.models.models])
        return cls(found.points.corrections or NO_CORRECTIONS, prices_of_costs(bits), found.fit.classes)


class Quantiser:
    """Chooses levels as its settings allow."""

    def __init__(self, settings: EcsqConfig) -> None:
        """Choose by these settings."""
        self.settings = settings

    def candidates(self, weights: Weights, step: float, num_rows: int) -> list[Candidate]:
        """Return what was tried, the cheapest first, what overflows last; nothing if all was out of the coder's reach.

        Args:
            weights: of a tensor or tile.
            step: of scalar quantisation; a trellis has one of the same squared error, about.
            num_rows: of the weights as a matrix.
        """
        tried = [self._by_rounding(weights.scaled(step, num_rows))]
        if self.settings.trellis and weights.bits.size >= LEAST_TRELLIS:
            tried.append(self._by_trellis(Trellis(weights, trellis_step(step), num_rows), step))
        found = [each for each in tried if each is not None]
        return sorted(found, key=lambda each: (not each.distortion.finite, each.cost(step)))

    def _by_rounding(self, scaled: Scaled) -> Candidate | None:
        """Round to levels, with the rate in view; None if one is out of the coder's reach."""
        levels = scaled.levels()
        if levels is None:
            return None
        fit = self._best_fit(levels)
        if self.settings.rate_distortion:
            gains = [_gains_of(model) for model in fit.models.models]
            levels = scaled.rate_distortion_round(levels, gains, fit.classes)
            fit = self._best_fit(levels)
        centroids = self._centroids(scaled, levels)
        return Candidate(Points(scaled.step, centroids), levels, fit, scaled.distortion(levels, centroids))

    def _centroids(self, scaled: Scaled, levels: NDArray[np.int32]) -> Centroids | None:
        if not self.settings.centroids or levels.size < _LEAST_CENTROIDS:
            return None
        centroids = scaled.centroids(levels)
        return centroids if any(centroids) else None

    def _by_trellis(self, trellis: Trellis, step: float) -> Candidate | None:
        """Find levels by a trellis, with the rate in view; None if one is out of reach."""
        if not self.settings.rate_distortion or trellis.weights.bits.size < _SAMPLED:
            return self._searches(trellis, step, _Prices.nothing(), _MOST_SEARCHES)
        sampled = self._searches(_sample(trellis), step, _Prices.nothing(), _MOST_SEARCHES)
        if sampled is None:
            return None
        # The sample's prices are the whole's; but it is one row, and has no classes.
        found = self._searches(trellis, step, _Prices.after(sampled), 1)
        if found is None or found.fit.classes is None or self._is_dear(found):
            return found
        return self._searches(trellis, step, _Prices.after(found), 1)

    def _searches(self, trellis: Trellis, step: float, prices: _Prices, most: int) -> Candidate | None:
        """Search until prices are settled, at most so often; the cheapest levels, or None if one is out of reach."""
        best: Candidate | None = None
        least = math.inf
        for _ in range(most):
            levels = trellis.levels(*prices)
            if levels is None:
                return None
            corrections = trellis.corrections(levels) if self.settings.centroids else NO_CORRECTIONS
            points = Points(trellis.step, corrections=corrections)
            found = Candidate(points, levels, self._best_fit(levels), trellis.distortion(levels, corrections))
            # NUMERICS: costs are sums in a fixed order, so the searches end alike on every machine.
            cost = found.cost(step)
            gained, least = least - cost, min(cost, least)
            if best is None or gained > 0:
                best = found
            settled = self._is_dear(found) or not self.settings.rate_distortion or gained < _LEAST_GAIN * cost
            if settled or not found.distortion.finite:
                break
            prices = _Prices.after(found)
        return best

    def _is_dear(self, found: Candidate) -> bool:
        return found.fit.bits >= _PRICED_BITS * found.levels.size

    def _best_fit(self, levels: NDArray[np.int32]) -> Fit:
        keys: NDArray[np.int64] | None = None
        if self.settings.row_classes and levels.shape[0] > 1 and levels.shape[1] >= _LEAST_ROW:
            # Sums of integers are exact; the mean's quotient is rounded once: rows class alike on every machine.
            keys = np.searchsorted(_ROW_SCALES, row_magnitudes(levels) / levels.shape[1])
        return best_fit(levels, keys)


def _sample(trellis: Trellis) -> Trellis:
    """Blocks of the weights' elements, as one row."""
    bits, dtype = trellis.weights.bits, trellis.weights.dtype
    blocks = bits[: bits.size // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    stride = -(-bits.size // _SAMPLE) | 1  # odd: where rows are some blocks long, blocks begin everywhere in a row
    return Trellis(Weights(blocks[::stride].ravel(), dtype), trellis.step, 1)


def _gains_of(model: IntegerModel) -> Gains:
    """Gains of the levels a table codes; nothing at high rate, where nearest levels are as good."""
    if model.table is None or model.shift:
        return Gains.nothing()
    return Gains.of_costs(model.table.low + model.centre, model.table.costs / COST_ONE)
