"""A matrix in the units in which all its errors count alike, column after column."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbits.method import Curvature
from fewbits.methods.sic.config import SicConfig
from fewbits.methods.sic.payload import MOST_SCALE_CODE, SCALE_UNIT, scales_of
from fewbits.methods.sic.rows import RowMetric
from fewbits.quantize.columns import MOST_PATHS, RowFeedback, segment_rows
from fewbits.quantize.weights import Weights

_TRIANGLE = 256  # columns between two products, while a covariance is factored
_PATH = 192  # elements of a path in a column at least: what a path has chosen at a column's end costs some bits
_SAMPLE = 2048  # rows that prices are found on
_SOME_ROWS = 1024  # that are looked at together
_ROUGH = 4  # places of rows an octave, where what they weigh is not known yet


@dataclass
class Problem:
    """A matrix (R, n) in the units in which all its errors count alike, column after column.

    columns: (n, R) float32, W diag(sqrt weights) U, transposed, until they are taken; factor: (n, n) float64, upper
    triangular, with factor factorᵀ = inputs; row_scale_codes: (R,), of 1 / sqrt(weights), what rows weigh: outputs, or,
    where their errors meet, what metric says; num_paths: of the trellis, 0 without one.
    """

    columns: NDArray[np.float32]
    factor: NDArray[np.float64]
    row_scale_codes: NDArray[np.int64]
    num_paths: int
    metric: RowMetric | None

    @classmethod
    def of(cls, weights: Weights, curvature: Curvature, settings: SicConfig, step: float) -> "Problem":
        """Take a matrix's weights, the curvature's outputs being of its rows.

        Args:
            step: of scalar quantisation, in the root of the units in which errors count.
        """
        rows = curvature.outputs.size
        factor = factor_of(curvature.inputs)
        if not settings.feedback:  # errors of columns as if they did not meet
            factor = np.diag(np.sqrt(np.diag(curvature.inputs)))
        paths = _paths_of(rows) if settings.trellis else 0
        of_rows = energies(weights, rows)[0] if curvature.couplings is not None else np.zeros(rows)
        weighed, metric = row_weights(curvature, of_rows, np.diag(factor), settings, step)
        # A quarter of an octave: finer, a row's own scale would not be worth what it takes to say it.
        codes = 2 * np.rint(np.log2(weighed) * (-SCALE_UNIT / 4)).astype(np.int64)
        codes = np.clip(codes, -MOST_SCALE_CODE, MOST_SCALE_CODE)
        # NUMERICS: in a unit that is a power of 2, so that no factor leaves float32's range before the product does.
        unit = 2.0 ** np.rint(np.log2(np.diag(factor).max()))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is out of reach
            shares = np.divide(factor, unit, out=np.empty(factor.shape, np.float32), casting="same_kind")
            columns = np.empty((len(factor), rows), np.float32)
            for start in range(0, rows, _SOME_ROWS):
                stop = min(start + _SOME_ROWS, rows)
                part = weights.part(start * len(factor), stop * len(factor)).values() * unit
                matrix = part.astype(np.float32).reshape(-1, len(factor)) / scales_of(codes[start:stop])[:, None]
                columns[:, start:stop] = (matrix @ shares).T
        return cls(columns, factor, codes, paths, metric)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of columns, and of rows."""
        return len(self.factor), self.row_scale_codes.size

    def sampled(self) -> "Problem":
        """A copy of some of the rows, evenly spread."""
        chosen = slice(None, None, -(-self.shape[1] // _SAMPLE))
        metric = self.metric and self.metric.some(chosen)
        codes = self.row_scale_codes[chosen]
        paths = self.num_paths and _paths_of(codes.size)
        return Problem(self.columns[:, chosen].copy(), self.factor, codes, paths, metric)

    def feedback(self, order: NDArray[np.integer]) -> RowFeedback:
        """Return what is fed back down a column, rows being coded in this order."""
        if self.metric is None:
            return RowFeedback.none(order.size)
        return self.metric.feedback(order, segment_rows(self.num_paths), scales_of(self.row_scale_codes))

    def cost(self, errors: NDArray[np.float64]) -> float:
        """Return what errors (R, n) of the weights cost."""
        felt = errors @ self.factor
        if self.metric is not None:
            return self.metric.cost(felt)
        return float(np.square(felt / scales_of(self.row_scale_codes)[:, None]).sum())

    def take(self) -> NDArray[np.float32]:
        """Return the columns, (n, R), which may be as large as a model: they are the caller's to overwrite."""
        columns, self.columns = self.columns, np.zeros((0, 0), np.float32)
        return columns


def _paths_of(rows: int) -> int:
    """How many paths a trellis has down columns of so many rows."""
    return 1 << max(0, min(MOST_PATHS, rows // _PATH).bit_length() - 1)


def row_weights(
    curvature: Curvature, of_rows: NDArray[np.float64], diagonal: NDArray[np.float64], settings: SicConfig, step: float
) -> tuple[NDArray[np.float64], RowMetric | None]:
    """Return what rows weigh (R,), and how their errors meet, where that is fed back.

    Args:
        curvature: of the matrix.
        of_rows: sums of squares of the weights, (R,).
        diagonal: of the inputs' factor, (n,).
        settings: what may be done.
        step: of scalar quantisation, in the root of the units in which errors count.
    """
    outputs, count = curvature.outputs, curvature.outputs.size
    if not settings.row_weights:
        return np.full(count, outputs.mean()), None
    segment = segment_rows(_paths_of(count) if settings.trellis else 0)
    energy = float(of_rows.mean()) / diagonal.size
    if not settings.row_feedback or curvature.couplings is None or count < 2 * segment or not energy:
        return outputs, None
    metric = RowMetric.of(curvature, float(np.exp(2 * np.log(diagonal).mean())), energy, step)
    # Rows are coded by their magnitudes; what they weigh is in those, and depends on which come after.
    magnitudes = np.log2(np.maximum(of_rows * outputs, 1e-300)) / 2
    return metric.weights(np.argsort(np.rint(_ROUGH * magnitudes), kind="stable"), segment), metric


def energies(weights: Weights, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sums of squares of a matrix by row (R,) and by column (n,), some rows at a time."""
    width = weights.bits.size // rows
    of_rows, of_columns = np.zeros(rows), np.zeros(width)
    for start in range(0, rows, _SOME_ROWS):
        part = weights.part(start * width, min(start + _SOME_ROWS, rows) * width).values().reshape(-1, width)
        np.square(part, out=part)
        of_rows[start : start + _SOME_ROWS] = part.sum(1)
        of_columns += part.sum(0)
    return of_rows, of_columns


def factor_of(covariance: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return U, upper triangular, with U Uᵀ the covariance (n, n).

    What is not positive definite, for lack of inputs or by rounding, is damped until it is.
    """
    mean = float(np.trace(covariance)) / len(covariance)
    damping = 0.0
    while True:
        flipped = np.array(covariance[::-1, ::-1], np.float64)
        flipped[np.diag_indices_from(flipped)] += damping * mean
        try:
            _factor_in_place(flipped)
            return flipped[::-1, ::-1]
        except np.linalg.LinAlgError:
            damping = max(10 * damping, 1e-6)


def _factor_in_place(matrix: NDArray[np.float64]) -> None:
    """Put L, lower triangular, in the place of L Lᵀ (n, n), some columns at a time: of a large one there is no other.

    Raises:
        LinAlgError: it is not positive definite.
    """
    size = len(matrix)
    for start in range(0, size, _TRIANGLE):
        stop = min(start + _TRIANGLE, size)
        corner = np.linalg.cholesky(matrix[start:stop, start:stop])
        matrix[start:stop, start:] = 0
        matrix[start:stop, start:stop] = corner
        below = matrix[stop:, start:stop]
        below[:] = below @ np.linalg.inv(corner).T
        for first in range(0, len(below), _TRIANGLE):
            some = below[first : first + _TRIANGLE]
            matrix[stop + first : stop + first + len(some), stop:] -= some @ below.T
