"""Quantised sparse weight decomposition: a weight as the product of two factors, one small, one sparse.

A layer may be computed from its factors, without the weight (`fewbits.nn.factored`). Payload: docs/payload/qswd.md.
Method: docs/methods/qswd.md.

Source: Kuzmin, van Baalen, Nagel, Behboodi 2022, arXiv:2207.11048, of which the abstract could be read: what is our
reading, the method's page says.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import Method, MethodConfig, Source, Survey
from fewbits.methods.ecsq import Ecsq
from fewbits.methods.qswd.choice import Candidate, Settings, Tensor2d, chosen
from fewbits.methods.qswd.payload import VERSION, matrix_shape, read, write
from fewbits.payload import check_version
from fewbits.plan import group_small, tiles
from fewbits.quantize.elements import write_values
from fewbits.quantize.factors import Factors
from fewbits.quantize.rounding import equal_slope_step, ordered_sum
from fewbits.quantize.tiling import SIDES, Tiling
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, lossy_weights, rounded_to, spec_of, values_of

FAMILIES = ("sparse", "svd", "vq")
_LEAST_ELEMENTS = 128  # of a tensor that is factored: fewer do not pay a codebook, nor its description


@dataclass(frozen=True)
class QswdConfig(MethodConfig):
    """What factors may be; which ones a tensor has is decided by error and measured bits.

    family: "sparse" (both factors quantised, one sparse), or one of its special cases: "svd" (no sparsity), "vq" (of a
        vector's coefficients one is 1, the others 0: k-means).
    tilings: sides and heights that are tried, [["rows", 16], ["columns", 9]]; by default those that suit a tensor.
    ranks: that are tried; by default those that suit it.
    turns: of the descent.
    """

    family: str = "sparse"
    tilings: tuple[tuple[str, int], ...] = ()
    ranks: tuple[int, ...] = ()
    turns: int = 12

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        if self.family not in FAMILIES:
            raise InvalidArgument(f"QswdConfig.family must be one of {', '.join(FAMILIES)}, not {self.family!r}.")
        values = self.to_json()  # whatever JSON holds, not what the annotations say
        for tiling in values["tilings"]:
            plain = isinstance(tiling, list | tuple) and len(tiling) == 2 and tiling[0] in SIDES
            if not plain or not _is_count(tiling[1]):
                raise InvalidArgument(f"QswdConfig.tilings has {tiling!r}, which is no side and height.")
        for rank in values["ranks"]:
            if not _is_count(rank):
                raise InvalidArgument(f"QswdConfig.ranks must be whole numbers of at least 1, not {rank!r}.")
        if not _is_count(self.turns):
            raise InvalidArgument(f"QswdConfig.turns must be a whole number of at least 1, not {self.turns!r}.")
        # JSON has lists only.
        object.__setattr__(self, "tilings", tuple((side, height) for side, height in self.tilings))
        object.__setattr__(self, "ranks", tuple(self.ranks))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class _Found(NamedTuple):
    """A tensor's factors, or those of its tiles."""

    spec: TensorSpec
    spans: list[tuple[int, int]]
    candidates: list[Candidate]
    losses: list[Loss]


class Qswd(Method):
    """Weights as products of two quantised factors."""

    id = "qswd"
    code = 6
    payload_version = VERSION
    config_type = QswdConfig
    takes_covariances = True

    def __init__(self, config: QswdConfig | None = None) -> None:
        """Build the method; the default settings choose for each tensor."""
        self.config = self._config = config or QswdConfig()
        tilings = tuple(Tiling(side, height) for side, height in self._config.tilings)
        self._settings = Settings(self._config.family, tilings, self._config.ranks, self._config.turns)
        self._rest = Ecsq()

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
            yield from self._encode_unit(unit, source, rate_weight, seed)

    def _encode_unit(
        self, unit: Sequence[TensorSpec], source: Source, rate_weight: float, seed: int
    ) -> Iterator[Chunk]:
        found: list[_Found] = []
        rest: dict[str, Tensor] = {}
        notes: dict[str, str] = {}
        for spec in unit:
            one, note = self._factored(spec, source, rate_weight)
            if one is not None:
                found.append(one)
                continue
            rest[spec.name] = source.tensors[spec.name]
            notes[spec.name] = note
        if len(found) == 1 and len(found[0].spans) > 1:
            one = found[0]
            for span, candidate, loss in zip(one.spans, one.candidates, one.losses, strict=True):
                yield self._chunk([one.spec], [candidate], [loss], seed, span)
        elif found:
            candidates, losses = [one.candidates[0] for one in found], [one.losses[0] for one in found]
            yield self._chunk([one.spec for one in found], candidates, losses, seed)
        if rest:
            left = Source(rest, None, _plain(source).statistics, source.rate_divisor)
            for chunk in self._rest.encode(left, rate_weight=rate_weight, seed=seed):
                losses = tuple(
                    loss if loss.note else loss._replace(note=notes[spec.name])
                    for spec, loss in zip(chunk.tensors, chunk.losses, strict=True)
                )
                yield chunk._replace(losses=losses)

    def _chunk(
        self,
        specs: Sequence[TensorSpec],
        candidates: Sequence[Candidate],
        losses: Sequence[Loss],
        seed: int,
        span: tuple[int, int] | None = None,
    ) -> Chunk:
        payload, config = write([each.coded for each in candidates]), self.config.to_json()
        return Chunk(
            self.id, self.payload_version, config, seed, tuple(specs), payload, span=span, losses=tuple(losses)
        )

    def _factored(self, spec: TensorSpec, source: Source, rate_weight: float) -> tuple[_Found | None, str]:
        """A tensor's factors; None, and why, if it is not factored."""
        tensor = source.tensors[spec.name]
        weights, _ = lossy_weights(spec, tensor)
        rows, columns = matrix_shape(spec)
        if weights is None or len(spec.shape) < 2:
            return None, ""
        if min(rows, columns) < 2:
            return None, "coded by ecsq: it has one row or column"
        if spec.num_elements < _LEAST_ELEMENTS:
            return None, "coded by ecsq: too small to gain from factors"
        values = weights.values()
        if not values.any():
            return None, "coded by ecsq: it is zero"
        energy = weights.energy_at_stake()
        sensitivity, covariance = _statistics_of(source, spec.name, columns)
        step = equal_slope_step(energy, spec.num_elements, rate_weight, source.rate_divisor, sensitivity)
        matrix = values.reshape(rows, columns) / step
        if np.abs(matrix).max() >= 1 << 20:
            return None, "coded by ecsq: at this rate factors have no gain"
        found = _Found(spec, tiles(spec), [], [])
        for start, stop in found.spans:
            if start % columns or stop % columns:
                return None, "coded by ecsq: its rows are longer than a tile"
            tile = Tensor2d(matrix[start // columns : stop // columns], step, math.prod(spec.shape[2:]), covariance)
            candidate = chosen(tile, self._settings)
            if candidate is None:
                return None, "coded by ecsq: it cannot be cut into such vectors"
            after = values_of(rounded_to(candidate.factors.values(*tile.shape).ravel(), spec.dtype))
            if not np.isfinite(after).all():
                return None, f"coded by ecsq: its product would overflow {spec.dtype}"
            before = values[start:stop]
            bits = candidate.coded.bits
            found.candidates.append(candidate)
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
        factors = read(chunk.payload, chunk.tensors, chunk.span)
        return dict(zip((spec.name for spec in chunk.tensors), factors, strict=True))


def _plain(source: Source) -> Source:
    """The source with the statistics alone that are numbers."""
    plain = {name: value for name, value in source.statistics.items() if not isinstance(value, np.ndarray)}
    return Source(source.tensors, source.module, plain, source.num_weights)


def _statistics_of(source: Source, name: str, num_inputs: int) -> tuple[float | None, NDArray[np.float64] | None]:
    """A tensor's sensitivity, or the covariance of its layer's inputs.

    Raises:
        InvalidArgument: the covariance is not of so many inputs, or not finite.
    """
    given = source.statistics.get(name)
    if not isinstance(given, np.ndarray):
        return given, None
    covariance = given.astype(np.float64)
    if covariance.shape != (num_inputs, num_inputs) or not np.isfinite(covariance).all():
        raise InvalidArgument(f"the covariance of {name!r} must be ({num_inputs}, {num_inputs}) and finite.")
    return None, covariance
