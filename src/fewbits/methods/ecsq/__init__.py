"""Entropy-coded scalar quantisation: a trained checkpoint at any rate, no data needed.

One multiplier sets every tensor's step by equal slope; levels are found by a trellis, or rounded with the rate in
view, against the very tables that code them; reconstruction points are centroids. What cannot or need not be coded
lossily goes to `lossless`, and the loss record says why. Payload: docs/payload/ecsq.md. Method: docs/methods/ecsq.md.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, decode_into, encode_body, framing_bits
from fewbits.coder.integers import CodedArray
from fewbits.method import Method, Source, Survey
from fewbits.methods.ecsq.config import EcsqConfig
from fewbits.methods.ecsq.payload import PAYLOAD_VERSION, described, description, steps_of
from fewbits.methods.ecsq.quantiser import LEAST_TRELLIS, Quantiser
from fewbits.methods.ecsq.steps import sensitivity_in, spans_of, step_of, surveys_of
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.plan import group_small, is_group, tile_rows
from fewbits.quantize.elements import TrellisElements
from fewbits.quantize.rounding import equal_slope_step
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of, destinations, lossy_weights, spec_of

__all__ = ["Ecsq", "EcsqConfig", "steps_of"]

_TRELLIS_GAIN = 1.13  # a trellis has the rate of scalar quantisation with a step greater by this: 0.18 bit less
_TRY_LOSSLESS = 4096  # elements below which exact coding is always tried; above, only at high rate
_MOST_SMALL = 256  # tensors of fewer elements than a trellis has, that are surveyed each for itself
_SIDE_BITS = 48  # a tensor's step, flags and model, about: what a survey adds to the entropy


class Coded(NamedTuple):
    """One tensor or tile ready to be written."""

    description: bytes
    array: CodedArray
    loss: Loss


@dataclass(frozen=True)
class EcsqSurvey:
    """Magnitudes of the tensors that can be coded lossily, and the bits of the others.

    merged: of many small tensors, in units of their steps at rate weight 1; a search asks for bits dozens of times.
    """

    magnitudes: tuple[tuple[MagnitudeSurvey, float | None], ...]  # with their sensitivities
    exact_bits: float
    rate_divisor: int
    trellis: bool = False
    merged: MagnitudeSurvey | None = None

    @classmethod
    def of(
        cls,
        magnitudes: Sequence[tuple[MagnitudeSurvey, float | None]],
        exact_bits: float,
        rate_divisor: int,
        trellis: bool,
    ) -> "EcsqSurvey":
        """Merge small tensors where there are many."""
        alone = [each for each in magnitudes if each[0].num_elements >= LEAST_TRELLIS]
        small = [each for each in magnitudes if each[0].num_elements < LEAST_TRELLIS]
        if len(small) <= _MOST_SMALL:
            return cls(tuple(magnitudes), exact_bits, rate_divisor, trellis)
        units = [
            equal_slope_step(survey.energy, survey.num_elements, 1.0, rate_divisor, sensitivity)
            for survey, sensitivity in small
        ]
        merged = MagnitudeSurvey.merged([survey for survey, _ in small], units)
        return cls(tuple(alone), exact_bits + _SIDE_BITS * len(small), rate_divisor, trellis, merged)

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        total = self.exact_bits
        if self.merged is not None:
            total += self.merged.bits(math.sqrt(rate_weight))
        for survey, sensitivity in self.magnitudes:
            count = survey.num_elements
            step = equal_slope_step(survey.energy, count, rate_weight, self.rate_divisor, sensitivity)
            gain = _TRELLIS_GAIN if self.trellis and count >= LEAST_TRELLIS else 1.0
            total += survey.bits(gain * step) + _SIDE_BITS
        return total


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
        for name, tensor in source.tensors.items():
            weights = lossy_weights(spec_of(name, tensor), tensor)[0]
            if weights is None:
                exact_bits += code_bits(bits_of(tensor), spec_of(name, tensor)).bits
            else:
                magnitudes += surveys_of(spec_of(name, tensor), weights, source.statistics.get(name))
        return EcsqSurvey.of(magnitudes, exact_bits, source.rate_divisor, self.settings.trellis)

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
        exact: list[tuple[TensorSpec, Tensor, str]] = []
        for spec in unit:
            tensor = source.tensors[spec.name]
            weights, note = lossy_weights(spec, tensor)
            item: Coded | None = None
            if weights is not None:
                whole = (0, spec.num_elements)
                own = sensitivity_in(spec, source.statistics.get(spec.name), whole)
                step = step_of(spec, weights, own, rate_weight, source.rate_divisor)
                item, note = self._code(spec, weights, step, whole, _exact_bits(spec, weights))
            if item is None:
                exact.append((spec, tensor, note))
            else:
                coded.append((spec, item))
        if coded:
            yield self._chunk([spec for spec, _ in coded], [item for _, item in coded], seed, wide=False)
        if exact:
            yield from self._lossless.encode_unit(exact, seed)

    def _encode_alone(self, spec: TensorSpec, source: Source, rate_weight: float, seed: int) -> Iterator[Chunk]:
        tensor = source.tensors[spec.name]
        weights, note = lossy_weights(spec, tensor)
        if weights is None:
            yield from self._lossless.encode_unit([(spec, tensor, note)], seed)
            return
        sensitivity = source.statistics.get(spec.name)
        spans, exact_bits = spans_of(spec, sensitivity), _exact_bits(spec, weights)
        chunks: list[Chunk] = []
        for span in spans:
            own = sensitivity_in(spec, sensitivity, span)
            step = step_of(spec, weights, own, rate_weight, source.rate_divisor)
            item, note = self._code(spec, weights, step, span, exact_bits)
            if item is None:  # one tile that must be exact makes its tensor exact: a tensor has one fidelity
                yield from self._lossless.encode_unit([(spec, tensor, note)], seed)
                return
            wide = item.loss.bits >= LEAST_WIDE_BITS
            item = item._replace(loss=item.loss._replace(bits=item.loss.bits + framing_bits(item.loss.bits)))
            chunks.append(self._chunk([spec], [item], seed, wide=wide, span=span if len(spans) > 1 else None))
        yield from chunks

    def _chunk(
        self,
        specs: Sequence[TensorSpec],
        coded: Sequence[Coded],
        seed: int,
        *,
        wide: bool,
        span: tuple[int, int] | None = None,
    ) -> Chunk:
        payload = b"".join(item.description for item in coded) + encode_body([item.array for item in coded], wide=wide)
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
        decode_into(chunk.payload[position:], arrays, elements, num_threads=num_threads)
        for each in elements:
            if isinstance(each, TrellisElements):
                each.finish()
        return tensors


def _exact_bits(spec: TensorSpec, weights: Weights) -> Callable[[], float]:
    """What exact coding of the whole tensor takes: found out at the first call, and only then."""
    return cache(lambda: code_bits(weights.bits, spec).bits)
