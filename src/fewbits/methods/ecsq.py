"""Entropy-coded scalar quantisation: a trained checkpoint at any rate, no data needed.

One multiplier sets every tensor's step by equal slope, levels are rounded with the rate in view against the very tables
that code them, and reconstruction points are centroids. What cannot or need not be coded lossily goes to `lossless`,
and the loss record says why. Payload: docs/payload/ecsq.md. Method: docs/methods/ecsq.md.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, decode_into, encode_body, framing_bits
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel
from fewbits.coder.table import COST_ONE
from fewbits.errors import Corrupt
from fewbits.method import Method, MethodConfig, Source, Survey
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import Fit, best_fit
from fewbits.payload import check_version, element_ranges, part_of, read_step
from fewbits.plan import group_small, is_group, tile_rows, tiles
from fewbits.quantize.elements import QuantisedElements
from fewbits.quantize.rounding import Centroids, Gains, equal_slope_step, row_magnitudes
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Scaled, Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, lossy_weights, spec_of

_CENTROIDS = 1  # WIRE: bit of the flags byte
_LEAST_ROW = 32  # elements of a row below which classes of rows are not tried
_LEAST_CENTROIDS = 256  # elements below which three bytes of centroids are not tried
_TRY_LOSSLESS = 4096  # elements below which exact coding is always tried; above, only at high rate
_SIDE_BITS = 48  # a tensor's step, flags and model, about: what a survey adds to the entropy
# Row scales that part classes of rows, half an octave apart, in units of the step.
_ROW_SCALES = 2.0 ** (np.arange(-16, 49) / 2)


@dataclass(frozen=True)
class EcsqConfig(MethodConfig):
    """Settings of entropy-coded scalar quantisation: what may be tried; what is kept is decided by measured size.

    rate_distortion: round with the rate in view. centroids: shift reconstruction points to their level's mean.
    row_classes: let rows of different scale have models of their own.
    """

    rate_distortion: bool = True
    centroids: bool = True
    row_classes: bool = True


class Coded(NamedTuple):
    """One tensor or tile ready to be written."""

    description: bytes
    array: CodedArray
    loss: Loss


@dataclass(frozen=True)
class EcsqSurvey:
    """Magnitudes of the tensors that can be coded lossily, and the bits of the others."""

    magnitudes: tuple[tuple[MagnitudeSurvey, float | None], ...]  # with their sensitivities
    exact_bits: float
    rate_divisor: int

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        total = self.exact_bits
        for survey, sensitivity in self.magnitudes:
            count = survey.num_elements
            step = equal_slope_step(survey.energy, count, rate_weight, self.rate_divisor, sensitivity)
            total += survey.bits(step) + _SIDE_BITS
        return total


class Ecsq(Method):
    """Uniform quantisation at equal slope, entropy coded."""

    id = "ecsq"
    code = 2
    payload_version = 1
    config_type = EcsqConfig

    def __init__(self, config: EcsqConfig | None = None) -> None:
        """Build the method; the default settings try everything."""
        self.settings = config or EcsqConfig()
        self.config = self.settings
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
                magnitudes.append((weights.survey(), source.statistics.get(name)))
        return EcsqSurvey(tuple(magnitudes), exact_bits, source.rate_divisor)

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
                step = _step_of(spec, weights, source, rate_weight)
                item, note = self._code(spec, weights, step, (0, spec.num_elements), _exact_bits(spec, weights))
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
        step = _step_of(spec, weights, source, rate_weight)
        spans, exact_bits = tiles(spec), _exact_bits(spec, weights)
        chunks: list[Chunk] = []
        for span in spans:
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
        scaled = weights.part(*span).scaled(step, tile_rows(spec, span)[0])
        levels = scaled.levels()
        if levels is None:
            return None, ""
        levels, fit = self._fit(scaled, levels)
        centroids = self._centroids(scaled, levels)
        finite, error, energy = scaled.distortion(levels, centroids)
        if not finite:
            return None, f"kept exactly: its reconstruction would overflow {spec.dtype}"
        flags = bytes([_CENTROIDS]) + struct.pack("<3b", *centroids) if centroids else bytes(1)
        description = struct.pack("<f", step) + flags + write_models(fit.models)
        bits = fit.bits + 8 * (4 + len(flags))
        # Exact coding costs less than this only where a tensor is small, or coded at half its own bits and more.
        near = spec.num_elements < _TRY_LOSSLESS or bits > 4.0 * levels.size * weights.bits.itemsize
        if near and exact_bits() * levels.size <= bits * spec.num_elements:
            return None, ""
        return Coded(description, CodedArray(levels, fit.models, fit.classes), Loss(error, energy, bits)), ""

    def _fit(self, scaled: Scaled, levels: NDArray[np.int32]) -> tuple[NDArray[np.int32], Fit]:
        """Fit models to the levels, round again against them, and fit once more."""
        fit = self._best_fit(levels)
        if self.settings.rate_distortion:
            gains = [_gains_of(model) for model in fit.models.models]
            levels = scaled.rate_distortion_round(levels, gains, fit.classes)
            fit = self._best_fit(levels)
        return levels, fit

    def _best_fit(self, levels: NDArray[np.int32]) -> Fit:
        keys: NDArray[np.int64] | None = None
        if self.settings.row_classes and levels.shape[0] > 1 and levels.shape[1] >= _LEAST_ROW:
            # Sums of integers are exact; the mean's quotient is rounded once: rows class alike on every machine.
            keys = np.searchsorted(_ROW_SCALES, row_magnitudes(levels) / levels.shape[1])
        return best_fit(levels, keys)

    def _centroids(self, scaled: Scaled, levels: NDArray[np.int32]) -> Centroids | None:
        if not self.settings.centroids or levels.size < _LEAST_CENTROIDS:
            return None
        centroids = scaled.centroids(levels)
        return centroids if any(centroids) else None

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the reconstructions."""
        check_version(chunk, self.payload_version)
        tensors = destinations(chunk, into)
        described, position = _described(chunk)
        arrays = [each.array for each in described]
        elements = [
            QuantisedElements(Weights(bits_of(tensors[each.name]), each.dtype), each.name, each.step, each.centroids)
            for each in described
        ]
        decode_into(chunk.payload[position:], arrays, elements, num_threads=num_threads)
        return tensors


