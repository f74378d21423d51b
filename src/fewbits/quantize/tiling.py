"""How a tensor's matrix is cut into the vectors that a codebook is for.

A tensor is the matrix (R, n) of its rows. With the side "rows" a vector is `height` rows of one column, and the layer
is a sparse product, then a small dense one for each block of outputs; with "columns" it is `height` columns of one row,
and the small product comes first. Both are V = C Z: vectors (height, N), codebook (height, rank), coefficients
(rank, N).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDES = ("rows", "columns")  # WIRE: by their codes


class Tiling(NamedTuple):
    """A side and a height, which divides the rows or the columns."""

    side: str
    height: int

    def fits(self, rows: int, columns: int) -> bool:
        """Whether a matrix of this size can be cut so."""
        along = rows if self.side == "rows" else columns
        return 0 < self.height <= along and along % self.height == 0

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many vectors there are: along the rows and along the columns of the matrix."""
        if self.side == "rows":
            return rows // self.height, columns
        return rows, columns // self.height

    def vectors(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the vectors of a matrix (R, n), (height, N)."""
        if self.side == "rows":
            blocks = matrix.reshape(-1, self.height, matrix.shape[1]).swapaxes(0, 1)
        else:
            blocks = matrix.reshape(matrix.shape[0], -1, self.height).transpose(2, 0, 1)
        return np.ascontiguousarray(blocks).reshape(self.height, -1)

    def matrix(self, vectors: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
        """Undo `vectors`."""
        along, across = self.grid(rows, columns)
        blocks = vectors.reshape(self.height, along, across)
        order = (1, 0, 2) if self.side == "rows" else (1, 2, 0)
        return np.ascontiguousarray(blocks.transpose(order)).reshape(rows, columns)
