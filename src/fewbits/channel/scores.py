"""Scores of candidates: log q/p of a Gaussian block, up to a constant, of very many candidates at once.

A block has a Gaussian target q against a standard normal proposal p, so that log q/p of a candidate z is a constant
plus the sum over d of (a[d] z[d] + b[d]) z[d]. With target mean m and standard deviation s: a = (1 - 1/s²) / 2 and
b = m/s².

NUMERICS: scores are float32 throughout. A sum starts at 0, and each d adds ((a z) + b) z, every operation rounded for
itself: a score is the same on every machine, and so is the choice that depends on it. What is written out here in NumPy
is the specification; `fewbits._core` gives the same bits, many times faster.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewbits.channel.arrivals import poisson_times, sorted_times
from fewbits.channel.distributions import Floats, Gaussian
from fewbits.channel.problem import Proposal, Ratios, Target
from fewbits.channel.simulator import Message, search
from fewbits.errors import InvalidArgument
from fewbits.native import core
from fewbits.random import CANDIDATES, PRIVATE, Stream, lattice, log, normals, uniforms, words

Kind = Literal["philox", "lattice"]

_TILE = 1 << 14  # candidates that NumPy makes at a time


def blocks_of(target: Target, proposal: Proposal, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return a and b, (num_blocks, dim) float32, of whole Gaussians against a standard normal proposal; None of others.

    Args:
        target, proposal: that fit each other (`problem_of`), of `dim` dimensions.
    """
    if not isinstance(target, Gaussian) or not isinstance(proposal, Gaussian):
        return None
    if not (np.isinf(target.low).all() and (proposal.mean == 0).all() and (proposal.sd == 1).all()):
        return None
    shape = len(target.low), dim
    precision = np.broadcast_to(1 / target.sd**2, shape)
    return ((1 - precision) / 2).astype(np.float32), (np.broadcast_to(target.mean, shape) * precision).astype(
        np.float32
    )


def candidate_table(seed: int, number: int, num_candidates: int, dim: int, kind: Kind) -> NDArray[np.float32]:
    """Return the candidates 0 … num_candidates - 1 of one stream: (dim, num_candidates) float32.

    Args:
        seed, number: of the stream (fewbits.random.Stream), its purpose CANDIDATES.
        num_candidates: at most 2^32 for a lattice.
        dim: numbers of a candidate; a lattice has at most 4,096.
        kind: "philox", words that are independent; "lattice", those of `fewbits.random.lattice`.

    Raises:
        InvalidArgument: another kind, or a lattice of too many dimensions.
    """
    if kind not in ("philox", "lattice"):
        raise InvalidArgument(f"candidates are 'philox' or 'lattice', not {kind!r}.")
    native = core()
    table = np.empty((dim, num_candidates), np.float32)
    if kind == "philox" and native is not None:
        native.fill_candidates(seed, number, 0, num_candidates, table)
        return table
    stream = Stream(seed, CANDIDATES, number)
    for start in range(0, num_candidates, _TILE):
        items = np.arange(start, min(start + _TILE, num_candidates), dtype=np.uint64)
        found = stream.words(items, dim) if kind == "philox" else lattice(stream, items, dim)
        table[:, start : start + _TILE] = normals(found).T
    return table


