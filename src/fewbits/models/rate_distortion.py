"""Levels rounded with the rate in view, against the very tables that will code them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.integers import IntegerModel
from fewbits.coder.table import COST_ONE
from fewbits.models.fit import Fit
from fewbits.quantize.rounding import Gains
from fewbits.quantize.weights import Scaled


def fitted_levels(
    scaled: Scaled, levels: NDArray[np.int32], fit_of: Callable[[NDArray[np.int32]], Fit]
) -> tuple[NDArray[np.int32], Fit]:
    """Fit models to nearest levels (R, n), round again against them, and fit once more."""
    fit = fit_of(levels)
    gains = [gains_of(model) for model in fit.models.models]
    levels = scaled.rate_distortion_round(levels, gains, fit.classes)
    return levels, fit_of(levels)


def gains_of(model: IntegerModel) -> Gains:
    """Gains of the levels a table codes; nothing at high rate, where nearest levels are as good."""
    if model.table is None or model.shift:
        return Gains.nothing()
    return Gains.of_costs(model.table.low + model.centre, model.table.costs / COST_ONE)
