"""Which tiling and rank a tensor's factors have: of those tried, the best by error and measured bits together."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fewbits.methods.qswd.clusters import clustered
from fewbits.methods.qswd.config import QswdConfig
from fewbits.methods.qswd.descent import (
    MOST_ROTATED,
    ONE,
    Matrix,
    Pair,
    Problem,
    Sparsity,
    descend,
    in_whole_numbers,
    principal,
    with_examples,
)
from fewbits.methods.qswd.levels import DEAD_ZONE, quantised
from fewbits.methods.qswd.payload import MOST_WIDENING, Coded, coded, fit_coefficients
from fewbits.models.fit import Fit
from fewbits.quantize.factors import Factors
from fewbits.quantize.rounding import BIT_WORTH, ordered_sum
from fewbits.quantize.tiling import Tiling

SCALAR = Tiling("rows", 1)
_MOST_LEARNED = 1 << 20  # elements of vectors that a codebook is learned from, about
_MOST_HEIGHT = 1024  # of vectors whose principal components are found
_FEW_TURNS, _CLUSTER_TURNS = 3, 20  # of k-means: to choose its size, and then
_CLUSTER_HEIGHTS, _CLUSTER_RANKS = (2, 4, 8, 16), (4, 16, 64, 256, 1024)


class Tensor2d(NamedTuple):
    """A tensor as what is factored.

    matrix: (R, n) float64, in units of the step. kernel: consecutive columns that are one kernel, 1 for none.
    covariance: of the layer's inputs, (n, n), or None.
    """

    matrix: Matrix
    step: float
    kernel: int
    covariance: Matrix | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape[0], self.matrix.shape[1]


class Candidate(NamedTuple):
    """Factors, how they are written, and what they cost: squared steps of error, and bits as these are worth."""

    factors: Factors
    coded: Coded
    cost: float


def chosen(tensor: Tensor2d, config: QswdConfig) -> Candidate | None:
    """Return the best factors of a tensor; None where none of those tried can be written."""
    return _clusters(tensor, config) if config.family == "vq" else _best(tensor, _tried(tensor, config))


def _best(tensor: Tensor2d, tried: Iterable[tuple[Factors, Fit | None]]) -> Candidate | None:
    best: Candidate | None = None
    for factors, fit in tried:
        if not factors.is_exact():
            continue
        written = coded(factors, *tensor.shape, fit)
        cost = _error(tensor, factors) + BIT_WORTH * written.bits
        if best is None or cost < best.cost:
            best = Candidate(factors, written, cost)
    return best


def _tried(tensor: Tensor2d, config: QswdConfig) -> Iterator[tuple[Factors, Fit | None]]:
    rows, columns = tensor.shape
    if config.family == "svd":
        tiling = _whole(rows, columns)
        problem = Problem.of(tiling.vectors(tensor.matrix))
        pair = principal(problem, tiling.height, rotated=False)
        for rank in config.ranks or _halvings(tiling.height):
            if rank <= tiling.height:
                part = Pair(pair.codebook[:, :rank], pair.coefficients[:rank])
                yield quantised(problem, part, tiling, tensor.step, tensor.shape)
        return
    scalar = _problem(tensor, SCALAR)
    alone = Pair(np.full((1, 1), ONE), scalar.vectors)
    if not config.tilings and not config.ranks:
        yield quantised(scalar, alone, SCALAR, tensor.step, tensor.shape)
    least = _estimate(alone.coefficients, scalar.fine)
    for tiling in _asked(config) or _tilings(tensor):
        if not tiling.fits(rows, columns) or tiling.height > _MOST_HEIGHT:
            continue
        problem = _problem(tensor, tiling)
        for rank in config.ranks or _ranks(problem, tiling):
            start = with_examples(problem, principal(problem, min(rank, tiling.height)), rank)
            # An entry of a codebook takes some six bits. What costs more than the scalar one by then is not learned.
            side = 6 * BIT_WORTH * start.codebook.size
            if not config.tilings and _estimate(start.coefficients, problem.fine) + side > least:
                continue
            if start.codebook.shape[1] <= MOST_WIDENING * tiling.height:
                yield quantised(problem, _learned(problem, start, config), tiling, tensor.step, tensor.shape)


def _clusters(tensor: Tensor2d, config: QswdConfig) -> Candidate | None:
    """K-means of the size that is best after a few turns of each that is tried."""
    tilings = [tiling for tiling in _asked(config) or _cluster_tilings(tensor) if tiling.fits(*tensor.shape)]
    problems = {tiling: Problem.of(tiling.vectors(tensor.matrix)) for tiling in tilings}
    ranks = config.ranks or _CLUSTER_RANKS
    sizes = [(tiling, rank) for tiling in tilings for rank in ranks if rank <= problems[tiling].vectors.shape[1] // 2]

    def after(turns: int, size: tuple[Tiling, int]) -> Candidate | None:
        tiling, rank = size
        return _best(tensor, [(clustered(problems[tiling], tiling, rank, tensor.step, turns), None)])

    if len(sizes) > 1:
        found = [(candidate.cost, size) for size in sizes if (candidate := after(_FEW_TURNS, size)) is not None]
        sizes = [min(found, key=lambda each: each[0])[1]] if found else []
    return after(_CLUSTER_TURNS, sizes[0]) if sizes else None


def _problem(tensor: Tensor2d, tiling: Tiling) -> Problem:
    problem = Problem.of(tiling.vectors(tensor.matrix))
    if tensor.covariance is None or tiling.side == "columns":
        return problem
    return problem.weighted(tensor.covariance)


def _learned(problem: Problem, start: Pair, config: QswdConfig) -> Pair:
    """Descend; a codebook for many vectors is learned from some of them.

    Many components of many vectors stay: descent takes minutes there, and comes out within one per cent of their cost.
    """
    sparsity = Sparsity(least=DEAD_ZONE)
    stride = problem.vectors.size // _MOST_LEARNED
    if stride < 2 or problem.covariance is not None:
        return descend(problem, start, sparsity, turns=config.turns)
    if start.codebook.shape[1] > MOST_ROTATED:
        return start
    some = problem._replace(vectors=np.ascontiguousarray(problem.vectors[:, ::stride]))
    first = Pair(start.codebook, np.ascontiguousarray(start.coefficients[:, ::stride]))
    found = descend(some, first, sparsity, turns=config.turns)
    coefficients: list[Matrix] = []
    for block in problem.blocks():  # where the codebook stays vectors do not depend on one another
        first = Pair(found.codebook, np.rint(found.codebook.T @ block.vectors / ONE))
        coefficients.append(descend(block, first, sparsity, turns=2, ramp=0, moves=False).coefficients)
    return Pair(found.codebook, np.concatenate(coefficients, axis=1))


def _asked(config: QswdConfig) -> list[Tiling]:
    return [Tiling(side, height) for side, height in config.tilings]


def _tilings(tensor: Tensor2d) -> list[Tiling]:
    """Those that may suit a tensor: kernels, blocks of outputs, the whole matrix."""
    rows, columns = tensor.shape
    found = [Tiling("columns", tensor.kernel)] if 1 < tensor.kernel < columns else []
    found += [Tiling("rows", height) for height in (16,) if rows % height == 0 and rows > height]
    return [*found, _whole(rows, columns)]


def _whole(rows: int, columns: int) -> Tiling:
    """The tiling of a low rank: a matrix is one block, the lesser side its height."""
    return Tiling("rows", rows) if rows <= columns else Tiling("columns", columns)


def _cluster_tilings(tensor: Tensor2d) -> list[Tiling]:
    rows, columns = tensor.shape
    kernels = [Tiling("columns", tensor.kernel)] if 1 < tensor.kernel < columns else []
    return kernels + [Tiling("rows", height) for height in _CLUSTER_HEIGHTS if rows % height == 0]


def _ranks(problem: Problem, tiling: Tiling) -> list[int]:
    """As many as there are components above the noise of quantisation; and, of small blocks, twice as many."""
    height, count = problem.vectors.shape
    spread = problem.vectors @ problem.vectors.T / problem.fine**2
    above = int((np.linalg.eigvalsh(spread) > count / 6).sum())
    found = [max(1, above)]
    if height <= 32 and count >= 16 * height:
        found.append(MOST_WIDENING * height)
    return found


def _halvings(height: int) -> list[int]:
    """height, and down by factors of about the root of two."""
    return sorted({max(1, round(height * 2 ** (-i / 2))) for i in range(2 * math.ceil(math.log2(height + 1)) + 1)})


def _estimate(coefficients: Matrix, fine: float) -> float:
    """About what coefficients (rank, N) of orthonormal columns cost: squared steps, and bits as these are worth.

    NUMERICS: fine is a power of two, so that this sum of squares is exact; costs of models are whole numbers.
    """
    levels = np.rint(coefficients / fine)
    levels[np.abs(coefficients) < DEAD_ZONE * fine] = 0
    error = float(np.square(coefficients / fine - levels).sum())
    return error + BIT_WORTH * fit_coefficients(levels.astype(np.int64)).bits


def _error(tensor: Tensor2d, factors: Factors) -> float:
    """Squared steps of error, those of inputs by their covariance, the mean of whose diagonal counts 1."""
    values = factors.tiling.matrix(factors.sums(), *tensor.shape) * (factors.step / tensor.step)
    error = values - tensor.matrix
    if tensor.covariance is None:
        return ordered_sum(np.square(error).ravel())
    # NUMERICS: sixteenths of a step, and whole numbers for a covariance: what is felt of a row is exact.
    sixteenths = np.rint(16 * error)
    whole = in_whole_numbers(tensor.covariance)
    total = ordered_sum((sixteenths @ whole * sixteenths).ravel())
    return total / 256 / max(float(np.trace(whole)) / len(whole), 1e-300)
