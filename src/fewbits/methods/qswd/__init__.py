"""Quantised sparse weight decomposition: a weight as the product of two factors, one small, one sparse.

A layer may be computed from its factors, without the weight (`fewbits.nn.factored`), and the factors may be trained
(`fewbits.attach`). Payload: docs/payload/qswd.md. Method: docs/methods/qswd.md.

Source: Kuzmin, van Baalen, Nagel, Behboodi 2022, arXiv:2207.11048, of which the abstract could be read: what is our
reading, the method's page says.
"""

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import Source, Survey, TrainableMethod
from fewbits.methods.ecsq import Ecsq, EcsqConfig
from fewbits.methods.epr import Epr, EprConfig
from fewbits.methods.epr.representation import EprRepresentation
from fewbits.methods.qswd.choice import Tensor2d, chosen
from fewbits.methods.qswd.config import QswdConfig
from fewbits.methods.qswd.descent import in_whole_numbers
from fewbits.methods.qswd.parts import Written, chunks_of, noted
from fewbits.methods.qswd.payload import VERSION, Coded, matrix_shape, read
from fewbits.methods.qswd.representation import QswdRepresentation
from fewbits.methods.qswd.start import NOTHING, started_from
from fewbits.payload import check_version
from fewbits.plan import group_small, tiles
from fewbits.quantize.elements import write_values
from fewbits.quantize.factors import Factors
from fewbits.quantize.rounding import equal_slope_step, ordered_sum
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, lossy_weights, rounded_to, spec_of, values_of

_LEAST_ELEMENTS = 128  # of a tensor that is factored: fewer do not pay a codebook, nor its description


class Found(NamedTuple):
    """A tensor's factors, or those of its tiles, how they are written, and what is lost by them.

    spans: of elements; None for all of them.
    """

    spans: list[tuple[int, int] | None]
    factors: list[Factors]
    coded: list[Coded]
    losses: list[Loss]


