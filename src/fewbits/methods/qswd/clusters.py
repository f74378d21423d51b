"""Vector quantisation: each vector by the nearest of a few, found by k-means."""

import numpy as np
from numpy.typing import NDArray

from fewbits.methods.qswd.descent import Matrix, Problem
from fewbits.quantize.factors import Factors
from fewbits.quantize.tiling import Tiling

_MOST_SEEN = 1 << 15  # vectors that centres are found from
_BLOCK = 1 << 16  # distances that are held at a time, half a megabyte: a cache's, row by row
_STEP_BITS = 4  # of a centre's entries below the step


def nearest(vectors: Matrix, centres: Matrix) -> NDArray[np.int64]:
    """Return, for each vector (height, N), the column of centres (height, k) that is nearest, the first of equals.

    NUMERICS: of whole numbers up to 2^15 the distances are whole numbers, and exact.
    """
    half = np.square(centres).sum(axis=0) / 2
    count = -(-vectors.shape[1] * centres.shape[1] // _BLOCK)
    blocks = np.array_split(vectors.T, max(1, min(count, vectors.shape[1])))
    return np.concatenate([(half - block @ centres).argmin(axis=1) for block in blocks])


def centres_of(problem: Problem, rank: int, turns: int) -> Matrix:
    """Return centres (height, k) of the vectors, by Lloyd's turns from vectors spread by their energy."""
    seen = problem.vectors[:, :: max(1, problem.vectors.shape[1] // _MOST_SEEN)]
    order = np.argsort(np.square(seen).sum(axis=0), kind="stable")
    centres = seen[:, order[np.linspace(0, len(order) - 1, rank).astype(np.int64)]]
    return lloyd(seen, centres, turns)


def lloyd(vectors: Matrix, centres: Matrix, turns: int) -> Matrix:
    """Return centres (height, k) after turns of k-means; a centre of nothing moves to the vector that is worst off."""
    for _ in range(turns):
        owner = nearest(vectors, centres)
        counts = np.bincount(owner, minlength=centres.shape[1])
        sums = np.stack([np.bincount(owner, row, centres.shape[1]) for row in vectors])
        moved = np.where(counts, np.rint(sums / np.maximum(counts, 1)), centres)
        empty = np.flatnonzero(counts == 0)
        if empty.size:
            far = np.argsort(-np.square(vectors - moved[:, owner]).sum(axis=0), kind="stable")[: empty.size]
            moved[:, empty[: far.size]] = vectors[:, far]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def clustered(problem: Problem, tiling: Tiling, rank: int, step: float, turns: int) -> Factors:
    """Return vector quantisation as factors, after turns of k-means.

    Centres are on a grid of 1/16 of a step, or as coarse as the vectors are.
    """
    centres = centres_of(problem, rank, turns)
    finer = min(float(1 << _STEP_BITS), problem.fine)
    codebook = np.rint(centres * (finer / problem.fine))
    owner = nearest(problem.vectors, np.rint(codebook * (problem.fine / finer)))
    used, indices = np.unique(owner, return_inverse=True)
    exponents = np.zeros(used.size, np.int64)
    whole = np.ascontiguousarray(codebook[:, used]).astype(np.int64)
    return Factors(tiling, float(np.float32(step / finer)), whole, exponents, indices.reshape(-1), True)