def scores_of_table(table: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores of every candidate of a table for every block: (num_blocks, num_candidates) float32.

    Args:
        table: (dim, num_candidates) float32.
        a, b: (num_blocks, dim) float32.

    Raises:
        InvalidArgument: the arrays' shapes do not fit.
    """
    a, b = _targets(a, b)
    table = _table(table, a)
    scores = np.zeros((len(a), table.shape[1]), np.float32)
    native = core()
    if native is not None:
        numbers = np.zeros(len(a), np.uint32)  # of streams that nothing is asked of
        native.fill_scores(0, numbers, a, b, table, 0, table.shape[1], scores)
        return scores
    for d, z in enumerate(table):
        scores += (a[:, d, None] * z + b[:, d, None]) * z
    return scores


def scores_of_stream(
    seed: int, numbers: NDArray[np.integer], start: int, count: int, a: NDArray[np.float32], b: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the scores of consecutive candidates of each block's own stream: (num_blocks, count) float32.

    Args:
        seed, numbers: (num_blocks,) of the blocks' streams, their purpose CANDIDATES.
        start, count: the candidates are start … start + count - 1.
        a, b: (num_blocks, dim) float32.

    Raises:
        InvalidArgument: the arrays' shapes do not fit.
    """
    a, b = _targets(a, b)
    numbers = _numbers(numbers, len(a))
    scores = np.zeros((len(a), count), np.float32)
    native = core()
    if native is not None:
        native.fill_scores(seed, numbers, a, b, None, start, count, scores)
        return scores
    items = np.arange(start, start + count, dtype=np.uint64)
    for block, number in enumerate(numbers):
        table = normals(words(seed, CANDIDATES, number, items, a.shape[1])).astype(np.float32).T
        for z, each_a, each_b in zip(table, a[block], b[block], strict=True):
            scores[block] += (each_a * z + each_b) * z
    return scores


def gumbel_argmax(
    scores: NDArray[np.float32], seed: int, numbers: NDArray[np.integer], start: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the candidate of each block with the greatest score + Gumbel number: a draw in proportion to exp(score).

    The Gumbel number of a candidate is -log(-log u), u that of word 0 of item `candidate` of the block's stream of
    purpose PRIVATE. Of equal sums the lower index wins; scores of -infinity or NaN never do.

    Args:
        scores: (num_blocks, N) float32, of candidates start … start + N - 1.
        seed, numbers: (num_blocks,) of the blocks' streams.

    Returns:
        The candidates' indices, `start` counted in, (num_blocks,) int64, and the sums (num_blocks,) float64.

    Raises:
        InvalidArgument: the arrays' shapes do not fit, or a block has no candidate to choose.
    """
    scores = np.require(scores, np.float32, ["C", "A"])
    if scores.ndim != 2:
        raise InvalidArgument("scores are of blocks and candidates.")
    numbers = _numbers(numbers, len(scores))
    native = core()
    if native is not None:
        indices, values = np.empty(len(scores), np.int64), np.empty(len(scores))
        native.gumbel_argmax(seed, numbers, scores, start, indices, values)
        return indices, values
    items = np.arange(start, start + scores.shape[1], dtype=np.uint64)
    found = uniforms(words(seed, PRIVATE, numbers[:, None], items, 1)[..., 0])
    sums = scores.astype(np.float64) - log(-log(found))
    sums[np.isnan(sums)] = -np.inf
    if not (sums > -np.inf).any(axis=1).all():
        raise InvalidArgument("no candidate of a block has a score that is a number.")
    return start + np.argmax(sums, axis=1), sums.max(axis=1)


def select_from_stream(
    seed: int,
    numbers: NDArray[np.integer],
    num_candidates: int,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    num_threads: int,
    *,
    is_noisy: bool = True,
) -> NDArray[np.int64]:
    """Return what gumbel_argmax chooses among candidates 0 … num_candidates - 1 of each block's own stream.

    Without noise that is the likeliest one, of the greatest score. Scores are never stored. The choice does not depend
    on the number of threads.

    Args:
        seed, numbers: (num_blocks,) of the blocks' streams, of candidates and of private words.
        a, b: (num_blocks, dim) float32.

    Returns:
        (num_blocks,) int64.

    Raises:
        InvalidArgument: the arrays' shapes do not fit, or a block has no candidate to choose.
    """
    a, b = _targets(a, b)
    return _select(seed, _numbers(numbers, len(a)), None, num_candidates, a, b, num_threads, is_noisy)


def select_from_table(
    seed: int,
    numbers: NDArray[np.integer],
    table: NDArray[np.float32],
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    num_threads: int,
    *,
    is_noisy: bool = True,
) -> NDArray[np.int64]:
    """Return what gumbel_argmax chooses among the candidates of a table (dim, N) float32 that all blocks share.

    As select_from_stream otherwise; streams are of private words only.
    """
    a, b = _targets(a, b)
    table = _table(table, a)
    return _select(seed, _numbers(numbers, len(a)), table, table.shape[1], a, b, num_threads, is_noisy)


def _select(
    seed: int,
    numbers: NDArray[np.uint32],
    table: NDArray[np.float32] | None,
    count: int,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    num_threads: int,
    is_noisy: bool,
) -> NDArray[np.int64]:
    native = core()
    if native is not None:
        indices, values = np.empty(len(a), np.int64), np.empty(len(a))
        native.select(seed, numbers, a, b, table, count, is_noisy, num_threads, indices, values)
        return indices
    best, chosen = np.full(len(a), -np.inf), np.zeros(len(a), np.int64)
    tile = max(16, _TILE // max(1, len(a)))  # memory is that of one block's tile, however many there are
    for start in range(0, max(count, 1), tile):
        length = min(tile, count - start)
        if table is None:
            scores = scores_of_stream(seed, numbers, start, length, a, b)
        else:
            scores = scores_of_table(table[:, start : start + length], a, b)
        found, values = gumbel_argmax(scores, seed, numbers, start) if is_noisy else _likeliest(scores, start)
        chosen = np.where(values > best, found, chosen)
        best = np.maximum(values, best)
    return chosen


def _likeliest(scores: NDArray[np.float32], start: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """As gumbel_argmax, without Gumbel numbers."""
    wide = np.where(np.isnan(scores), -np.inf, scores.astype(np.float64))
    if not (wide > -np.inf).any(axis=1).all():
        raise InvalidArgument("no candidate of a block has a score that is a number.")
    return start + wide.argmax(axis=1), wide.max(axis=1)


def search_blocks(
    seed: int,
    numbers: NDArray[np.int64],
    cap: int,
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    num_threads: int,
    *,
    is_sorted: bool,
) -> Message:
    """Search each block's own stream for the candidate of the greatest score - log(arrival time); see `search`.

    Args:
        seed, numbers: (num_blocks,) of the blocks' streams, of candidates and of private words.
        a, b: (num_blocks, dim) float32.
        is_sorted: times are those of `cap` exponentials in rising order, not of a Poisson process.

    Raises:
        InvalidArgument: the arrays' shapes do not fit.
    """
    a, b = _targets(a, b)
    streams = _numbers(numbers, len(a))
    problem = _Scores(a, b)
    native = core()
    if native is None:
        arrivals = sorted_times(cap) if is_sorted else poisson_times
        return search(problem, arrivals, cap, seed, streams.astype(np.int64), fixed=is_sorted)
    message = Message.of(np.zeros(len(a), np.int64))
    native.search(
        seed, streams, a, b, problem.greatest, cap, is_sorted, num_threads,
        message.indices, message.num_candidates, message.capped,
    )  # fmt: skip
    return message


class _Scores(Ratios):
    """Blocks whose ratios are their float32 scores, but for a constant."""

    def __init__(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        self.size, self.num_words = a.shape
        self._a, self._b = a, b
        # Where a target is wider than the proposal there is no bound. NUMERICS: but for the rounding of scores.
        square, slope = a.astype(np.float64), b.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = np.where((square == 0) & (slope == 0), 0.0, np.inf)
            self.greatest = np.where(square < 0, -(slope**2) / (4 * square), flat).sum(1)

    def log_ratios(self, rows: NDArray[np.int64], words: NDArray[np.uint32]) -> Floats:
        scores = np.zeros(words.shape[:2], np.float32)
        for d in range(self.num_words):
            z = normals(words[:, :, d]).astype(np.float32)
            scores += (self._a[rows, d, None] * z + self._b[rows, d, None]) * z
        return np.where(np.isnan(scores), -np.inf, scores.astype(np.float64))


def _targets(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    a, b = np.require(a, np.float32, ["C", "A"]), np.require(b, np.float32, ["C", "A"])
    if a.ndim != 2 or a.shape != b.shape:
        raise InvalidArgument(f"targets are of blocks and dimensions, twice; not of shapes {a.shape} and {b.shape}.")
    return a, b


def _table(table: NDArray[np.float32], a: NDArray[np.float32]) -> NDArray[np.float32]:
    table = np.require(table, np.float32, ["C", "A"])
    if table.ndim != 2 or len(table) != a.shape[1]:
        raise InvalidArgument(f"a table of shape {table.shape} has no candidates of {a.shape[1]} dimensions.")
    return table


def _numbers(numbers: NDArray[np.integer], num_blocks: int) -> NDArray[np.uint32]:
    if np.shape(numbers) != (num_blocks,):
        raise InvalidArgument(f"{num_blocks} blocks have a number each, not numbers of shape {np.shape(numbers)}.")
    return np.require(numbers, np.uint32, ["C", "A"])
