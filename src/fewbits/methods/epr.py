"""Entropy-penalised reparameterisation: latents of the weights are trained against their own code length.

A small form: one scalar decoder (a learned step) and one parametric density a tensor. In training the network computes
with straight-through rounded latents and the rate is that of noisy ones; commit rounds for good, and an integer table
takes the density's place. Payload: docs/payload/epr.md. Method: docs/methods/epr.md.

Source: Oktay, Ballé, Singh, Shrivastava 2020, arXiv:1906.06624; differs: Laplace densities, no decoders over groups.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, NARROW_BITS, decode_into, encode_body, framing_bits
from fewbits.coder.integers import ArraySpec
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import MethodConfig, Reconstruction, Representation, Source, Survey, TrainableMethod
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.models.descriptions import read_models
from fewbits.nn.latent_tensor import (
    SIDE_BITS,
    Coded,
    LatentTensor,
    code_levels,
    spans_of,
)
from fewbits.payload import check_version, element_ranges, read_step
from fewbits.plan import SMALL, group_small, is_group
from fewbits.quantize.elements import QuantisedElements
from fewbits.quantize.rounding import energy_at_stake, equal_slope_step
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, from_bits, lossy_values, spec_of

# The first step, at least, in units of the tensor's greatest magnitude: keeps latents exact and levels in reach.
_FINEST = 2.0**-20


@dataclass(frozen=True)
class EprConfig(MethodConfig):
    """Where training starts; decoding needs none of it.

    step_factor: the first step in units of the equal-slope one, that of `ecsq` at the same rate weight. Networks
        trained from random weights want a coarse one: 2 to 4.
    zero_step: the first step of a tensor that holds zeros only.
    """

    step_factor: float = 1.0
    zero_step: float = 0.1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not a finite number above 0.
        """
        for name, value in self.to_json().items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InvalidArgument(f"EprConfig.{name} must be a finite number above 0, not {value!r}.")


