"""Entropy-coded scalar quantisation: a trained checkpoint at any rate, no data needed.

One multiplier sets every tensor's step by equal slope; levels are found by a trellis, or rounded with the rate in
view, against the very tables that code them; reconstruction points are centroids. What cannot or need not be coded
lossily goes to `lossless`, and the loss record says why. Payload: docs/payload/ecsq.md. Method: docs/methods/ecsq.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, decode_into, encode_body, framing_bits
from fewbits.coder.integers import CodedArray
from fewbits.method import Method, Source, Survey
from fewbits.methods.blockwise import Candidate, Gridded, chunk_of, gridded
from fewbits.methods.ecsq.config import EcsqConfig
from fewbits.methods.ecsq.payload import PAYLOAD_VERSION, described, description, steps_of
from fewbits.methods.ecsq.quantiser import Quantiser
from fewbits.methods.ecsq.steps import sensitivity_in, spans_of, step_of, surveys_of
from fewbits.methods.ecsq.surveys import BlockSurvey, EcsqSurvey, Outlay
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.plan import group_small, is_group, tile_rows, tiles
from fewbits.quantize.rounding import BIT_WORTH
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of, destinations, lossy_weights, spec_of

__all__ = ["Ecsq", "EcsqConfig", "steps_of"]

_TRY_LOSSLESS = 4096  # elements below which exact coding is always tried; above, only at high rate


class Coded(NamedTuple):
    """One tensor or tile ready to be written."""

    description: bytes
    array: CodedArray
    loss: Loss


class Ecsq(Method):
    """Uniform quantisation at equal slope, entropy coded."""

    id = "ecsq"
    code = 2
    payload_version = PAYLOAD_VERSION
    takes_row_sensitivities = True
    config_type = EcsqConfig

    def __init__(self, config: EcsqConfig | None = None) -> None:
        """Build the method; the default settings try everything."""
        self.settings = config or EcsqConfig()
        self.config = self.settings
        self._quantiser = Quantiser(self.settings)
        self._lossless = Lossless()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def survey(self, source: Source) -> Survey:
        """Count magnitudes."""
        magnitudes: list[tuple[MagnitudeSurvey, float | None]] = []
        exact_bits = 0.0
        blocks: list[BlockSurvey] = []
        for name, tensor in source.tensors.items():
            spec = spec_of(name, tensor)
            weights = lossy_weights(spec, tensor)[0]
            if weights is None:
                exact_bits += code_bits(bits_of(tensor), spec).bits
                continue
            sensitivity = source.statistics.get(name)
            found = surveys_of(spec, weights, sensitivity)
            grid = self._gridded(spec, weights, tiles(spec))
            if grid and (rates := grid.rates()):
                own = EcsqSurvey.of(found, 0.0, source.rate_divisor, self.settings.trellis)
                known = sensitivity_in(spec, sensitivity, (0, spec.num_elements))
                blocks.append(BlockSurvey(tuple(rates), own, spec.num_elements, weights.energy_at_stake(), known))
            else:
                magnitudes += found
        survey = EcsqSurvey.of(magnitudes, exact_bits, source.rate_divisor, self.settings.trellis)
        return replace(survey, blocks=tuple(blocks))

    def _gridded(self, spec: TensorSpec, weights: Weights, spans: Sequence[tuple[int, int]]) -> Gridded | None:
        return gridded(spec, weights, spans) if self.settings.blockwise else None

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts; tensors kept exactly come as parts of the lossless method."""
        specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        for unit in self.units(specs):
            if is_group(unit):
                yield from self._encode_group(unit, source, rate_weight, seed)
            else:
                yield from self._encode_alone(unit[0], source, rate_weight, seed)

    def _encode_group(
        self, unit: Sequence[TensorSpec], source: Source, rate_weight: float, seed: int
    ) -> Iterator[Chunk]:
        coded: list[tuple[TensorSpec, Coded]] = []
        blocked: list[tuple[TensorSpec, Candidate]] = []
        exact: list[tuple[TensorSpec, Tensor, str]] = []
        for spec in unit:
            tensor = source.tensors[spec.name]
            weights, note = lossy_weights(spec, tensor)
            item: Coded | None = None
            if weights is not None:
                whole = (0, spec.num_elements)
                own = sensitivity_in(spec, source.statistics.get(spec.name), whole)
                step = step_of(spec, weights, own, rate_weight, source.rate_divisor)
                exact_bits = _exact_bits(spec, weights)
                item, note = self._code(spec, weights, step, whole, exact_bits)
                grid, slope = self._gridded(spec, weights, [whole]), BIT_WORTH * step * step
                candidate = grid and grid.candidate(slope)
                if candidate:
                    otherwise = Outlay.of([item.loss], [slope]) if item else Outlay(exact_bits(), exact_bits())
                    if Outlay.of([candidate.loss], [slope]).is_less(otherwise, is_known=own is not None):
                        blocked.append((spec, candidate))
                        continue
            if item is None:
                exact.append((spec, tensor, note))
            else:
                coded.append((spec, item))
        if coded:
            yield self._chunk([spec for spec, _ in coded], [item for _, item in coded], seed, wide=False)
        if blocked:
            yield chunk_of([spec for spec, _ in blocked], [candidate for _, candidate in blocked], seed)
        if exact:
            yield from self._lossless.encode_unit(exact, seed)

    def _encode_alone(self, spec: TensorSpec, source: Source, rate_weight: float, seed: int) -> Iterator[Chunk]:
        tensor = source.tensors[spec.name]
        weights, note = lossy_weights(spec, tensor)
        if weights is None:
            yield from self._lossless.encode_unit([(spec, tensor, note)], seed)
            return
        sensitivity = source.statistics.get(spec.name)
        spans = spans_of(spec, sensitivity)
        divisor = source.rate_divisor
        steps = [
            step_of(spec, weights, sensitivity_in(spec, sensitivity, span), rate_weight, divisor) for span in spans
        ]
        slopes = [BIT_WORTH * step * step for step in steps]
        exact_bits = _exact_bits(spec, weights)
        chunks, note = self._tiles(spec, weights, spans, steps, exact_bits, seed)
        grid = self._gridded(spec, weights, spans)
        blocked = grid and grid.coded(slopes, seed)
        if blocked:
            if chunks is None:
                otherwise = Outlay(exact_bits(), exact_bits())
            else:
                otherwise = Outlay.of([chunk.losses[0] for chunk in chunks], slopes)
            if Outlay(blocked.total, blocked.bits).is_less(otherwise, is_known=sensitivity is not None):
                yield from blocked.chunks
                return
        if chunks is None:
            yield from self._lossless.encode_unit([(spec, tensor, note)], seed)
        else:
            yield from chunks

    def _tiles(
        self,
        spec: TensorSpec,
        weights: Weights,
        spans: Sequence[tuple[int, int]],
        steps: Sequence[float],
        exact_bits: Callable[[], float],
        seed: int,
    ) -> tuple[list[Chunk] | None, str]:
        chunks: list[Chunk] = []
        for span, step in zip(spans, steps, strict=True):
            item, note = self._code(spec, weights, step, span, exact_bits)
            if item is None:  # one tile that must be exact makes its tensor exact: a tensor has one fidelity
                return None, note
            wide = item.loss.bits >= LEAST_WIDE_BITS
            item = item._replace(loss=item.loss._replace(bits=item.loss.bits + framing_bits(item.loss.bits)))
            chunks.append(self._chunk([spec], [item], seed, wide=wide, span=span if len(spans) > 1 else None))
        return chunks, ""

    def _chunk(
        self,
        specs: Sequence[TensorSpec],
        coded: Sequence[Coded],
        seed: int,
        *,
        wide: bool,
        span: tuple[int, int] | None = None,
    ) -> Chunk:
        head = b"".join(item.description for item in coded)
        payload = encode_body([item.array for item in coded], wide=wide, head=head)
        config, losses = self.config.to_json(), tuple(item.loss for item in coded)
        return Chunk(self.id, self.payload_version, config, seed, tuple(specs), payload, span=span, losses=losses)

    def _code(
        self, spec: TensorSpec, weights: Weights, step: float, span: tuple[int, int], exact_bits: Callable[[], float]
    ) -> tuple[Coded | None, str]:
        """Quantise a range of a tensor's weights; None, and why, if the tensor is to be kept exactly."""
        tried = self._quantiser.candidates(weights.part(*span), step, tile_rows(spec, span)[0])
        if not tried:
            return None, ""
        best = next((each for each in tried if each.distortion.finite), None)
        if best is None:
            return None, f"kept exactly: its reconstruction would overflow {spec.dtype}"
        levels, bits = best.levels, best.bits
        # Exact coding costs less than this only where a tensor is small, or coded at half its own bits and more.
        near = spec.num_elements < _TRY_LOSSLESS or bits > 4.0 * levels.size * weights.bits.itemsize
        if near and exact_bits() * levels.size <= bits * spec.num_elements:
            return None, ""
        array = CodedArray(levels, best.fit.models, best.fit.classes)
        loss = Loss(best.distortion.error, best.distortion.energy, bits)
        return Coded(description(best.points, best.fit.models), array, loss), ""

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the reconstructions."""
        found, position = described(chunk)
        tensors = destinations(chunk, into)
        arrays = [each.array for each in found]
        elements = [each.elements(Weights(bits_of(tensors[each.name]), each.dtype)) for each in found]
        decode_into(memoryview(chunk.payload)[position:], arrays, elements, num_threads=num_threads)
        return tensors


def _exact_bits(spec: TensorSpec, weights: Weights) -> Callable[[], float]:
    """What exact coding of the whole tensor takes: found out at the first call, and only then."""
    return cache(lambda: code_bits(weights.bits, spec).bits)
