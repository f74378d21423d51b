"""Matrices quantised a column at a time: a step and a scale for each, errors fed back, a trellis down each column.

What the error of a column does at a layer's outputs, the columns after it can partly undo, as long as they are not
coded: a share of it is taken off them. Each column has a step of its own, and a code of its scale; each row a scale and
a code too. The two codes together name the model of an element, so that what is small is coded as small.

Matrices (R, n) lie here column after column, (n, R), their rows in the order of their codes, so that in a column the
elements of a model are neighbours. Element r of a column belongs to path r mod P of a trellis
(`fewbits.quantize.trellis`), whose paths lead from column to column. What is written out here in NumPy is the
specification (docs/payload/sic.md); the compiled core does the same, in the same float32 operations.

Within a column, too, errors of rows may meet at what comes after the layer, along a few directions. What they add up to
there is followed down the column, and the rows to come partly undo it, a segment of rows at a time.

Source: error feedback by a Cholesky factor: Frantar et al. 2023 (GPTQ); steps by column: WaterSIC (2026); feedback on
both sides: YAQA (Tseng et al. 2025, arXiv:2505.22988), there by two whole factors. The trellis inside the feedback is
ours: it runs down a column, and a segment's errors are taken as they would be if the column ended there.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fewbits.native import core
from fewbits.quantize.rounding import ordered_sum
from fewbits.quantize.trellis import MOST_PRICED, Search, next_state
from fewbits.quantize.weights import Weights, rounded_bits

MOST_PATHS = 32  # WIRE
_REACH = np.float32(1 << 20)  # steps: a float32 still tells quarters of one apart
_QUARTER = np.float32(0.25)
_SEGMENT = 32  # rows, or 8 of each path, between two times that sums are taken off
_SEGMENTS = 8  # whose levels are looked at again as more rows come
_MOST_PAIRS = 1 << 18  # of codes of columns and rows that are added up at once


@dataclass(frozen=True)
class ElementModels:
    """Which model each element has: its column's code plus its row's, within 0 … num_models - 1.

    row_codes: (R,) int32, ascending.
    """

    row_codes: NDArray[np.int32]
    num_models: int

    def of(self, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the models of all elements, column after column, (n, R), from the codes of columns (n,)."""
        sums = codes[:, None].astype(np.int64) + self.row_codes.astype(np.int64)
        return np.minimum(np.maximum(sums, 0), self.num_models - 1)  # WIRE


@dataclass(frozen=True)
class RowFeedback:
    """How errors of rows add up along a few directions, and what of the sums the rows to come should undo.

    felt: (R, K) float32, what an error of 1 in a row adds to the sums; shares: (K, R) float32, of the sums of the
    segments before it, what is taken off a row.
    """

    felt: NDArray[np.float32]
    shares: NDArray[np.float32]

    @classmethod
    def none(cls, num_rows: int) -> "RowFeedback":
        """Of rows whose errors do not meet."""
        return cls(np.zeros((num_rows, 0), np.float32), np.zeros((0, num_rows), np.float32))


def segment_rows(num_paths: int) -> int:
    """Return how many rows a segment has: it is whole steps of all paths."""
    return max(_SEGMENT, 8 * num_paths)