class _Described(NamedTuple):
    """What a payload says of a tensor before its integers."""

    name: str
    dtype: str
    step: float
    centroids: Centroids | None
    array: ArraySpec


def _described(chunk: Chunk) -> tuple[list[_Described], int]:
    """Read a payload's descriptions; returns them and the position after them."""
    position = 0
    found: list[_Described] = []
    for spec, span in element_ranges(chunk):
        if spec.dtype not in LOSSY_DTYPES:
            raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have an ecsq payload.")
        step, position = read_step(chunk.payload, position, spec)
        flags, position = part_of(chunk.payload, position, 1)
        if flags[0] > _CENTROIDS:
            raise Corrupt(f"tensor {spec.name!r} has unknown ecsq flags.")
        centroids: Centroids | None = None
        if flags[0]:
            fields, position = part_of(chunk.payload, position, 3)
            centroids = struct.unpack("<3b", fields)
        models, position = read_models(chunk.payload, position)
        rows, row_length = tile_rows(spec, span)
        if models.class_model is None:
            rows, row_length = 1, rows * row_length
        found.append(_Described(spec.name, spec.dtype, step, centroids, ArraySpec(rows, row_length, models)))
    return found, position


def steps_of(chunk: Chunk) -> dict[str, float]:
    """Return the steps of a part's tensors, by name.

    Raises:
        Corrupt, Incompatible: as for `Ecsq.decode`.
    """
    check_version(chunk, Ecsq.payload_version)
    return {each.name: each.step for each in _described(chunk)[0]}


def _step_of(spec: TensorSpec, weights: Weights, source: Source, rate_weight: float) -> float:
    """The tensor's step at equal slope."""
    sensitivity = source.statistics.get(spec.name)
    energy = weights.energy_at_stake()
    return equal_slope_step(energy, spec.num_elements, rate_weight, source.rate_divisor, sensitivity)


def _exact_bits(spec: TensorSpec, weights: Weights) -> Callable[[], float]:
    """What exact coding of the whole tensor takes: found out at the first call, and only then."""
    return cache(lambda: code_bits(weights.bits, spec).bits)


def _gains_of(model: IntegerModel) -> Gains:
    """Gains of the levels a table codes; nothing at high rate, where nearest levels are as good."""
    if model.table is None or model.shift:
        return Gains.nothing()
    return Gains.of_costs(model.table.low + model.centre, model.table.costs / COST_ONE)
