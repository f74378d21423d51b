"""From factors in fine units to factors on their grids: whole numbers, chosen with the rate in view."""

import copy
import math

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.integers import IntegerModel
from fewbits.coder.table import COST_ONE
from fewbits.methods.qswd.descent import ONE, Matrix, Pair, Problem
from fewbits.methods.qswd.payload import coded_shape, fit_coefficients
from fewbits.models.fit import Fit
from fewbits.quantize.factors import Factors
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.tiling import Tiling

DEAD_ZONE = 0.6  # of a step: a coefficient below is 0 until the rate is known
_FINEST = 12  # bits of a codebook's entries: those of descent
_REACH = 24  # levels from 0 whose costs are looked up; beyond, neighbours cost about the same
_PASSES = 2
_TOGETHER = 16  # rows of coefficients whose slopes are found at once


def grid_of(pair: Pair, fine: float) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return a codebook's whole numbers (height, rank), their exponents (rank,), and the bits below 1 of the finest.

    The slope is that of the coefficients' step: an error of a column counts as often as the column is used.
    """
    use = np.sqrt(np.square(pair.coefficients).sum(axis=1)) / fine
    # NUMERICS: the nearest power of two by its exponent: logarithms differ between machines.
    fraction, exponent = np.frexp(use)
    bits = np.clip(np.where(fraction < math.sqrt(0.5), exponent - 1, exponent), 0, _FINEST).astype(np.int64)
    finest = int(bits.max(initial=0))
    return np.rint(np.ldexp(pair.codebook / ONE, bits)).astype(np.int64), finest - bits, finest


def quantised(problem: Problem, pair: Pair, tiling: Tiling, step: float, shape: tuple[int, int]) -> tuple[Factors, Fit]:
    """Return factors on their grids, and the models of the coefficients.

    Args:
        step: of the coefficients where columns have norm 1: the unit of `problem`.
        shape: of the tensor's matrix.
    """
    codebook, exponents, finest = grid_of(pair, problem.fine)
    scaled = np.ldexp(codebook.astype(np.float64), exponents - finest)
    levels = _settled(problem, scaled, np.rint(pair.coefficients / problem.fine), None)
    array = coded_shape(tiling, len(levels), *shape)
    fit = fit_coefficients(levels.astype(np.int64).reshape(array))
    for _ in range(_PASSES):
        levels = _settled(problem, scaled, levels, fit)
        fit = fit_coefficients(levels.astype(np.int64).reshape(array))
    product_step = float(np.float32(np.ldexp(step, -finest)))
    return Factors(tiling, product_step, codebook, exponents, levels.astype(np.int64)), fit


class _Costs:
    """What levels are worth, in units of squared steps, by the models of the coded array's rows."""

    def __init__(self, fit: Fit | None, rank: int) -> None:
        models = () if fit is None else fit.models.models
        self.table = np.stack([_costs_of(model) for model in models]) if models else np.zeros((1, 2 * _REACH + 1))
        classes = np.zeros(rank, np.int64) if fit is None or fit.classes is None else fit.classes
        self.classes = classes.reshape(rank, -1)  # by column of the codebook, and row of the array
        self.known = fit is not None

    def among(self, start: int, stop: int, count: int) -> "_Costs":
        """Return the costs of some of `count` vectors."""
        part = copy.copy(self)
        if self.classes.shape[1] > 1:
            part.classes = np.repeat(self.classes, count // self.classes.shape[1], axis=1)[:, start:stop]
        return part

    def of(self, number: int, levels: Matrix) -> Matrix:
        """Return the costs of levels (N,) of a column."""
        classes = np.repeat(self.classes[number], levels.size // self.classes.shape[1])
        return self.table[classes, np.clip(levels, -_REACH, _REACH).astype(np.int64) + _REACH]

    def best(self, wanted: Matrix, norm: float, number: int) -> Matrix:
        """Return the best levels where these real numbers (N,) are wanted, an error counting `norm`.

        Each is one of three: near, nearer to 0, 0; while models are not known, a dead zone stands for them.
        """
        near = np.rint(wanted)
        if not self.known:
            return np.where(np.abs(wanted) < DEAD_ZONE, 0.0, near)
        best, least = near, norm * (near - wanted) ** 2 + self.of(number, near)
        for other in (near - np.sign(near), np.zeros_like(near)):
            cost = norm * (other - wanted) ** 2 + self.of(number, other)
            best, least = np.where(cost < least, other, best), np.minimum(cost, least)
        return best


def _costs_of(model: IntegerModel) -> Matrix:
    """What levels -24 … 24 are worth, (49,), in units of squared steps; nothing where low bits go raw."""
    costs = np.zeros(2 * _REACH + 1)
    if model.table is None or model.shift:
        return costs
    first = model.table.low + model.centre
    for level in range(-_REACH, _REACH + 1):
        place = level - first
        inside = 0 <= place < model.table.num_values
        costs[level + _REACH] = model.table.costs[place] if inside else model.table.escape_cost + 8 * COST_ONE
    return costs * (BIT_WORTH / COST_ONE)


def _settled(problem: Problem, codebook: Matrix, levels: Matrix, fit: Fit | None) -> Matrix:
    """Improve levels (rank, N) by error and bits together, a row at a time."""
    costs = _Costs(fit, len(levels))
    if problem.covariance is not None:
        return _settled_by_input(problem, codebook, levels, costs)
    blocks, start = [], 0
    for block in problem.blocks():
        stop = start + block.vectors.shape[1]
        part = costs.among(start, stop, levels.shape[1])
        blocks.append(_settled_block(block, codebook, levels[:, start:stop], part))
        start = stop
    return np.concatenate(blocks, axis=1)


def _settled_block(problem: Problem, codebook: Matrix, levels: Matrix, costs: _Costs) -> Matrix:
    """A row after the other, each from the slopes that those before have left.

    Slopes of a few rows are found at once, and kept right by the products of their columns. NUMERICS: all are whole
    numbers of 2^-24, far below 2^53 of them: sums are exact, in whatever order.
    """
    levels = levels.copy()
    error = codebook @ levels - problem.vectors / problem.fine
    for first in range(0, len(levels), _TOGETHER):
        columns = codebook[:, first : first + _TOGETHER]
        rows = levels[first : first + _TOGETHER]  # a view: it is changed in place
        before = rows.copy()
        slopes, products = columns.T @ error, columns.T @ columns
        for number, row in enumerate(rows):
            norm = float(products[number, number])
            wanted = row - slopes[number] / norm if norm else row
            best = costs.best(wanted, norm, first + number) if norm else np.zeros_like(row)
            slopes[number + 1 :] += np.outer(products[number + 1 :, number], best - row)
            row[:] = best
        error += columns @ (rows - before)
    return levels


def _settled_by_input(problem: Problem, codebook: Matrix, levels: Matrix, costs: _Costs) -> Matrix:
    """Do so under a covariance of inputs: an input's coefficients at a time, which answer for what is wrong by then.

    Errors are counted in the mean of the covariance's diagonal, so that a bit is worth what it is without one.
    """
    assert problem.covariance is not None
    num_inputs = len(problem.covariance)
    mean = float(np.trace(problem.covariance)) / num_inputs
    rank, height = len(levels), len(codebook)
    by_input = np.ascontiguousarray(levels.reshape(rank, -1, num_inputs).transpose(2, 0, 1))  # (n, rank, A)
    vectors = problem.vectors.reshape(height, -1, num_inputs).transpose(2, 0, 1) / problem.fine
    error = codebook @ by_input - vectors  # (n, height, A)
    for place, along in enumerate(problem.covariance):
        own = float(along[place])
        if own <= 0:
            continue
        slope = np.tensordot(along, error, 1)
        for number, column in enumerate(codebook.T):
            norm = float(column @ column)
            row = by_input[place, number]
            if not norm:
                row[:] = 0
                continue
            wanted = row - (column @ slope) / (norm * own)
            change = costs.best(wanted, norm * own / mean, number) - row
            slope += own * np.outer(column, change)
            error[place] += np.outer(column, change)
            row += change
    return np.ascontiguousarray(by_input.transpose(1, 2, 0)).reshape(rank, -1)
