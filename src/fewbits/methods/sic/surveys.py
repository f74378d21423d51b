"""What a search for a budget knows of matrices with curvatures: magnitudes, in the units in which errors count."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.method import Curvature, Survey
from fewbits.methods.blockwise import BlockRates
from fewbits.methods.sic.config import SicConfig
from fewbits.methods.sic.problem import energies, factor_of, row_weights
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.weights import Weights

_TRELLIS_ERROR = 0.8  # of the error of scalar quantisation at as many bits


def step_of(rate_weight: float, divisor: int) -> float:
    """The step of scalar quantisation at which a bit buys as much as everywhere, in the root of a loss."""
    return math.sqrt(rate_weight / divisor / BIT_WORTH)


class Magnitudes(NamedTuple):
    """Magnitudes of a matrix in the units in which errors count.

    sizes: (N,) float64, of runs of elements; counts: (N,), how many elements have each; blocks: of a matrix that may be
    coded on a grid, what is known of that.
    """

    sizes: NDArray[np.float64]
    counts: NDArray[np.float64]
    side_bits: float
    blocks: tuple[BlockRates, ...] = ()

    def bits(self, step: float) -> float:
        """Expected bits at a step of scalar quantisation, coded by columns."""
        bits = 0.5 * np.log2(1 + (4.13 / step * self.sizes) ** 2)  # a Gaussian of entropy log2(4.13 sigma / step)
        return float((bits * self.counts).sum()) + self.side_bits

    def total(self, step: float) -> float:
        """The same, and what errors cost in bits where a bit is worth as much as everywhere."""
        errors = float((np.minimum(self.sizes**2, step * step / 12) * self.counts).sum())
        return self.bits(step) + _TRELLIS_ERROR * errors / (BIT_WORTH * step * step)


@dataclass(frozen=True)
class SicSurvey:
    """Magnitudes of matrices, those of all that lie on no grid as of one, and the survey of all other tensors."""

    matrices: tuple[Magnitudes, ...]
    rate_divisor: int
    others: Survey

    @classmethod
    def of(cls, matrices: Sequence[Magnitudes], rate_divisor: int, others: Survey) -> "SicSurvey":
        """Join matrices: a search asks for bits dozens of times."""
        plain = [each for each in matrices if not each.blocks]
        sizes = np.concatenate([np.zeros(0), *(each.sizes for each in plain)])
        counts = np.concatenate([np.zeros(0), *(each.counts for each in plain)])
        joined = Magnitudes(sizes, counts, sum(each.side_bits for each in plain))
        return cls((joined, *(each for each in matrices if each.blocks)), rate_divisor, others)

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        step = step_of(rate_weight, self.rate_divisor)
        return sum(_expected_bits(each, step) for each in self.matrices) + self.others.bits(rate_weight)


def _expected_bits(matrix: Magnitudes, step: float) -> float:
    """Bits by columns or, where errors and bits together are less, on a grid."""
    slope = BIT_WORTH * step * step
    found = [each.expected(slope) for each in matrix.blocks]
    if found and sum(each.cost for each in found) < slope * matrix.total(step):
        return sum(each.bits for each in found)
    return matrix.bits(step)


def magnitudes_of(weights: Weights, curvature: Curvature, settings: SicConfig) -> Magnitudes:
    """Look at a matrix whose curvature is known."""
    rows, columns = curvature.outputs.size, len(curvature.inputs)
    of_rows, of_columns = energies(weights, rows)
    diagonal = np.diag(factor_of(curvature.inputs))
    weighed = row_weights(curvature, of_rows, diagonal, settings, step=0.0)[0]
    by_row = np.sqrt(weighed * of_rows / columns)
    by_column = diagonal * np.sqrt(of_columns / rows)
    whole = math.sqrt(float(of_rows.mean()) / columns) or 1.0
    # Products of the two, of runs of sorted rows and columns: a few hundred numbers say it.
    row_runs, column_runs = _runs(by_row), _runs(by_column)
    sizes = np.outer(row_runs[0], column_runs[0]).ravel() / whole
    counts = np.outer(row_runs[1], column_runs[1]).ravel()
    return Magnitudes(sizes, counts, 9.0 * columns + 2.5 * rows + 800)


def _runs(values: NDArray[np.float64], most: int = 64) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of runs of the sorted values (N,), and how many each has."""
    parts = np.array_split(np.sort(values), min(most, values.size))
    return np.array([part.mean() for part in parts]), np.array([float(part.size) for part in parts])
