"""Projected gradient descent on two factors: V ≈ C Z, Z sparse.

    minimise  |C Z - V|²   over   Z with at most s values that are not 0,   columns of C of norm 1

a column c of C and its row z of Z at a time (PALM with a block for each: Bolte, Sabach, Teboulle 2014): a gradient step
for z, its length by |c|², and what is too small is put to 0; a gradient step for c, its length by |z|², and back to
norm 1. From one turn to the next fewer values are kept. With a covariance H of a layer's inputs the error is
tr(E H Eᵀ).

It starts from principal components (a truncated SVD), rotated to where coefficients are sparsest.

Source: Kuzmin et al. 2022 (arXiv:2207.11048) says as much as "projected gradient descent", and which factor is sparse;
all else is our reading. The rotation: Zhai et al. 2020 (arXiv:1906.02435), for orthogonal codebooks.

NUMERICS: all is whole numbers in float64, below 2^53: C in 2^-12, Z and V in a part of a step. Sums come out alike in
whatever order they are added, so that files are alike on every machine.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

ONE = 4096.0  # of a codebook's entries: 1
_MOST_FINE = 256.0  # units of a step at most
_MOST_VALUE = 2.0**14  # of vectors, about
_H_ONE = 2.0**22  # of a covariance's greatest entry: one input may be felt a thousand times as much as most
_DAMPING = 0.01  # of the mean of its diagonal, added to all of it
_MOST_WEIGHED = 18  # bits of weighed coefficients, in sums over vectors
_ROTATIONS = 60
_BLOCK = 1 << 18  # elements of vectors at a time, about: two megabytes
MOST_ROTATED = 64  # columns of a codebook that are rotated


class Sparsity(NamedTuple):
    """What is kept of coefficients: the `most` greatest magnitudes; or else those of `least` steps and more."""

    most: int | None = None
    least: float = 0.0


class Problem(NamedTuple):
    """Vectors in whole numbers, and how their error counts.

    vectors: (height, N), in 1/fine of a step.
    covariance: (n, n) of a layer's inputs, whole numbers, where N is a multiple of n; None for the plain error.
    bounds: (n,) of an input's own share in it: a step of 1 / bounds along the slope never goes too far.
    """

    vectors: Matrix
    fine: float
    covariance: Matrix | None = None
    bounds: Matrix | None = None

    @classmethod
    def of(cls, vectors: Matrix) -> "Problem":
        """Take vectors (height, N) in units of a step."""
        reach = float(np.abs(vectors).max(initial=0))
        fine = _MOST_FINE
        while fine > 1 and reach * fine > _MOST_VALUE:
            fine /= 2
        return cls(np.rint(vectors * fine), fine)

    def weighted(self, covariance: Matrix) -> "Problem":
        """Return the problem with errors that count by a covariance (n, n), of any scale.

        With the sums of its rows' magnitudes as a diagonal, it is bounded by that: the metric of the steps.
        """
        whole = in_whole_numbers(covariance)
        if not whole.any():
            return self
        return self._replace(covariance=whole, bounds=np.abs(whole).sum(axis=1))

    def blocks(self) -> list["Problem"]:
        """Return problems of some vectors each, in order, that a cache holds; without a covariance."""
        assert self.covariance is None
        count = max(1, self.vectors.size // _BLOCK)
        parts = np.array_split(self.vectors, min(count, max(1, self.vectors.shape[1])), axis=1)
        return [self._replace(vectors=np.ascontiguousarray(part)) for part in parts]

    def weigh(self, values: Matrix) -> Matrix:
        """Return values (..., N) times the covariance."""
        if self.covariance is None:
            return values
        return (values.reshape(-1, len(self.covariance)) @ self.covariance).reshape(values.shape)

    def step(self, slopes: Matrix) -> Matrix:
        """Return how far coefficients (..., N) go, from their slopes (..., N) without the covariance."""
        if self.covariance is None or self.bounds is None:
            return slopes
        weighed = self.weigh(np.rint(slopes)).reshape(-1, len(self.bounds))
        return (weighed / self.bounds).reshape(slopes.shape)


def in_whole_numbers(covariance: Matrix) -> Matrix:
    """Return a covariance (n, n) scaled to whole numbers, 2^22 the greatest, and damped; a zero one stays.

    NUMERICS: rounding alone leaves directions in which an error counts less than nothing, and levels without bound.
    What is added to the diagonal outweighs it, and steadies inputs that were seen too seldom (as in Frantar et al.
    2022, arXiv:2210.17323).
    """
    peak = float(np.abs(covariance).max(initial=0))
    if not peak:
        return np.zeros_like(covariance)
    whole = np.rint((covariance + covariance.T) * (_H_ONE / 2 / peak))
    size = len(whole)
    return whole + np.rint(_DAMPING * float(np.trace(whole)) / size + math.sqrt(size)) * np.eye(size)


class Pair(NamedTuple):
    """Both factors: codebook (height, rank) in 1/4096, coefficients (rank, N) in 1/fine of a step."""

    codebook: Matrix
    coefficients: Matrix

    def product(self) -> Matrix:
        """Return C Z, (height, N), in 1/fine of a step."""
        return np.rint(self.codebook @ self.coefficients / ONE)


def threshold(coefficients: Matrix, sparsity: Sparsity, fine: float) -> float:
    """Return the magnitude, in 1/fine of a step, from which coefficients are kept."""
    if sparsity.most is None:
        return sparsity.least * fine
    if sparsity.most >= coefficients.size:
        return 0.0
    if sparsity.most <= 0:
        return np.inf
    place = coefficients.size - sparsity.most
    return float(np.partition(np.abs(coefficients).ravel(), place)[place])


def normalised(pair: Pair) -> Pair:
    """Scale columns of the codebook to norm 1, and coefficients by what they had; columns of nothing stay."""
    norms = np.sqrt(np.square(pair.codebook).sum(axis=0)) / ONE
    norms = np.where(norms == 0, 1.0, norms)
    return Pair(np.rint(pair.codebook / norms), np.rint(pair.coefficients * norms[:, None]))


def descend(
    problem: Problem, pair: Pair, sparsity: Sparsity, *, turns: int = 12, ramp: float = 0.5, moves: bool = True
) -> Pair:
    """Return factors after so many turns, from those given.

    Args:
        sparsity: at last; before the share `ramp` of the turns more is kept.
        moves: whether the codebook is learned, too.
    """
    codebook, coefficients = pair.codebook.copy(), pair.coefficients.copy()
    total = coefficients.size
    for turn in range(turns):
        share = min(1.0, turn / (ramp * turns)) if ramp else 1.0
        now = Sparsity(least=sparsity.least * share)
        if sparsity.most is not None:
            now = Sparsity(most=round(total * (1 - share) + sparsity.most * share))
        error = Pair(codebook, coefficients).product() - problem.vectors
        least = threshold(coefficients - problem.step(codebook.T @ error / ONE), now, problem.fine)
        for column, row in zip(codebook.T, coefficients, strict=True):  # views: both are changed in place
            _turn(problem, error, column, row, least, moves)
    return Pair(codebook, coefficients)


def _turn(problem: Problem, error: Matrix, column: Matrix, row: Matrix, least: float, moves: bool) -> None:
    """One step for a column and its row, in place, as for the error (height, N)."""
    stepped = row - problem.step(column @ error / ONE)
    kept = np.rint(np.where(np.abs(stepped) >= least, stepped, 0.0))
    error += np.rint(np.outer(column, kept - row) / ONE)
    row[:] = kept
    weighed = _within(problem.weigh(kept), _MOST_WEIGHED)
    energy = float(weighed @ kept)
    if not moves or energy <= 0:
        return
    better = column - np.rint(error @ weighed * (ONE / energy))
    norm = float(np.sqrt(np.square(better).sum())) / ONE
    if norm > 0:
        error += np.rint(np.outer(better - column, kept) / ONE)
        column[:] = np.rint(better / norm)
        row[:] = np.rint(kept * norm)


def _within(values: Matrix, bits: int) -> Matrix:
    """Values scaled by a power of two and rounded, so that none has more bits; as they are where none has."""
    excess = int(np.frexp(np.abs(values).max(initial=0))[1]) - bits
    return np.rint(np.ldexp(values, -excess)) if excess > 0 else values


# ---- where to start


def principal(problem: Problem, rank: int, *, rotated: bool = True) -> Pair:
    """Start from the greatest principal components of the vectors (a truncated SVD), at most `height` of them.

    rotated: turn them to where coefficients are sparsest; else they stay orthonormal.

    NUMERICS: what LAPACK returns is rounded to 2^-10, far more coarsely than one machine's differs from another's.
    """
    spread = problem.vectors @ problem.vectors.T
    values, vectors = np.linalg.eigh(spread / max(1.0, float(np.abs(spread).max(initial=0))))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    places = np.abs(np.rint(vectors * 1024)).argmax(axis=0)
    vectors = vectors * np.where(np.take_along_axis(vectors, places[None], 0) < 0, -1.0, 1.0)
    codebook = np.rint(vectors * 1024) * (ONE / 1024)
    pair = Pair(codebook, np.rint(codebook.T @ problem.vectors / ONE))
    present = int((values > 1e-9 * max(float(values[0]), 1e-300)).sum()) if values.size else 0
    if not rotated or present < 2 or present > MOST_ROTATED:
        return pair
    turn = sparsest_rotation(pair.coefficients[:present])
    return rotate(Pair(pair.codebook[:, :present], pair.coefficients[:present]), turn)


def rotate(pair: Pair, turn: Matrix) -> Pair:
    """Apply a rotation (rank, rank) of whitened coefficients to factors, whose product stays."""
    scales = np.sqrt(np.square(pair.coefficients).mean(axis=1))
    codebook = (pair.codebook * scales) @ turn.T
    coefficients = turn @ (pair.coefficients / scales[:, None])
    norms = np.sqrt(np.square(codebook).sum(axis=0)) / ONE
    rounded = np.rint(codebook / norms / 4) * 4
    return Pair(rounded, np.rint(coefficients * norms[:, None]))


def sparsest_rotation(coefficients: Matrix, first: Matrix | None = None) -> Matrix:
    """Return the rotation (k, k) that makes coefficients (k, N), each scaled to variance 1, sparsest.

    It is that of the greatest sum of fourth powers, by projected gradient steps from the identity, or from another one.
    """
    whitened = coefficients / np.sqrt(np.square(coefficients).mean(axis=1, keepdims=True))
    turn = np.eye(len(coefficients)) if first is None else first
    for _ in range(_ROTATIONS):
        turned = turn @ whitened
        left, _, right = np.linalg.svd(turned * turned * turned @ whitened.T)  # thirty times as fast as ** 3
        turn = left @ right
    return turn


def with_examples(problem: Problem, pair: Pair, rank: int) -> Pair:
    """Add columns to a codebook up to a rank: some of the greatest vectors, each with norm 1."""
    more = min(rank - pair.codebook.shape[1], problem.vectors.shape[1])
    if more <= 0:
        return pair
    energy = np.square(problem.vectors).sum(axis=0)
    greatest = np.argsort(-energy, kind="stable")
    stride = max(1, min(16, len(greatest) // more))
    chosen = problem.vectors[:, greatest[: stride * more : stride]]
    added = normalised(Pair(chosen, np.zeros((more, problem.vectors.shape[1]))))
    return Pair(
        np.concatenate([pair.codebook, added.codebook], 1), np.concatenate([pair.coefficients, added.coefficients], 0)
    )