@dataclass(frozen=True)
class ColumnCoder:
    """Quantises the columns of a matrix, block after block.

    row_units: (R,) float32, what a row's magnitudes are multiplied by before a column's are averaged.
    scales: ascending, (S,) float64: of a mean magnitude above k of them, in steps, a column's code is k.
    shifts: (K, 5) float32, how far beyond the levels -2 (and less) … 2 (and more) values lie, in steps, by model.
    prices: (K, 2 * MOST_PRICED + 1) float32, of levels from -MOST_PRICED on, in squared steps, by model.
    states: (P,) uint32, of all paths, carried on from block to block; without a trellis none.
    totals, counts: (K, 4), sums and numbers of how far quotients lie beyond the levels 0, -1, 1 and all others,
    outwards, by model; added to.
    rows: what is fed back within a column.
    """

    models: ElementModels
    row_units: NDArray[np.float32]
    scales: NDArray[np.float64]
    shifts: NDArray[np.float32]
    prices: NDArray[np.float32]
    states: NDArray[np.uint32]
    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    rows: RowFeedback

    def code(
        self, columns: NDArray[np.float32], feedback: NDArray[np.float32], steps: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Quantise columns one after the other; None if a quotient is out of reach.

        Args:
            columns: (n, R); they become their reconstructions.
            feedback: (n, n), the share of column i's reconstruction that is taken off column j at [i, j], j after i.
            steps: (n,).

        Returns:
            Codes of the columns (n,), and levels (n, R).
        """
        codes, levels = np.empty(len(columns), np.int32), np.empty(columns.shape, np.int32)
        if kernels := core():
            reached = kernels.code_columns(
                columns,
                feedback,
                steps,
                self.models.row_codes,
                self.row_units,
                self.scales,
                self.shifts,
                self.prices,
                self.states,
                codes,
                levels,
                self.totals,
                self.counts,
                self.rows.felt,
                self.rows.shares,
                segment_rows(self.states.size),
                _SEGMENTS,
            )
            return (codes, levels) if reached else None
        for i, column in enumerate(columns):
            with np.errstate(over="ignore"):  # what is not finite is out of reach
                quotients = column / steps[i]
            if not (np.abs(quotients) < _REACH).all():
                return None
            mean = ordered_sum((np.abs(quotients) * self.row_units).astype(np.float64)) / column.size
            codes[i] = np.searchsorted(self.scales, mean)
            points = self._points(quotients, self.models.of(codes[i : i + 1])[0], levels[i])
            if points is None:
                return None
            column[:] = points * steps[i]
            with np.errstate(over="ignore", invalid="ignore"):
                columns[i + 1 :] -= feedback[i, i + 1 :, None] * column
        return codes, levels

    def _points(
        self, quotients: NDArray[np.float32], models: NDArray[np.int64], levels: NDArray[np.int32]
    ) -> NDArray[np.float32] | None:
        """Fill a column's levels (R,), and return the points (R,) that they stand for; None if one is out of reach."""
        found = self._search(quotients, models, levels)
        if found is None:
            return None
        fed, ends = found
        mirrors = _mirrors(levels[None], self.states)[0]
        points = self._values(levels, mirrors, models)
        middles = levels.astype(np.float32) + (_QUARTER if self.states.size else np.float32(0))
        middles = np.where(mirrors, -middles, middles)
        beyond = fed.astype(np.float64) - middles.astype(np.float64)
        kinds = np.select([levels == 0, levels == -1, levels == 1], [0, 1, 2], 3)
        np.add.at(self.totals, (models, kinds), np.where(middles < 0, -beyond, beyond))
        np.add.at(self.counts, (models, kinds), 1)
        self.states[:] = ends
        return points

    def _search(
        self, quotients: NDArray[np.float32], models: NDArray[np.int64], levels: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.integer]] | None:
        """Fill a column's levels (R,); return the quotients (R,) that they are for, and the states (P,) paths end in.

        None if a quotient is out of reach.
        """
        search = Search(self.shifts, self.prices, self.states) if self.states.size else None
        count, num_sums = self.rows.felt.shape
        length = segment_rows(self.states.size) if num_sums else count
        fed, sums = quotients.copy(), np.zeros(num_sums, np.float32)
        points = quotients.copy()  # as if there were no error yet
        for start in range(0, count, length):
            rows = slice(start, min(start + length, count))
            with np.errstate(over="ignore", invalid="ignore"):
                for share, total in zip(self.rows.shares[:, rows], sums, strict=True):
                    fed[rows] -= share * total
            if not (np.abs(fed[rows]) < _REACH).all():
                return None
            if search is not None:
                search.take(fed[rows], models[rows])
            else:
                levels[rows] = self._rounded(fed[rows], models[rows])
            if rows.stop == count:
                break
            # Levels of some segments before this one may be others now: their errors are put right in the sums.
            looked = slice(max(0, start - (_SEGMENTS - 1) * length), rows.stop)
            mirrors = np.zeros(looked.stop - looked.start, np.bool_)
            if search is not None:
                levels[looked], mirrors, _ = search.found(looked.start)
            now = self._values(levels[looked], mirrors, models[looked])
            changes, points[looked] = now - points[looked], now
            for row in np.flatnonzero(changes):
                sums += self.rows.felt[looked.start + row] * changes[row]
        if search is None:
            return fed, self.states
        levels[:], _, ends = search.found()
        return fed, ends

    def _values(
        self, levels: NDArray[np.int32], mirrors: NDArray[np.bool_], models: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The points of levels (N,), in steps."""
        points = levels.astype(np.float32) + self.shifts[models, np.clip(levels, -2, 2) + 2]
        return np.where(mirrors, -points, points)

    def _rounded(self, quotients: NDArray[np.float32], models: NDArray[np.int64]) -> NDArray[np.int32]:
        """The nearest levels (R,), or the next ones towards 0 where they cost less."""
        near = np.rint(quotients).astype(np.int32)
        inner = near - np.sign(near)

        def cost(levels: NDArray[np.int32]) -> NDArray[np.float32]:
            distances = quotients - (levels.astype(np.float32) + self.shifts[models, np.clip(levels, -2, 2) + 2])
            places = np.clip(levels, -MOST_PRICED, MOST_PRICED) + MOST_PRICED
            return np.square(distances) + self.prices[models, places]

        return np.where(cost(inner) < cost(near), inner, near)


def _mirrors(levels: NDArray[np.int32], states: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell which values of levels (n, R) are mirrored, from the states that paths start in (P,), which are kept."""
    num_paths = states.size
    state = states.astype(np.int64)
    mirrors = np.zeros(levels.shape, np.bool_)
    if not num_paths:
        return mirrors
    for column, flags in zip(levels, mirrors, strict=True):
        for start in range(0, column.size, num_paths):
            parities = (column[start : start + num_paths] & 1).astype(np.int64)
            here = state[: parities.size]
            flags[start : start + num_paths] = here >= 4
            state[: parities.size] = next_state(here, parities)
    return mirrors


@dataclass(frozen=True)
class ColumnValues:
    """What levels stand for: all that a decoder needs to know beside them.

    codes: (n,) int32, of columns; steps: (n,) float32; row_scales: (R,) float32; places: (R,) int32, of rows in the
    matrix; shifts: (K, 5) float32.
    """

    models: ElementModels
    codes: NDArray[np.int32]
    steps: NDArray[np.float32]
    row_scales: NDArray[np.float32]
    places: NDArray[np.int32]
    shifts: NDArray[np.float32]
    num_paths: int

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many elements have each model, (K,)."""
        counts = np.zeros(self.models.num_models, np.int64)
        if kernels := core():
            kernels.count_models(self.codes, self.models.row_codes, counts)
            return counts
        columns, num_columns = np.unique(self.codes, return_counts=True)
        rows, num_rows = np.unique(self.models.row_codes, return_counts=True)
        models = ElementModels(rows, self.models.num_models)
        step = -(-_MOST_PAIRS // rows.size)  # that all codes differ takes little to say, and should take little memory
        for start in range(0, columns.size, step):
            some = slice(start, start + step)
            np.add.at(counts, models.of(columns[some]), num_columns[some, None] * num_rows)
        return counts

    def write(self, weights: Weights, levels: NDArray[np.int32]) -> bool:
        """Write the values (R, n) of levels, which lie model after model, within one column after column.

        Law: exact on every machine: float32, each operation rounded to nearest even, in this order.

        Returns:
            Whether all are finite, rounded to the weights' dtype.
        """
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        if kernels := core():
            return kernels.column_values(
                levels,
                starts,
                self.codes,
                self.models.row_codes,
                self.steps,
                self.row_scales,
                self.places,
                self.shifts,
                self.num_paths,
                weights.code,
                weights.bits,
            )
        models = self.models.of(self.codes)
        ordered = levels_by_column(models, levels)
        # WIRE
        points = ordered.astype(np.float32) + self.shifts[models, np.clip(ordered, -2, 2) + 2]
        points = np.where(_mirrors(ordered, np.zeros(self.num_paths, np.uint32)), -points, points)
        with np.errstate(over="ignore", under="ignore"):  # what is not finite is the caller's to refuse
            by_column = points * self.steps[:, None] * self.row_scales
        values = np.empty(by_column.T.shape, np.float32)
        values[self.places] = by_column.T
        weights.bits[:] = rounded_bits(values.ravel(), weights.dtype)
        return bool(np.isfinite(weights.values()).all())


def row_order(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the order (R,) in which rows of these codes (R,) are coded: by their codes, then by their places."""
    above = codes - codes.min()
    # NumPy sorts words of 16 bits by counting.
    order = np.argsort(above.astype(np.uint16) if above.max() < 1 << 16 else above, kind="stable")  # WIRE
    return order.astype(np.int32)


def levels_by_column(models: NDArray[np.int64], levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return levels (n R,) that are stored model after model, of elements with these models (n, R), in their places."""
    ordered = np.empty(models.size, np.int32)
    ordered[np.argsort(models.astype(np.uint16), axis=None, kind="stable")] = levels  # sorted by counting
    return ordered.reshape(models.shape)


def levels_by_model(models: ElementModels, codes: NDArray[np.int32], levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return levels (n, R), of columns of these codes (n,), as they are stored: model after model, (n R,)."""
    parts: list[list[NDArray[np.int32]]] = [[] for _ in range(models.num_models)]
    step = max(1, _MOST_PAIRS // levels.shape[1])
    for start in range(0, codes.size, step):
        some = (
            models.of(codes[start : start + step]).astype(np.uint16).ravel()
        )  # NumPy sorts words of 16 bits by counting
        ordered = levels[start : start + step].ravel()[np.argsort(some, kind="stable")]
        counts = np.bincount(some, minlength=models.num_models)
        for model, part in enumerate(np.split(ordered, np.cumsum(counts)[:-1])):
            if part.size:
                parts[model].append(part)
    return np.concatenate([part for found in parts for part in found])
