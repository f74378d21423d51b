"""Calibrated compression: errors where the outputs do not feel them.

A weight's curvature says what its errors cost: which inputs its columns meet, and how much its rows matter. Columns are
coded one by one, each with the step at which its errors count alike, a trellis down each; what the error of one does,
the next ones partly undo ("successive interference cancellation"). One multiplier serves all tensors, their curvatures
being in one unit. What has no curvature is coded by `ecsq`. Payload: docs/payload/sic.md. Method:
docs/methods/sic.md.

Source: WaterSIC (2026), on GPTQ (Frantar et al. 2023); differs: models by column and row, and a trellis down each
column.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, NARROW_BITS, framing_bits
from fewbits.coder.scratch import scratch_array
from fewbits.errors import Corrupt
from fewbits.method import Curvature, Method, Source, Survey
from fewbits.methods import blockwise
from fewbits.methods.blockwise import BlockRates, Gridded, gridded
from fewbits.methods.ecsq import Ecsq
from fewbits.methods.sic.config import SicConfig
from fewbits.methods.sic.payload import PAYLOAD_VERSION, payload_of, written_of
from fewbits.methods.sic.problem import energies, factor_of, row_weights
from fewbits.methods.sic.quantiser import Candidate, MatrixQuantiser
from fewbits.native import release_memory
from fewbits.plan import group_small, is_group, tile_rows, tiles
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of, destinations, lossy_weights, spec_of

__all__ = ["Sic", "SicConfig"]

_LEAST_ROWS = 16  # below, saying what columns are costs more than it gains
_LEAST_ELEMENTS = 256
_TRELLIS_ERROR = 0.8  # of the error of scalar quantisation at as many bits
_CLEARLY = 0.8  # of what coding by columns is expected to cost: on a grid less than that, and columns are not tried


class _Magnitudes(NamedTuple):
    """Magnitudes of a matrix in the units in which errors count.

    sizes: (N,) float64, of runs of elements; counts: (N,), how many elements have each; blocks: of a matrix that may be
    coded on a grid, what is known of that.
    """

    sizes: NDArray[np.float64]
    counts: NDArray[np.float64]
    side_bits: float
    blocks: tuple[BlockRates, ...] = ()

    def bits(self, step: float) -> float:
        """Expected bits at a step of scalar quantisation, coded by columns."""
        bits = 0.5 * np.log2(1 + (4.13 / step * self.sizes) ** 2)  # a Gaussian of entropy log2(4.13 sigma / step)
        return float((bits * self.counts).sum()) + self.side_bits

    def total(self, step: float) -> float:
        """The same, and what errors cost in bits where a bit is worth as much as everywhere."""
        errors = float((np.minimum(self.sizes**2, step * step / 12) * self.counts).sum())
        return self.bits(step) + _TRELLIS_ERROR * errors / (BIT_WORTH * step * step)


@dataclass(frozen=True)
class SicSurvey:
    """Magnitudes of matrices, those of all that lie on no grid as of one, and the survey of all other tensors."""

    matrices: tuple[_Magnitudes, ...]
    rate_divisor: int
    others: Survey

    @classmethod
    def of(cls, matrices: Sequence[_Magnitudes], rate_divisor: int, others: Survey) -> "SicSurvey":
        """Join matrices: a search asks for bits dozens of times."""
        plain = [each for each in matrices if not each.blocks]
        sizes = np.concatenate([np.zeros(0), *(each.sizes for each in plain)])
        counts = np.concatenate([np.zeros(0), *(each.counts for each in plain)])
        joined = _Magnitudes(sizes, counts, sum(each.side_bits for each in plain))
        return cls((joined, *(each for each in matrices if each.blocks)), rate_divisor, others)

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        step = _step_of(rate_weight, self.rate_divisor)
        return sum(_expected_bits(each, step) for each in self.matrices) + self.others.bits(rate_weight)


def _expected_bits(matrix: _Magnitudes, step: float) -> float:
    """Bits by columns or, where errors and bits together are less, on a grid."""
    slope = BIT_WORTH * step * step
    found = [each.expected(slope) for each in matrix.blocks]
    if found and sum(each.cost for each in found) < slope * matrix.total(step):
        return sum(each.bits for each in found)
    return matrix.bits(step)


def _step_of(rate_weight: float, divisor: int) -> float:
    """The step of scalar quantisation at which a bit buys as much as everywhere, in the root of a loss."""
    return math.sqrt(rate_weight / divisor / BIT_WORTH)


class Sic(Method):
    """Columns quantised one after the other, errors fed back."""

    id = "sic"
    code = 7
    payload_version = PAYLOAD_VERSION
    takes_row_sensitivities = True
    takes_curvatures = True
    config_type = SicConfig

    def __init__(self, config: SicConfig | None = None) -> None:
        """Build the method; the default settings are the best ones."""
        self.settings = config or SicConfig()
        self.config = self.settings
        self._others = Ecsq()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def survey(self, source: Source) -> Survey:
        """Measure magnitudes."""
        matrices, others = _parted(source)
        found: list[_Magnitudes] = []
        for name, tensor in matrices.items():
            spec = spec_of(name, tensor)
            grid = self._gridded(spec, source)
            blocks = (grid and grid.rates()) or ()
            found.append(self._magnitudes(spec, source)._replace(blocks=tuple(blocks)))
        return SicSurvey.of(found, source.rate_divisor, self._others.survey(others))

    def _magnitudes(self, spec: TensorSpec, source: Source) -> _Magnitudes:
        curvature: Curvature = source.statistics[spec.name]
        rows, columns = curvature.outputs.size, len(curvature.inputs)
        of_rows, of_columns = energies(Weights(bits_of(source.tensors[spec.name]), spec.dtype), rows)
        diagonal = np.diag(factor_of(curvature.inputs))
        weighed = row_weights(curvature, of_rows, diagonal, self.settings, step=0.0)[0]
        by_row = np.sqrt(weighed * of_rows / columns)
        by_column = diagonal * np.sqrt(of_columns / rows)
        whole = math.sqrt(float(of_rows.mean()) / columns) or 1.0
        # Products of the two, of runs of sorted rows and columns: a few hundred numbers say it.
        row_runs, column_runs = _runs(by_row), _runs(by_column)
        sizes = np.outer(row_runs[0], column_runs[0]).ravel() / whole
        counts = np.outer(row_runs[1], column_runs[1]).ravel()
        return _Magnitudes(sizes, counts, 9.0 * columns + 2.5 * rows + 800)

    def _gridded(self, spec: TensorSpec, source: Source) -> Gridded | None:
        if not self.settings.blockwise:
            return None
        weights = Weights(bits_of(source.tensors[spec.name]), spec.dtype)
        return gridded(spec, weights, tiles(spec), source.statistics[spec.name])

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts; tensors without a curvature come as parts of `ecsq` or, kept exactly, of `lossless`."""
        matrices, others = _parted(source)
        step = _step_of(rate_weight, source.rate_divisor)
        specs = [spec_of(name, tensor) for name, tensor in matrices.items()]
        failed: dict[str, Tensor] = {}
        for unit in group_small(specs):
            if is_group(unit):
                found = {spec: self._candidate(spec, source, step, (0, spec.num_elements)) for spec in unit}
                kept = {spec: each for spec, each in found.items() if each is not None}
                blocked = self._blocked(unit, kept, source, step)
                kept = {spec: each for spec, each in kept.items() if spec not in blocked}
                failed |= {spec.name: matrices[spec.name] for spec in unit if spec not in kept and spec not in blocked}
                if kept:
                    yield self.chunk_of(list(kept), list(kept.values()), seed)
                if blocked:
                    yield blockwise.chunk_of(list(blocked), list(blocked.values()), seed)
                continue
            chunks = self._alone(unit[0], source, step, seed)
            if chunks is None:
                failed[unit[0].name] = matrices[unit[0].name]
            else:
                yield from chunks
        # In the source's order, in which a group of small tensors must be.
        left = {name: each for name, each in source.tensors.items() if name in others.tensors or name in failed}
        rest = replace(others, tensors=left)
        if rest.tensors:
            yield from self._others.encode(rest, rate_weight=rate_weight, seed=seed)

    def _blocked(
        self, unit: Sequence[TensorSpec], kept: Mapping[TensorSpec, Candidate], source: Source, step: float
    ) -> dict[TensorSpec, blockwise.Candidate]:
        """Those of a group that are coded on a grid, as this costs less."""
        slope = BIT_WORTH * step * step
        found: dict[TensorSpec, blockwise.Candidate] = {}
        for spec in unit:
            grid = self._gridded(spec, source)
            candidate = grid and grid.candidate(slope)
            if not candidate:
                continue
            if spec in kept:
                chunk = self.chunk_of([spec], [kept[spec]], 0)
                if slope * self._total([chunk], source, step) <= candidate.cost + slope * candidate.loss.bits:
                    continue
            found[spec] = candidate
        return found

    def _alone(self, spec: TensorSpec, source: Source, step: float, seed: int) -> list[Chunk] | None:
        """The parts of a large tensor, by columns or on a grid, whichever costs less; None if there are none."""
        grid = self._gridded(spec, source)
        blocked = grid and grid.coded([BIT_WORTH * step * step] * len(grid.spans), seed)
        if blocked and blocked.total < _CLEARLY * self._magnitudes(spec, source).total(step):
            return blocked.chunks
        chunks = self._tiles(spec, source, step, seed)
        if blocked and (chunks is None or blocked.total < self._total(chunks, source, step)):
            return blocked.chunks
        return chunks

    def _total(self, chunks: Sequence[Chunk], source: Source, step: float) -> float:
        """Bits of a tensor's parts, and what their errors cost in bits where a bit is worth as much as everywhere."""
        spec = chunks[0].tensors[0]
        tensor, curvature = source.tensors[spec.name], source.statistics[spec.name]
        whole = tensor.reshape(spec.num_rows, -1)
        total = 0.0
        for chunk in chunks:
            start, stop = _rows_of(chunk, spec)
            after = self.decode(chunk)[spec.name].reshape(stop - start, -1)
            cost = curvature.of_rows(start, stop).cost(whole[start:stop].cpu(), after)
            total += chunk.losses[0].bits + cost / (BIT_WORTH * step * step)
        return total

    def _tiles(self, spec: TensorSpec, source: Source, step: float, seed: int) -> list[Chunk] | None:
        spans = tiles(spec)
        chunks: list[Chunk] = []
        for span in spans:
            found = self._candidate(spec, source, step, span)
            if found is None:  # a tensor has one method
                return None
            chunks.append(self.chunk_of([spec], [found], seed, span if len(spans) > 1 else None))
            del found
            if len(spans) > 1:
                release_memory()
        return chunks

    def _candidate(self, spec: TensorSpec, source: Source, step: float, span: tuple[int, int]) -> Candidate | None:
        weights = Weights(bits_of(source.tensors[spec.name]), spec.dtype).part(*span)
        curvature: Curvature = source.statistics[spec.name]
        rows, columns = tile_rows(spec, span)
        first = span[0] // columns
        own = curvature.of_rows(first, first + rows)
        return MatrixQuantiser(weights, own, self.settings).candidate(step)

    def chunk_of(
        self, specs: Sequence[TensorSpec], coded: Sequence[Candidate], seed: int, span: tuple[int, int] | None = None
    ) -> Chunk:
        """Return the part of tensors that are coded: of a group of small ones, of a large one, or of a tile of it."""
        wide = len(specs) == 1 and coded[0].loss.bits >= LEAST_WIDE_BITS
        payload = payload_of([each.written for each in coded], wide=wide)
        framing = NARROW_BITS + (framing_bits(coded[0].loss.bits) if wide else NARROW_BITS)  # of two bodies
        losses = tuple(each.loss._replace(bits=each.loss.bits + framing / len(coded)) for each in coded)
        config = self.config.to_json()
        return Chunk(self.id, self.payload_version, config, seed, tuple(specs), payload, span=span, losses=losses)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the reconstructions."""
        found = written_of(chunk, num_threads, scratch_array)
        tensors = destinations(chunk, into)
        for spec, each in zip(chunk.tensors, found, strict=True):
            if not each.matrix.values.write(Weights(bits_of(tensors[spec.name]), spec.dtype), each.levels):
                raise Corrupt(f"tensor {spec.name!r} decodes to values that are not finite.")
        return tensors


def _rows_of(chunk: Chunk, spec: TensorSpec) -> tuple[int, int]:
    """Return the rows of a tensor that a part has."""
    row_length = spec.num_elements // spec.num_rows
    start, stop = chunk.span or (0, spec.num_elements)
    return start // row_length, stop // row_length


def _runs(values: NDArray[np.float64], most: int = 64) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of runs of the sorted values (N,), and how many each has."""
    parts = np.array_split(np.sort(values), min(most, values.size))
    return np.array([part.mean() for part in parts]), np.array([float(part.size) for part in parts])


def _parted(source: Source) -> tuple[dict[str, Tensor], Source]:
    """The tensors that are coded by their curvatures, and a source of all others, with what is known of them."""
    matrices: dict[str, Tensor] = {}
    known: dict[str, Any] = {}
    for name, tensor in source.tensors.items():
        statistic, spec = source.statistics.get(name), spec_of(name, tensor)
        if isinstance(statistic, Curvature):
            weights = lossy_weights(spec, tensor)[0]
            if weights is None:
                continue
            if spec.num_rows >= _LEAST_ROWS and spec.num_elements >= _LEAST_ELEMENTS and weights.extent.energy > 0:
                matrices[name] = tensor
            # Of errors that are spread evenly; for those that are not coded by columns after all as well.
            share = _trace(statistic) / spec.num_elements
            known[name] = share * weights.energy_at_stake()
        elif statistic is not None:
            known[name] = statistic
    others = {name: tensor for name, tensor in source.tensors.items() if name not in matrices}
    return matrices, Source(others, None, known, source.rate_divisor)


def _trace(curvature: Curvature) -> float:
    """What an error of 1 of each element costs, signs at random."""
    return float(np.trace(curvature.inputs)) * float(curvature.outputs.sum())
