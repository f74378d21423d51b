"""From a matrix and its curvature to levels: column after column, errors fed back, prices from what came before."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import Loss
from fewbits.coder.integers import IntegerModel
from fewbits.method import Curvature
from fewbits.methods.sic.config import SicConfig
from fewbits.methods.sic.payload import (
    MOST_MODELS,
    MOST_SCALE_CODE,
    SCALE_UNIT,
    Matrix,
    Written,
    scales_of,
    shifts_by_model,
)
from fewbits.methods.sic.problem import Problem
from fewbits.models.descriptions import write_model
from fewbits.models.fit import bits_of_each, fit_values
from fewbits.quantize.columns import ColumnCoder, ElementModels, levels_by_model, row_order
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.trellis import MOST_PRICED, Corrections, prices_of_costs, trellis_step
from fewbits.quantize.weights import Weights, distortion_of_bits

_NO_CORRECTIONS = np.zeros((0, 4), np.int8)
_BLOCK = 64  # columns between two matrix products that feed errors back
_LOWEST, _OCTAVES = -7, 25  # of the scales that models are for, in steps
_FEW_BITS = 0.5  # a weight, below which zeros are tried
_PRICED_BITS = 2.5  # of a model's level: where it costs more, a point's correction gains nothing
_FINE = 93  # elements a row or column from which its scale is told to a quarter of an octave; below, to a half
_MOST_ROW_CODE = 12  # octaves that a row's scale may be off its tensor's, either way


class Candidate(NamedTuple):
    """A matrix ready to be written, and what it lost."""

    written: Written
    loss: Loss


class _Learned(NamedTuple):
    """What a search goes by: points and prices of each model of the grid."""

    corrections: NDArray[np.int8]
    prices: NDArray[np.float32]


class _Grid:
    """Models by scale, evenly spaced in octaves, the codes of rows and columns on it, and the order of the rows."""

    def __init__(self, problem: Problem, settings: SicConfig) -> None:
        num_columns, num_rows = problem.shape
        self.unit = 0.25 if min(num_columns, num_rows) >= _FINE else 0.5
        size = round(_OCTAVES / self.unit) if settings.column_models else 1
        self.centres = 2.0 ** (_LOWEST + self.unit * np.arange(size))
        self.scales = np.exp2(_LOWEST + self.unit * (np.arange(size - 1) + 0.5))
        codes = np.zeros(num_rows, np.int32)
        if settings.column_models:
            relative = np.zeros(num_rows)  # sums, of magnitudes by their columns' means
            for start in range(0, num_columns, _BLOCK):
                magnitudes = np.abs(problem.columns[start : start + _BLOCK])
                means = magnitudes.mean(1, keepdims=True, dtype=np.float64)
                relative += (magnitudes / np.where(means > 0, means, 1)).sum(0, dtype=np.float64)
            most = round(_MOST_ROW_CODE / self.unit)
            places = np.rint(np.log2(np.maximum(relative / num_columns, 1e-30)) / self.unit)
            codes = places.clip(-most, most).astype(np.int32)
        self.row_codes = codes
        self.order = row_order(codes)
        self.models = ElementModels(codes[self.order], size)
        self.row_units = (2.0 ** (-self.unit * self.models.row_codes)).astype(np.float32)


class MatrixQuantiser:
    """Quantises one matrix at any step."""

    def __init__(self, weights: Weights, curvature: Curvature, settings: SicConfig) -> None:
        """Take a matrix's weights; `curvature.outputs` are of its rows.

        Args:
            weights: (R n,), all finite.
            curvature: inputs (n, n) and outputs (R,).
            settings: what may be done.
        """
        self._weights, self._curvature, self._settings = weights, curvature, settings

    def candidate(self, step: float) -> Candidate | None:
        """Quantise; None if a weight is out of reach, a reconstruction would not be finite, or rows differ too much.

        Args:
            step: of scalar quantisation, in the root of the units in which errors count.
        """
        problem = Problem.of(self._weights, self._curvature, self._settings, step)
        if not np.isfinite(problem.columns).all():
            return None
        wide = trellis_step(step) if self._settings.trellis else step
        prices = _prior_prices(_Grid(problem.sampled(), self._settings), trellis=self._settings.trellis)
        learned = _Learned(_NO_CORRECTIONS, prices)
        for some in (problem.sampled(), problem.sampled()):
            run = _Run(some, wide, learned, self._settings)
            if not run.is_reached:
                return None
            learned = run.learned(learned)
        run = _Run(problem, wide, learned, self._settings)
        if not run.is_reached or not run.is_writable:
            return None
        found = self._candidate(*run.written())
        if found is None or found.loss.bits > _FEW_BITS * self._weights.bits.size:
            return found
        # At the coarsest steps a trellis, which has no value at 0, may do worse than nothing at all.
        nothing = self._candidate(*_zeros(problem))
        slope = BIT_WORTH * step * step
        return min(
            (each for each in (found, nothing) if each is not None),
            key=lambda each: self._cost(problem, each.written) + slope * each.loss.bits,
        )

    def _candidate(self, written: Written, bits: float) -> Candidate | None:
        decoded = self._decoded(written)
        if decoded is None:
            return None
        loss = distortion_of_bits(self._weights, decoded)
        return Candidate(written, Loss(loss.error, loss.energy, bits))

    def _decoded(self, written: Written) -> Weights | None:
        decoded = Weights(np.empty_like(self._weights.bits), self._weights.dtype)
        return decoded if written.matrix.values.write(decoded, written.levels) else None

    def _cost(self, problem: Problem, written: Written) -> float:
        """What the errors of a matrix cost."""
        decoded = self._decoded(written)
        assert decoded is not None
        errors = decoded.values() - self._weights.values()
        return problem.cost(errors.reshape(problem.row_scale_codes.size, -1))


def _zeros(problem: Problem) -> tuple[Written, float]:
    """A matrix of zeros as it is written, and its bits."""
    num_columns, num_rows = problem.shape
    codes = np.zeros(num_columns, np.int32)
    classes = np.zeros(num_rows, np.int64)
    matrix = Matrix(0, np.zeros((1, 2), np.int32), classes, codes, codes, _NO_CORRECTIONS, (IntegerModel(None),))
    bits = 8.0 * len(matrix.description(matrix.side_arrays()))
    return Written(matrix, np.zeros(num_columns * num_rows, np.int32)), bits


def _prior_prices(grid: _Grid, *, trellis: bool) -> NDArray[np.float32]:
    """Prices of levels whose mean magnitude is a model's scale: half of them Laplacian, half Gaussian, (K, 255)."""
    edges = np.arange(-MOST_PRICED, MOST_PRICED + 2) - (0.25 if trellis else 0.5)
    over = edges / grid.centres[:, None]
    laplacian = np.where(over < 0, 0.5 * np.exp(np.minimum(over, 0)), 1 - 0.5 * np.exp(-np.maximum(over, 0)))
    gaussian = 0.5 * (1 + _erf(over / math.sqrt(math.pi)))
    masses = np.diff(0.5 * (laplacian + gaussian), axis=1)
    return prices_of_costs(-np.log2(np.maximum(masses, 1e-12)), trellis=trellis)


