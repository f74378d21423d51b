"""Entropy-coded scalar quantisation: a trained checkpoint at any rate, no data needed.

One multiplier sets every tensor's step by equal slope, levels are rounded with the rate in view against the very tables
that code them, and reconstruction points are centroids. What cannot or need not be coded lossily goes to `lossless`,
and the loss record says why. Payload: docs/payload/ecsq.md. Method: docs/methods/ecsq.md.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, decode_body, encode_body, framing_bits
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel
from fewbits.coder.table import COST_ONE
from fewbits.errors import Corrupt
from fewbits.method import Method, MethodConfig, Source, Survey
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.models.descriptions import read_models, write_models
from fewbits.models.fit import Fit, fit_rows, fit_values
from fewbits.payload import check_version, element_ranges, part_of, read_step
from fewbits.plan import group_small, is_group, tile_rows, tiles
from fewbits.quantize.rounding import (
    centroids_of,
    energy_at_stake,
    equal_slope_step,
    ordered_sum,
    rate_distortion_round,
    reconstruct,
    round_levels,
)
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.tensors import LOSSY_DTYPES, bits_of, lossy_values, rounded_to, spec_of, values_of

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
            values = lossy_values(spec_of(name, tensor), tensor)[0]
            if values is None:
                exact_bits += code_bits(bits_of(tensor), spec_of(name, tensor)).bits
            else:
                energy = energy_at_stake(values)
                magnitudes.append((MagnitudeSurvey.of(values, energy), source.statistics.get(name)))
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
            values, note = lossy_values(spec, tensor)
            item: Coded | None = None
            if values is not None:
                step = _step_of(spec, values, source, rate_weight)
                item, note = self._code(spec, tensor, values, step, (0, spec.num_elements))
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
        values, note = lossy_values(spec, tensor)
        if values is None:
            yield from self._lossless.encode_unit([(spec, tensor, note)], seed)
            return
        step = _step_of(spec, values, source, rate_weight)
        spans = tiles(spec)
        chunks: list[Chunk] = []
        for span in spans:
            item, note = self._code(spec, tensor, values, step, span)
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
        self, spec: TensorSpec, tensor: Tensor, values: NDArray[np.float64], step: float, span: tuple[int, int]
    ) -> tuple[Coded | None, str]:
        """Quantise a range of a tensor's values (N,); None, and why, if the tensor is to be kept exactly."""
        matrix = values[span[0] : span[1]].reshape(tile_rows(spec, span))
        scaled = matrix / step
        levels = round_levels(scaled)
        if levels is None:
            return None, ""
        levels, fit = self._fit(scaled, levels)
        centroids = self._centroids(scaled, levels)
        decoded = rounded_to(reconstruct(levels, step, centroids).ravel(), spec.dtype)
        decoded_values = values_of(decoded)
        if not np.isfinite(decoded_values).all():
            return None, f"kept exactly: its reconstruction would overflow {spec.dtype}"
        error = ordered_sum((decoded_values - matrix.ravel()) ** 2)
        flags = bytes([_CENTROIDS]) + struct.pack("<3b", *centroids) if centroids else bytes(1)
        description = struct.pack("<f", step) + flags + write_models(fit.models)
        bits = fit.bits + 8 * (4 + len(flags))
        if (spec.num_elements < _TRY_LOSSLESS or bits > 4.0 * matrix.size * tensor.element_size()) and (
            code_bits(bits_of(tensor), spec).bits * matrix.size <= bits * spec.num_elements
        ):
            return None, ""
        loss = Loss(error, ordered_sum(matrix.ravel() ** 2), bits)
        return Coded(description, CodedArray(levels, fit.models, fit.classes), loss), ""

    def _fit(self, scaled: NDArray[np.float64], levels: NDArray[np.int64]) -> tuple[NDArray[np.int64], Fit]:
        """Fit models to the levels, round again against them, and fit once more."""
        fit = self._best_fit(scaled, levels)
        if self.settings.rate_distortion:
            moved = levels.copy()
            classes = np.zeros(levels.shape[0], np.int64) if fit.classes is None else fit.classes
            for index, model in enumerate(fit.models.models):
                costs = _level_costs(model)
                if costs is not None:
                    rows = slice(None) if fit.classes is None else classes == index
                    moved[rows] = rate_distortion_round(scaled[rows], levels[rows], *costs)
            levels = moved
            fit = self._best_fit(scaled, levels)
        return levels, fit

    def _best_fit(self, scaled: NDArray[np.float64], levels: NDArray[np.int64]) -> Fit:
        fits = [fit_values(levels)]
        if self.settings.row_classes and levels.shape[0] > 1 and levels.shape[1] >= _LEAST_ROW:
            # Sums of integers are exact; the mean's quotient is rounded once: rows class alike on every machine.
            mean = np.abs(levels).sum(axis=1) / levels.shape[1]
            by_scale = fit_rows(levels, np.searchsorted(_ROW_SCALES, mean))
            fits += [by_scale] if by_scale is not None else []
        return min(fits, key=lambda fit: fit.cost)

    def _centroids(self, scaled: NDArray[np.float64], levels: NDArray[np.int64]) -> tuple[int, int, int] | None:
        if not self.settings.centroids or levels.size < _LEAST_CENTROIDS:
            return None
        centroids = centroids_of(scaled, levels)
        return centroids if any(centroids) else None

    def decode(self, chunk: Chunk) -> Mapping[str, Tensor]:
        """Return the reconstructions."""
        check_version(chunk, self.payload_version)
        position = 0
        arrays: list[ArraySpec] = []
        rules: list[tuple[float, tuple[int, int, int] | None]] = []
        for spec, span in element_ranges(chunk):
            if spec.dtype not in LOSSY_DTYPES:
                raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have an ecsq payload.")
            step, position = read_step(chunk.payload, position, spec)
            flags, position = part_of(chunk.payload, position, 1)
            if flags[0] > _CENTROIDS:
                raise Corrupt(f"tensor {spec.name!r} has unknown ecsq flags.")
            centroids: tuple[int, int, int] | None = None
            if flags[0]:
                fields, position = part_of(chunk.payload, position, 3)
                centroids = struct.unpack("<3b", fields)
            models, position = read_models(chunk.payload, position)
            rows, row_length = tile_rows(spec, span)
            if models.class_model is None:
                rows, row_length = 1, rows * row_length
            arrays.append(ArraySpec(rows, row_length, models))
            rules.append((step, centroids))
        tensors: dict[str, Tensor] = {}
        for decoded, rule, (spec, span) in zip(
            decode_body(chunk.payload[position:], arrays), rules, element_ranges(chunk), strict=True
        ):
            shape = spec.shape if chunk.span is None else (span[1] - span[0],)
            tensor = rounded_to(reconstruct(decoded.values.ravel(), *rule), spec.dtype).reshape(shape)
            if not tensor.isfinite().all():
                raise Corrupt(f"tensor {spec.name!r} decodes to values that are not finite.")
            tensors[spec.name] = tensor
        return tensors


def _step_of(spec: TensorSpec, values: NDArray[np.float64], source: Source, rate_weight: float) -> float:
    """The tensor's step at equal slope."""
    sensitivity = source.statistics.get(spec.name)
    return equal_slope_step(energy_at_stake(values), values.size, rate_weight, source.rate_divisor, sensitivity)


def _level_costs(model: IntegerModel) -> tuple[int, NDArray[np.float64]] | None:
    """First level, and costs in bits, of the levels a table codes; None at high rate, where rounding is as good."""
    if model.table is None or model.shift:
        return None
    return model.table.low + model.centre, model.table.costs / COST_ONE
