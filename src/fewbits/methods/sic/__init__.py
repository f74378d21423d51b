"""Calibrated compression: errors where the outputs do not feel them.

A weight's curvature says what its errors cost: which inputs its columns meet, and how much its rows matter. Columns are
coded one by one, each with the step at which its errors count alike, a trellis down each; what the error of one does,
the next ones partly undo ("successive interference cancellation"). One multiplier serves all tensors, their curvatures
being in one unit. What has no curvature is coded by `ecsq`. Payload: docs/payload/sic.md. Method:
docs/methods/sic.md.

Source: WaterSIC (2026), on GPTQ (Frantar et al. 2023); differs: models by column and row, and a trellis down each
column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, NARROW_BITS, framing_bits
from fewbits.coder.scratch import scratch_array
from fewbits.errors import Corrupt
from fewbits.method import Curvature, Method, Source, Survey
from fewbits.methods import blockwise
from fewbits.methods.blockwise import Gridded, gridded
from fewbits.methods.ecsq import Ecsq
from fewbits.methods.sic.config import SicConfig
from fewbits.methods.sic.payload import PAYLOAD_VERSION, decode_alone, payload_of, written_of
from fewbits.methods.sic.quantiser import Candidate, MatrixQuantiser
from fewbits.methods.sic.surveys import Magnitudes, SicSurvey, magnitudes_of, step_of
from fewbits.native import release_memory
from fewbits.plan import group_small, is_group, tile_rows, tiles
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of, destinations, lossy_weights, spec_of

__all__ = ["Sic", "SicConfig"]

_LEAST_ROWS = 16  # below, saying what columns are costs more than it gains
_LEAST_ELEMENTS = 256
_CLEARLY = 0.8  # of what coding by columns is expected to cost: on a grid less than that, and columns are not tried


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
        found: list[Magnitudes] = []
        for name, tensor in matrices.items():
            spec = spec_of(name, tensor)
            grid = self._gridded(spec, source)
            blocks = (grid and grid.rates()) or ()
            found.append(self._magnitudes(spec, source)._replace(blocks=tuple(blocks)))
        return SicSurvey.of(found, source.rate_divisor, self._others.survey(others))

    def _magnitudes(self, spec: TensorSpec, source: Source) -> Magnitudes:
        weights = Weights(bits_of(source.tensors[spec.name]), spec.dtype)
        return magnitudes_of(weights, source.statistics[spec.name], self.settings)

    def _gridded(self, spec: TensorSpec, source: Source) -> Gridded | None:
        if not self.settings.blockwise:
            return None
        weights = Weights(bits_of(source.tensors[spec.name]), spec.dtype)
        return gridded(spec, weights, tiles(spec), source.statistics[spec.name])

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts; tensors without a curvature come as parts of `ecsq` or, kept exactly, of `lossless`."""
        matrices, others = _parted(source)
        step = step_of(rate_weight, source.rate_divisor)
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
        tensors = decode_alone(chunk, into, num_threads)
        if tensors is None:
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
