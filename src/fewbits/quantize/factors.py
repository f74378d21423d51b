"""Two factors in whole numbers: what `qswd` writes, and what their product is.

    V = step · C' Z,    C' = C · diag(2^exponent)

with whole numbers C (codebook) and Z (coefficients): the product is exact in whatever order it is summed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.quantize.tiling import Tiling

MOST_EXPONENT = 30  # WIRE
MOST_SUM = 2.0**52  # WIRE: no sum of magnitudes reaches it, so that float64 holds every partial sum exactly


class Factors(NamedTuple):
    """The factors of one tensor.

    tiling: which vectors of the tensor's matrix the product is.
    step: float32 value above 0.
    codebook: (height, rank) int64.
    exponents: (rank,) int64, 0 … 30.
    coefficients: (rank, N) int64; with `one_hot` (N,), of each vector its column of the codebook.
    one_hot: vector quantisation: of a vector's coefficients one is 1, the others 0.
    """

    tiling: Tiling
    step: float
    codebook: NDArray[np.int64]
    exponents: NDArray[np.int64]
    coefficients: NDArray[np.int64]
    one_hot: bool = False

    @property
    def rank(self) -> int:
        """Columns of the codebook."""
        return self.codebook.shape[1]

    @property
    def is_scalar(self) -> bool:
        """Whether the codebook is the number 1: the coefficients alone are the tensor, as `ecsq` has it."""
        return self.codebook.shape == (1, 1) and not self.one_hot and int(self.codebook[0, 0]) == 1

    def scaled_codebook(self) -> NDArray[np.float64]:
        """Return C', (height, rank): whole numbers."""
        return np.ldexp(self.codebook.astype(np.float64), self.exponents)

    def is_exact(self) -> bool:
        """Whether every sum is exact in float64."""
        reach = np.abs(self.scaled_codebook())
        if self.one_hot:
            return float(reach.max(initial=0)) < MOST_SUM
        # NUMERICS: below 2^53 these sums are exact; one that is not is above 2^52, however it rounds.
        peaks = np.abs(self.coefficients.astype(np.float64)).max(axis=1, initial=0)
        return float((reach @ peaks).max(initial=0)) < MOST_SUM

    def sums(self) -> NDArray[np.float64]:
        """Return C' Z, (height, N): whole numbers."""
        scaled = self.scaled_codebook()
        if self.one_hot:
            return scaled[:, self.coefficients]
        return scaled @ self.coefficients.astype(np.float64)

    def values(self, rows: int, columns: int) -> NDArray[np.float32]:
        """Return the tensor's matrix (rows, columns).

        Law: exact on every machine: each sum to the nearest float32, then times the step in float32.
        """
        # WIRE
        sums = self.tiling.matrix(self.sums(), rows, columns).astype(np.float32)
        with np.errstate(over="ignore", under="ignore"):  # what is not finite is the caller's to refuse
            return sums * np.float32(self.step)
