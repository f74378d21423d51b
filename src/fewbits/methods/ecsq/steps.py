"""The step of each tensor, or of each run of rows where what errors cost is known by row."""

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import TensorSpec
from fewbits.plan import SMALL, TILE, tiles
from fewbits.quantize.rounding import equal_slope_step
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Weights

Sensitivity = float | NDArray[np.float64] | None  # of a tensor, or of its rows (R,); None: by its size

_ALIKE = 1.5  # rows of one run differ in sensitivity by at most this factor, unless they have fewer elements than a run


def spans_of(spec: TensorSpec, sensitivity: Sensitivity) -> list[tuple[int, int]]:
    """Ranges of elements that a tensor is cut into: tiles, and where rows differ runs of rows that are alike.

    Runs have SMALL elements or more, where the tensor has: a part of its own costs about a hundred bytes.
    """
    row_length = spec.num_elements // max(1, spec.num_rows)
    if not isinstance(sensitivity, np.ndarray) or not 0 < row_length <= TILE:
        return tiles(spec)
    least = -(-SMALL // row_length)
    spans: list[tuple[int, int]] = []
    for first, last in tiles(spec):
        start, stop = first // row_length, last // row_length
        while start < stop:
            here = sensitivity[start:stop]
            low, high = np.minimum.accumulate(here), np.maximum.accumulate(here)
            alike = int(np.searchsorted(high / low > _ALIKE, True))
            end = min(start + max(alike, least), stop)
            if stop - end < least:
                end = stop
            spans.append((start * row_length, end * row_length))
            start = end
    return spans


def sensitivity_in(spec: TensorSpec, sensitivity: Sensitivity, span: tuple[int, int]) -> float | None:
    """The sensitivity of a range of elements: the mean of its rows' own where they are known."""
    if not isinstance(sensitivity, np.ndarray):
        return sensitivity
    if spec.num_elements == 0:
        return None
    row_length = spec.num_elements // spec.num_rows
    return float(sensitivity[span[0] // row_length : -(-span[1] // row_length)].mean())


def step_of(spec: TensorSpec, weights: Weights, sensitivity: float | None, rate_weight: float, divisor: int) -> float:
    """The step at equal slope of a tensor, or of rows of it with a sensitivity of their own."""
    return equal_slope_step(weights.energy_at_stake(), spec.num_elements, rate_weight, divisor, sensitivity)


def surveys_of(
    spec: TensorSpec, weights: Weights, sensitivity: Sensitivity
) -> list[tuple[MagnitudeSurvey, float | None]]:
    """Magnitudes of a tensor, run by run where rows differ, with sensitivities that belong to their own energies."""
    if not isinstance(sensitivity, np.ndarray) or spec.num_elements < SMALL:
        return [(weights.survey(), sensitivity_in(spec, sensitivity, (0, spec.num_elements)))]
    found: list[tuple[MagnitudeSurvey, float | None]] = []
    energy = weights.energy_at_stake()
    for span in spans_of(spec, sensitivity):
        survey = weights.part(*span).survey()
        own = sensitivity_in(spec, sensitivity, span)
        share = survey.energy / energy if energy > 0 else 0.0
        found.append((survey, own * share if own is not None and share > 0 else None))
    return found