def _erf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vectorize(math.erf, otypes=[np.float64])(values)


class _Run:
    """One pass over the columns of a matrix, which are taken."""

    def __init__(self, problem: Problem, step: float, learned: _Learned, settings: SicConfig) -> None:
        self._problem, self._learned, self._trellis = problem, learned, settings.trellis
        self._grid = _Grid(problem, settings)
        num_columns = problem.shape[0]
        size = self._grid.models.num_models
        self._coder = ColumnCoder(
            self._grid.models,
            self._grid.row_units,
            self._grid.scales,
            shifts_by_model(learned.corrections, size, settings.trellis),
            learned.prices,
            np.zeros(problem.num_paths, np.uint32),
            np.zeros((size, 4)),
            np.zeros((size, 4), np.int64),
            problem.feedback(self._grid.order),
        )
        diagonal = np.diag(problem.factor)
        wanted = step / diagonal if settings.column_steps else np.full(num_columns, step / _geometric_mean(diagonal))
        codes = np.rint(SCALE_UNIT * np.log2(wanted)).clip(-MOST_SCALE_CODE, MOST_SCALE_CODE)
        self._step_codes = codes.astype(np.int32)
        with np.errstate(over="ignore"):
            self._steps = (scales_of(self._step_codes).astype(np.float64) * diagonal).astype(np.float32)
        self._codes = np.empty(num_columns, np.int32)
        self._levels = np.empty(problem.shape, np.int32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is out of reach
            self.is_reached = bool((self._steps > 0).all() and np.isfinite(self._steps).all()) and self._code_all()

    def _code_all(self) -> bool:
        columns = self._problem.take()
        diagonal = np.diag(self._problem.factor)
        # What a reconstruction of column i has in column j, by its own: U[i, j] / U[i, i].
        shares = np.empty(self._problem.factor.shape, np.float32)
        np.divide(self._problem.factor, diagonal[:, None], out=shares, casting="same_kind")
        count = len(columns)
        for start in range(0, count, _BLOCK):  # in place: a second one may be as large as a model
            columns[start : start + _BLOCK] = columns[start : start + _BLOCK, self._grid.order]
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            block = columns[start:stop]
            feedback = np.ascontiguousarray(shares[start:stop, start:stop])
            coded = self._coder.code(block, feedback, self._steps[start:stop])
            if coded is None:
                return False
            self._codes[start:stop], self._levels[start:stop] = coded
            if stop < count:
                columns[stop:] -= shares[start:stop, stop:].T @ block
        return True

    def learned(self, before: _Learned) -> _Learned:
        """What levels cost by tables of their own, and where their points should be."""
        models, costs = self._models()
        prices, corrections = before.prices.copy(), np.zeros((len(models), 4), np.int8)
        at = np.arange(-MOST_PRICED, MOST_PRICED + 1)
        for index, (model, cost) in enumerate(zip(models, costs, strict=True)):
            count = int(self._coder.counts[index].sum())
            if count:
                prices[index] = prices_of_costs(bits_of_each(model, at), trellis=self._trellis)
            if count and cost < _PRICED_BITS * count:
                corrections[index] = self._corrections(index)
        return _Learned(corrections, prices)

    def _corrections(self, index: int) -> Corrections:
        totals, counts = self._coder.totals[index], self._coder.counts[index]
        zero, minus_one, one, others = (
            min(max(round(256 * total / count), -128), 127) if count else 0
            for total, count in zip(totals.tolist(), counts.tolist(), strict=True)
        )
        return zero, minus_one, one, others

    def _models(self) -> tuple[list[IntegerModel], list[float]]:
        """The model of each scale on the grid, and what its levels cost in bits."""
        return fitted(self._sorted, self._coder.counts.sum(1))

    @cached_property
    def _sorted(self) -> NDArray[np.int32]:
        ordered = levels_by_model(self._grid.models, self._codes, self._levels)
        del self._levels  # they may be as large as the matrix
        return ordered

    @cached_property
    def _classes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Scale and model codes of classes of rows, (K, 2), and each row's class."""
        pairs = np.stack([self._problem.row_scale_codes, self._grid.row_codes.astype(np.int64)], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)

    @property
    def is_writable(self) -> bool:
        """Whether rows are of no more classes than a payload can have."""
        return len(self._classes[0]) <= MOST_MODELS

    def written(self) -> tuple[Written, float]:
        """What is written, and its bits."""
        models, costs = self._models()
        used = np.flatnonzero(self._coder.counts.sum(1))
        first, last = int(used[0]), int(used[-1])
        corrections = self._learned.corrections[first : last + 1]
        corrections = corrections[: np.flatnonzero(corrections.any(1)).max(initial=-1) + 1]
        classes, row_classes = self._classes
        matrix = Matrix(
            self._coder.states.size,
            classes.astype(np.int32),
            row_classes.reshape(-1).astype(np.int64),
            self._step_codes,
            self._codes - np.int32(first),
            corrections,
            tuple(models[first : last + 1]),
        )
        return Written(matrix, self._sorted), sum(costs) + side_bits(matrix, costs[first : last + 1])


def fitted(levels: NDArray[np.int32], counts: NDArray[np.int64]) -> tuple[list[IntegerModel], list[float]]:
    """Return a model for each run of the levels (N,), and what the run costs with it in bits; runs may be empty.

    Args:
        counts: of each run.
    """
    models, costs = list[IntegerModel](), list[float]()
    for part in np.split(levels, np.cumsum(counts)[:-1]):
        fit = fit_values(part) if part.size else None
        models.append(fit.models.models[0] if fit else IntegerModel(None))
        costs.append(fit.bits if fit else 0.0)
    return models, costs


def side_bits(matrix: Matrix, costs: Sequence[float]) -> float:
    """Return what a matrix takes beside its levels, whose models cost so much, as `fitted` says."""
    side = matrix.side_arrays()
    # What a fit costs has its model's description in it, which the matrix's has as well.
    known = [model for model, cost in zip(matrix.models, costs, strict=True) if cost]
    known += [array.models.models[0] for array in side]
    described = len(matrix.description(side)) - sum(len(write_model(model)) for model in known)
    counts = matrix.values.counts.tolist()
    padding = sum(-count * model.shift % 8 for count, model in zip(counts, matrix.models, strict=True))
    return sum(fit_values(array.values).bits for array in side) + 8 * described + padding


def _geometric_mean(values: NDArray[np.float64]) -> float:
    return float(np.exp(np.log(values).mean()))