class Qswd(TrainableMethod):
    """Weights as products of two quantised factors."""

    id = "qswd"
    code = 6
    payload_version = VERSION
    config_type = QswdConfig
    takes_covariances = True
    resumes_from = ("epr", "ecsq")

    def __init__(self, config: QswdConfig | None = None) -> None:
        """Build the method; the default settings choose for each tensor."""
        self.config = self.settings = config or QswdConfig()
        self._rest = Ecsq(EcsqConfig(blockwise=False))  # whose parts can be trained on
        self.started = NOTHING

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def survey(self, source: Source) -> Survey:
        """Count magnitudes, as for scalar quantisation, which is not far off."""
        return self._rest.survey(_plain(source))

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts; tensors that are not factored come as parts of `ecsq`, or of `lossless`."""
        specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        for unit in self.units(specs):
            written: list[Written] = []
            rest: dict[str, Tensor] = {}
            notes: dict[str, str] = {}
            for spec in unit:
                found, reason = self.factored(spec, source, rate_weight)
                if found is not None:
                    written.append(Written(spec, found.spans, found.coded, found.losses))
                    continue
                rest[spec.name] = source.tensors[spec.name]
                notes[spec.name] = f"coded by ecsq: {reason}" if reason else ""
            yield from chunks_of(self, written, seed)
            if rest:
                left = Source(rest, None, _plain(source).statistics, source.rate_divisor)
                for chunk in self._rest.encode(left, rate_weight=rate_weight, seed=seed):
                    yield noted(chunk, notes)

    def represent(self, source: Source, *, rate_weight: float, seed: int) -> QswdRepresentation:
        """Start latents: of the factors that `encode` would choose, and as `epr` has them of the other tensors.

        Raises:
            InvalidArgument: rate_weight is not a finite number of at least 0.
        """
        if not 0 <= rate_weight < math.inf:
            raise InvalidArgument(f"rate_weight must be a finite number of at least 0, not {rate_weight}.")
        return QswdRepresentation(self, source, rate_weight=rate_weight, seed=seed)

    def represent_rest(
        self, source: Source, rest: Mapping[str, Tensor], *, rate_weight: float, seed: int
    ) -> EprRepresentation:
        """Start latents of the tensors that are not factored."""
        steps = {glob.escape(name): step for name, step in self.started.steps.items()}
        config = EprConfig(average=self.settings.average, refresh=self.settings.refresh, first_steps=steps)
        method = self.started.rest or Epr(config)
        left = Source(rest, source.module, _plain(source).statistics, source.rate_divisor)
        return method.represent(left, rate_weight=rate_weight, seed=seed)

    @classmethod
    def resumed(cls, chunks: Sequence[Chunk]) -> "Qswd":
        """Build the method whose representations start from the factors of these parts, and from what is beside them.

        Levels of `epr` parts stay as they are; of `ecsq` parts the steps are taken, to the nearest that `epr` has.

        Raises:
            InvalidArgument: none of the parts has factors.
            Corrupt, Incompatible: as for `decode`.
        """
        config = next((chunk.config for chunk in chunks if chunk.method == cls.id), None)
        if config is None:
            raise InvalidArgument("none of these parts has factors.")
        method = cls.from_config(config)
        factors = [method.factors_of(chunk) for chunk in chunks if chunk.method == cls.id]
        method.started = started_from(chunks, factors)
        return method

    def factored(self, spec: TensorSpec, source: Source, rate_weight: float) -> tuple[Found | None, str]:
        """Return a tensor's factors; None, and why, if it is not factored.

        Raises:
            InvalidArgument: the covariance of its layer's inputs is of another size, not finite, or none of any inputs.
        """
        tensor = source.tensors[spec.name]
        weights, _ = lossy_weights(spec, tensor)
        rows, columns = matrix_shape(spec)
        if weights is None or len(spec.shape) < 2:
            return None, ""
        if min(rows, columns) < 2:
            return None, "it has one row or column"
        if spec.num_elements < _LEAST_ELEMENTS:
            return None, "too small to gain from factors"
        values = weights.values()
        if not values.any():
            return None, "it is zero"
        energy = weights.energy_at_stake()
        sensitivity, covariance = _statistics_of(source, spec.name, columns)
        step = equal_slope_step(energy, spec.num_elements, rate_weight, source.rate_divisor, sensitivity)
        if np.abs(values).max() >= step * (1 << 20):
            return None, "at this rate factors have no gain"
        matrix = values.reshape(rows, columns) / step
        spans = tiles(spec)
        found = Found([], [], [], [])
        for start, stop in spans:
            if start % columns or stop % columns:
                return None, "its rows are longer than a tile"
            tile = Tensor2d(matrix[start // columns : stop // columns], step, math.prod(spec.shape[2:]), covariance)
            candidate = chosen(tile, self.settings)
            if candidate is None:
                return None, "it cannot be cut into such vectors"
            after = values_of(rounded_to(candidate.factors.values(*tile.shape).ravel(), spec.dtype))
            if not np.isfinite(after).all():
                return None, f"its product would overflow {spec.dtype}"
            before = values[start:stop]
            bits = candidate.coded.bits
            found.spans.append((start, stop) if len(spans) > 1 else None)
            found.factors.append(candidate.factors)
            found.coded.append(candidate.coded)
            found.losses.append(Loss(ordered_sum((after - before) ** 2), ordered_sum(before * before), bits))
        return found, ""

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the products."""
        factors = self.factors_of(chunk)
        tensors = destinations(chunk, into)
        for spec in chunk.tensors:
            weights = Weights(bits_of(tensors[spec.name]), spec.dtype)
            write_values(weights, spec.name, factors[spec.name].values(*matrix_shape(spec, chunk.span)).ravel())
        return tensors

    def factors_of(self, chunk: Chunk) -> dict[str, Factors]:
        """Return the factors of a part's tensors, by name.

        Raises:
            Corrupt, Incompatible: as for `decode`.
        """
        check_version(chunk, self.payload_version)
        for spec in chunk.tensors:
            if spec.dtype not in LOSSY_DTYPES:
                raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have a qswd payload.")
        factors = read(bytes(chunk.payload), chunk.tensors, chunk.span)
        return dict(zip((spec.name for spec in chunk.tensors), factors, strict=True))


def _plain(source: Source) -> Source:
    """The source with the statistics alone that are numbers."""
    plain = {name: value for name, value in source.statistics.items() if not isinstance(value, np.ndarray)}
    return Source(source.tensors, source.module, plain, source.num_weights)


def _statistics_of(source: Source, name: str, num_inputs: int) -> tuple[float | None, NDArray[np.float64] | None]:
    """A tensor's sensitivity, or the covariance of its layer's inputs.

    Raises:
        InvalidArgument: the covariance is not of so many inputs, not finite, or not that of any inputs.
    """
    given = source.statistics.get(name)
    if not isinstance(given, np.ndarray):
        return given, None
    covariance = given.astype(np.float64)
    if covariance.shape != (num_inputs, num_inputs) or not np.isfinite(covariance).all():
        raise InvalidArgument(f"the covariance of {name!r} must be ({num_inputs}, {num_inputs}) and finite.")
    try:
        np.linalg.cholesky(in_whole_numbers(covariance) + (not covariance.any()) * np.eye(num_inputs))
    except np.linalg.LinAlgError as error:
        raise InvalidArgument(f"the covariance of {name!r} must be symmetric and positive semidefinite.") from error
    return None, covariance
