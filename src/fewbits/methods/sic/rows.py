"""Rows whose errors meet at what comes after a layer: what each one weighs, and what is fed back down a column.

Errors ε of a column's rows cost εᵀ H ε, H = diag(alone) + F Fᵀ. Rows are coded a segment at a time. Once some are,
their errors have added up to z = Fᵀ ε, and the rows to come, if they could have any errors, would best have -T z; so
that is what they are coded towards. What a row weighs is what its error still costs when all later ones have answered.

Source: YAQA (Tseng et al. 2025, arXiv:2505.22988), feedback by Kronecker factors on both sides; differs: H is of low
rank beside its diagonal, so that it takes a share of the weights' memory, and rows are taken in segments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewbits.method import Curvature
from fewbits.quantize.columns import RowFeedback

# Of the mean of what rows weigh: samples say less of how they meet than of how much each matters. It is a part of what
# rows weigh as well: not all is answered that could be, and without it MiniLM's drift is 3 to 8 % greater.
_DAMPING = 0.1
_DOUBT = 3.0  # errors of steps, beside the energy of weights: what cannot be said in the bits there are is not worth it


@dataclass(frozen=True)
class RowMetric:
    """What errors of rows cost together: alone (R,) float64, above 0; felt (R, K) float64, F.

    doubt: added to alone for what is fed back, and for nothing else.
    """

    alone: NDArray[np.float64]
    felt: NDArray[np.float64]
    doubt: float

    @classmethod
    def of(cls, curvature: Curvature, columns: float, energy: float, step: float) -> "RowMetric":
        """Take a curvature with couplings.

        Args:
            columns: what an error in a column costs once the columns after it have answered, the geometric mean.
            energy: mean square of the weights.
            step: of scalar quantisation, in the root of the units in which errors count.
        """
        assert curvature.couplings is not None
        outputs = curvature.outputs
        felt = np.sqrt(outputs)[:, None] * curvature.couplings.astype(np.float64)
        # PAPER: D / sigma² beside the curvature, as in reverse water-filling: where errors of steps are as large as the
        # weights are, little can be answered. Without it low rates would lose by the feedback.
        doubt = _DOUBT * step * step / 12 / (energy * columns)
        alone = np.maximum(outputs - np.square(felt).sum(1), 0) + _DAMPING * outputs.mean()
        return cls(alone, felt, doubt)

    def some(self, chosen: slice) -> "RowMetric":
        """The same of some of the rows."""
        return RowMetric(self.alone[chosen], self.felt[chosen], self.doubt)

    def weights(self, order: NDArray[np.integer], segment: int) -> NDArray[np.float64]:
        """Return what the rows weigh, (R,), if they are coded in an order, in segments of so many."""
        return self._answered(order, segment)[0]

    def feedback(self, order: NDArray[np.integer], segment: int, scales: NDArray[np.floating]) -> RowFeedback:
        """Return what is fed back of rows in an order, in segments of so many, errors being in units of scales (R,)."""
        scales = scales.astype(np.float64)[order]
        shares = self._answered(order, segment)[1] / scales
        return RowFeedback((self.felt[order] * scales[:, None]).astype(np.float32), shares.astype(np.float32))

    def cost(self, errors: NDArray[np.floating]) -> float:
        """Return what errors (R, n) cost, whose columns do not meet."""
        each = np.square(errors, dtype=np.float64).sum(1) @ self.alone
        return float(each + np.square(self.felt.T @ errors).sum())

    def _answered(self, order: NDArray[np.integer], segment: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What rows weigh (R,), in their places, and T transposed (K, R), in order."""
        count, num_sums = self.felt.shape
        weights, shares = np.empty(count), np.empty((num_sums, count))
        answer = np.eye(num_sums)  # I + Fᵀ diag(alone + doubt)⁻¹ F of the rows from here on
        for start in range((count - 1) // segment * segment, -1, -segment):
            rows = order[start : start + segment]
            felt, alone = self.felt[rows], self.alone[rows]
            weights[rows] = alone + (felt.T * np.linalg.solve(answer, felt.T)).sum(0)
            alone = alone + self.doubt
            answer += felt.T @ (felt / alone[:, None])
            shares[:, start : start + segment] = np.linalg.solve(answer, felt.T / alone)
        return weights, shares