class EprRepresentation(Representation):
    """Latents of a source's floating point tensors; what cannot be coded lossily stays as it is."""

    def __init__(self, method: "Epr", source: Source, *, rate_weight: float, seed: int) -> None:
        """Start the latents from the source's tensors, which are read and not kept."""
        super().__init__()
        self.rate_weight = rate_weight
        self.num_weights = source.rate_divisor
        self._method, self._seed = method, seed
        self._specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        self._exact: dict[str, tuple[Tensor, str]] = {}
        self.tensors = nn.ModuleList()
        for spec in self._specs:
            tensor = source.tensors[spec.name].detach()
            values, note = lossy_values(spec, tensor)
            if values is not None:
                first_step = method.first_step(spec, values, source, rate_weight)
                self.tensors.append(LatentTensor(spec, tensor, first_step))
            else:
                # A copy by its bits: torch cannot copy every dtype without complaint.
                copied = from_bits(bits_of(tensor).copy(), spec.dtype, spec.shape).to(tensor.device)
                self._exact[spec.name] = (copied, note)
        self.steps = tuple(latents.spec.name for latents in self._latents())
        self._exact_bits = sum(
            code_bits(bits_of(tensor), spec_of(name, tensor)).bits for name, (tensor, _) in self._exact.items()
        )

    def _latents(self) -> list[LatentTensor]:
        return [module for module in self.tensors if isinstance(module, LatentTensor)]

    def forward(self) -> Reconstruction:
        """Return one draw: straight-through values and the noisy rate in train(), what decode gives in eval()."""
        values: dict[str, Tensor] = {spec.name: torch.empty(0) for spec in self._specs}  # in the source's order
        values |= {name: tensor for name, (tensor, _) in self._exact.items()}
        bits = torch.tensor(self._exact_bits)
        final_bits, pooled = 0.0, False
        for latents in self._latents():
            if self.training and not latents.committed:
                values[latents.spec.name], tensor_bits = latents.relaxed()
                bits = bits.to(tensor_bits.device) + tensor_bits
            else:
                values[latents.spec.name], tensor_bits = latents.exact()
                final_bits += tensor_bits
            pooled |= latents.spec.num_elements < SMALL
        return Reconstruction(values, bits + (final_bits + NARROW_BITS * pooled))

    def commit(self, step: str) -> None:
        """Make one tensor's levels and step final."""
        if step not in self.steps:
            raise InvalidArgument(f"there is no step named {step!r} to commit.")
        self._latents()[self.steps.index(step)].commit()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts; tensors kept exactly come as parts of the lossless method."""
        latents_of = {latents.spec.name: latents for latents in self._latents()}
        for latents in latents_of.values():
            latents.commit()
        for unit in group_small(self._specs):
            latents = [latents_of[spec.name] for spec in unit if spec.name in latents_of]
            exact = [(spec, *self._exact[spec.name]) for spec in unit if spec.name in self._exact]
            if latents and not is_group(unit):
                yield from self._large(latents[0])
            elif latents:
                coded = [code_levels(*one.integers()) for one in latents]
                losses = [one.loss_of(*one.integers(), 0, item.bits) for one, item in zip(latents, coded, strict=True)]
                yield self._chunk([one.spec for one in latents], coded, losses, wide=False)
            if exact:
                yield from self._method.lossless.encode_unit(exact, self._seed)

    def _large(self, latents: LatentTensor) -> Iterator[Chunk]:
        levels, step = latents.integers()
        spans = spans_of(latents.spec)
        for span in spans:
            tile = levels[span[0] : span[1]]
            coded = code_levels(tile, step)
            wide = coded.bits >= LEAST_WIDE_BITS
            loss = latents.loss_of(tile, step, span[0], coded.bits + framing_bits(coded.bits))
            yield self._chunk([latents.spec], [coded], [loss], wide=wide, span=span if len(spans) > 1 else None)

    def _chunk(
        self,
        specs: Sequence[TensorSpec],
        coded: Sequence[Coded],
        losses: Sequence[Loss],
        *,
        wide: bool,
        span: tuple[int, int] | None = None,
    ) -> Chunk:
        payload = b"".join(item.description for item in coded) + encode_body([item.array for item in coded], wide=wide)
        id, version, config = self._method.id, self._method.payload_version, self._method.config.to_json()
        return Chunk(id, version, config, self._seed, tuple(specs), payload, span=span, losses=tuple(losses))


@dataclass(frozen=True)
class EprSurvey:
    """Magnitudes of the tensors that get latents, each with what its first step depends on, and the others' bits."""

    method: "Epr"
    source: Source  # without its tensors
    magnitudes: tuple[tuple[TensorSpec, MagnitudeSurvey, float], ...]  # with the greatest magnitude
    exact_bits: float

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors before any training."""
        total = self.exact_bits
        for spec, magnitudes, peak in self.magnitudes:
            step = self.method.step_of(spec, magnitudes.energy, peak, self.source, rate_weight)
            total += magnitudes.bits(step) + SIDE_BITS
        return total


class Epr(TrainableMethod):
    """Latents trained against their own code length: one learned step and one Laplace density a tensor."""

    id = "epr"
    code = 3
    payload_version = 1
    config_type = EprConfig

    def __init__(self, config: EprConfig | None = None) -> None:
        """Build the method; the default settings suit trained networks."""
        self.settings = config or EprConfig()
        self.config = self.settings
        self.lossless = Lossless()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def step_of(self, spec: TensorSpec, energy: float, peak: float, source: Source, rate_weight: float) -> float:
        """Return the step that a tensor of this energy (`energy_at_stake`) and greatest magnitude starts with."""
        if energy == 0:
            return self.settings.zero_step
        sensitivity = source.statistics.get(spec.name)
        step = equal_slope_step(energy, spec.num_elements, rate_weight, source.rate_divisor, sensitivity)
        return max(self.settings.step_factor * step, _FINEST * peak)

    def first_step(self, spec: TensorSpec, values: NDArray[np.float64], source: Source, rate_weight: float) -> float:
        """Return the step that a tensor with these values (N,) starts with."""
        return self.step_of(spec, energy_at_stake(values), float(np.abs(values).max()), source, rate_weight)

    def survey(self, source: Source) -> Survey:
        """Count magnitudes."""
        magnitudes: list[tuple[TensorSpec, MagnitudeSurvey, float]] = []
        exact_bits = 0.0
        for name, tensor in source.tensors.items():
            spec = spec_of(name, tensor)
            values, _ = lossy_values(spec, tensor)
            if values is not None:
                survey = MagnitudeSurvey.of(values, energy_at_stake(values))
                magnitudes.append((spec, survey, float(np.abs(values).max())))
            else:
                exact_bits += code_bits(bits_of(tensor), spec).bits
        rest = Source({}, None, source.statistics, source.rate_divisor)
        return EprSurvey(self, rest, tuple(magnitudes), exact_bits)

    def represent(self, source: Source, *, rate_weight: float, seed: int) -> EprRepresentation:
        """Start latents from the source's tensors.

        Raises:
            InvalidArgument: rate_weight is not a finite number of at least 0.
        """
        if not 0 <= rate_weight < math.inf:
            raise InvalidArgument(f"rate_weight must be a finite number of at least 0, not {rate_weight}.")
        return EprRepresentation(self, source, rate_weight=rate_weight, seed=seed)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return latents × step."""
        check_version(chunk, self.payload_version)
        position = 0
        arrays: list[ArraySpec] = []
        elements: list[QuantisedElements] = []
        tensors = destinations(chunk, into)
        for spec, span in element_ranges(chunk):
            if spec.dtype not in LOSSY_DTYPES:
                raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have an epr payload.")
            step, position = read_step(chunk.payload, position, spec)
            models, position = read_models(chunk.payload, position)
            if models.class_model is not None:
                raise Corrupt(f"tensor {spec.name!r} has several models in an epr payload.")
            arrays.append(ArraySpec(1, span[1] - span[0], models))
            weights = Weights(bits_of(tensors[spec.name]), spec.dtype)
            elements.append(QuantisedElements(weights, spec.name, step, None))
        decode_into(chunk.payload[position:], arrays, elements, num_threads=num_threads)
        return tensors
