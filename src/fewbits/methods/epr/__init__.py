"""Entropy-penalised reparameterisation: latents of the weights are trained against their own code length.

In training the network computes with straight-through rounded latents behind parameter decoders, and the rate is that
of the latents under adaptive counts or a learned density; commit rounds for good, and what codes the integers is fitted
to them. Payload: docs/payload/epr.md. Method: docs/methods/epr.md.

Source: Oktay, Ballé, Singh, Shrivastava 2020, arXiv:1906.06624; differs: the adaptive rate, and an adaptive coder.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import MethodConfig, Source, Survey, TrainableMethod
from fewbits.methods.epr.groups import Strength, groups_of, least_of_group
from fewbits.methods.epr.payload import VERSION, decode_levels
from fewbits.methods.epr.representation import EprRepresentation
from fewbits.methods.epr.start import Started, choice_of_decoder, started_from
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.models.adaptive_counts import AdaptiveCounts, Layout
from fewbits.models.deep_factorized import DeepFactorized
from fewbits.models.entropy_model import EntropyModel
from fewbits.models.laplace import Laplace
from fewbits.nn.latent_rounding import ROUNDINGS, LatentRounding
from fewbits.nn.latent_tensor import DecoderChoice, LatentTensor, decoded_values
from fewbits.nn.units import unit_groups
from fewbits.patterns import matching
from fewbits.payload import check_version
from fewbits.plan import group_network, tile_shape
from fewbits.quantize.elements import write_values
from fewbits.quantize.parameter_decoders import MOST_BASIS_WORK, MOST_KERNEL, nearest_code, step_of
from fewbits.quantize.rounding import equal_slope_step
from fewbits.quantize.survey import MagnitudeSurvey
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, lossy_values, spec_of

_FINEST = 2.0**-20  # of a tensor's first step, in units of its greatest magnitude: keeps levels in reach
_SIDE_BITS = 24  # of a tensor's description, about
RATES = ("adaptive", "deep_factorized", "laplace")
DECODERS = ("scalar", "dft", "matrix", "grid")


@dataclass(frozen=True)
class EprConfig(MethodConfig):
    """How latents are made and where training starts; decoding needs none of it.

    Tensors are named by patterns as in a shell ("*.weight"); of several that match, the first counts.

    rate: what the rate term is: "adaptive" counts, or a density a tensor: "deep_factorized", "laplace".
    rounding: what the task sees of latents in training: "straight_through" levels, "soft" rounding, or "universal"
        quantisation's noise (`LatentRounding`).
    sharpness, sharpness_steps: of the latter two at last, and training steps in which it rises there from 1.
    decoders: by pattern, "scalar" (else), "dft", "matrix", or {"kind": "grid", "size": [14, 14], "image": [28, 28],
        "margin": 2} for a layer that reads images.
    groups: by pattern, the name of a tensor's group. A group has one decoder, and one density if that is learned; its
        first step is the least of its tensors'. What has no group has its own.
    first_steps: by pattern, the first step of a tensor, in units of its weights.
    step_factor: the first step of other tensors in units of the equal-slope one, that of `ecsq` at the same rate
        weight. Networks trained from random weights want a coarse one: 2 to 4.
    zero_step: the first step of a tensor that holds zeros only.
    average: decay of the latents' moving average, which is what is evaluated and written; 0 for none.
    refresh: training steps from one count of the adaptive rate to the next.
    """

    rate: str = "adaptive"
    rounding: str = "straight_through"
    sharpness: float = 10.0
    sharpness_steps: int = 10_000
    decoders: Mapping[str, Any] = field(default_factory=dict[str, Any])
    groups: Mapping[str, str] = field(default_factory=dict[str, str])
    first_steps: Mapping[str, float] = field(default_factory=dict[str, float])
    step_factor: float = 1.0
    zero_step: float = 0.1
    average: float = 0.995
    refresh: int = 50

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        if self.rate not in RATES:
            raise InvalidArgument(f"EprConfig.rate must be one of {', '.join(RATES)}, not {self.rate!r}.")
        if self.rounding not in ROUNDINGS:
            raise InvalidArgument(f"EprConfig.rounding must be one of {', '.join(ROUNDINGS)}, not {self.rounding!r}.")
        values = self.to_json()  # whatever JSON holds, not what the annotations say
        sharpness = values["sharpness"]
        if isinstance(sharpness, bool) or not isinstance(sharpness, int | float) or not 1 <= sharpness < math.inf:
            raise InvalidArgument(f"EprConfig.sharpness must be a finite number of at least 1, not {sharpness!r}.")
        steps = {f"first_steps[{name!r}]": step for name, step in values["first_steps"].items()}
        for name, value in (*((name, values[name]) for name in ("step_factor", "zero_step")), *steps.items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InvalidArgument(f"EprConfig.{name} must be a finite number above 0, not {value!r}.")
        if isinstance(self.average, bool) or not 0 <= self.average < 1:
            raise InvalidArgument(f"EprConfig.average must be 0 or more and less than 1, not {self.average!r}.")
        for name in ("refresh", "sharpness_steps"):
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgument(f"EprConfig.{name} must be a whole number of at least 1, not {value!r}.")
        for pattern, value in values["groups"].items():
            if not isinstance(value, str):
                raise InvalidArgument(f"EprConfig.groups[{pattern!r}] must be a group's name, not {value!r}.")
        for pattern, value in self.decoders.items():
            _choice_of(pattern, value)

    def latent_rounding(self) -> LatentRounding:
        """Return what rounds latents in training, at its start."""
        return LatentRounding(self.rounding, self.sharpness, self.sharpness_steps)


def _choice_of(pattern: str, value: Any) -> DecoderChoice:
    """Read a decoder's setting."""
    if isinstance(value, str):
        value = {"kind": value}
    wrong = InvalidArgument(f"EprConfig.decoders[{pattern!r}] is no decoder: {value!r}.")
    if not isinstance(value, Mapping) or value.get("kind") not in DECODERS:
        raise wrong
    settings: dict[str, Any] = dict(value)
    kind = settings.pop("kind")
    if kind != "grid":
        if settings:
            raise wrong
        return DecoderChoice(kind)
    try:
        size, image = (tuple(int(side) for side in settings.pop(key)) for key in ("size", "image"))
        margin = int(settings.pop("margin", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise wrong from error
    if (
        settings
        or len(size) != 2
        or len(image) != 2
        or not all(0 < g <= i < 256 for g, i in zip(size, image, strict=True))
    ):
        raise wrong
    if not 0 <= 2 * margin < min(image) or max(g * i for g, i in zip(size, image, strict=True)) > MOST_BASIS_WORK:
        raise wrong
    return DecoderChoice(kind, (size[0], size[1]), (image[0], image[1]), margin)


@dataclass(frozen=True)
class EprSurvey:
    """Magnitudes of the tensors that get latents, each with what its first step depends on, and the others' bits."""

    method: "Epr"
    source: Source  # without its tensors
    magnitudes: tuple[tuple[Strength, MagnitudeSurvey], ...]
    groups: Sequence[Sequence[str]]  # by name
    exact_bits: float

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors before any training."""
        strengths = [strength for strength, _ in self.magnitudes]
        steps = self.method.first_steps(strengths, self.groups, self.source, rate_weight)
        sizes = [magnitudes.bits(steps[strength.spec.name]) for strength, magnitudes in self.magnitudes]
        return self.exact_bits + sum(sizes) + _SIDE_BITS * len(sizes)


class Epr(TrainableMethod):
    """Latents behind parameter decoders, trained against their own code length."""

    id = "epr"
    code = 3
    payload_version = VERSION
    config_type = EprConfig

    def __init__(self, config: EprConfig | None = None) -> None:
        """Build the method; the default settings suit trained networks."""
        self.settings = config or EprConfig()
        self.config = self.settings
        self.lossless = Lossless()
        self.started: Mapping[str, Started] = {}

    @classmethod
    def resumed(cls, chunks: Sequence[Chunk]) -> "Epr":
        """Build the method whose representations start from the latents of these parts."""
        method = cls.from_config(chunks[0].config)
        method.started = started_from(chunks)
        return method

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Keep networks of up to 2^22 weights together; of larger ones group small tensors."""
        return group_network(specs)

    def groups(self, specs: Sequence[TensorSpec]) -> list[list[str]]:
        """Return the names of the tensors of each group."""
        return groups_of(specs, self.settings.groups)

    def first_steps(
        self, strengths: Sequence[Strength], groups: Sequence[Sequence[str]], source: Source, rate_weight: float
    ) -> dict[str, float]:
        """Return the step that each tensor starts with, by name; those of a group start with the least of theirs."""
        steps = {one.spec.name: self._own_step(one, source, rate_weight) for one in strengths}
        return least_of_group(steps, groups)

    def _own_step(self, strength: Strength, source: Source, rate_weight: float) -> float:
        spec, energy, peak = strength
        step = matching(self.settings.first_steps, spec.name)
        if step is None and energy == 0:
            step = self.settings.zero_step
        if step is None:
            sensitivity = source.statistics.get(spec.name)
            step = self.settings.step_factor * equal_slope_step(
                energy, spec.num_elements, rate_weight, source.rate_divisor, sensitivity
            )
        # One that a file can hold: latents are the values in this step, and must not come back in another.
        return float(step_of(nearest_code(max(step, _FINEST * peak))))

    def latent_tensor(
        self,
        spec: TensorSpec,
        tensor: Tensor,
        first_step: float,
        slices: Mapping[str, int],
    ) -> LatentTensor:
        """Return the latents of a tensor, by its first step and, by `slices_of`, its number of slices."""
        started = self.started.get(spec.name)
        if started is not None:
            first_step, choice = 1.0, choice_of_decoder(started.tensor.decoder)
        else:
            choice = _choice_of(spec.name, matching(self.settings.decoders, spec.name) or "scalar")
        if choice.kind in ("dft", "matrix") and math.prod(spec.shape[2:]) > MOST_KERNEL:
            raise InvalidArgument(f"tensor {spec.name!r} has kernels of more than {MOST_KERNEL} elements, for a basis.")

        def density(latents: Tensor) -> EntropyModel:
            return self._density(spec, choice, latents, slices.get(spec.name))

        latents = LatentTensor(spec, tensor, choice, first_step, density, self.settings.average)
        if started is not None:
            latents.start(started.tensor.levels, started.tensor.decoder, started.loss)
        return latents

    def _density(
        self, spec: TensorSpec, choice: DecoderChoice, latents: Tensor, num_slices: int | None
    ) -> EntropyModel:
        if self.settings.rate == "laplace":
            return Laplace(float(latents.abs().mean()))
        if self.settings.rate == "deep_factorized":
            # A density for each coefficient of a kernel's basis, one for all else.
            return DeepFactorized(latents.shape[-1] if choice.kind in ("dft", "matrix") else 1)
        if len(spec.shape) < 2:
            return AdaptiveCounts(latents, Layout(1, latents.numel(), 1))
        rows, rest = spec.shape[0], latents.numel() // spec.shape[0]
        if choice.kind == "grid":
            return AdaptiveCounts(latents, Layout(rows, rest, 1))
        count = num_slices if len(spec.shape) == 2 and num_slices is not None else spec.shape[1]
        count = count if count and rest % count == 0 else rest
        return AdaptiveCounts(latents, Layout(rows, count, rest // count))

    @staticmethod
    def slices_of(source: Source) -> dict[str, int]:
        """Return, by name, how many input units a flattened layer's columns belong to, where the module tells."""
        if source.module is None:
            return {}
        groups = unit_groups(source.module)
        return {use.name: group.size for group in groups for use in group.uses if use.role == "consumer"}

    def survey(self, source: Source) -> Survey:
        """Count magnitudes."""
        magnitudes: list[tuple[Strength, MagnitudeSurvey]] = []
        exact_bits = 0.0
        for name, tensor in source.tensors.items():
            spec = spec_of(name, tensor)
            values, _ = lossy_values(spec, tensor)
            if values is not None:
                strength = Strength.of(spec, values)
                magnitudes.append((strength, MagnitudeSurvey.of(values, strength.energy)))
            else:
                exact_bits += code_bits(bits_of(tensor), spec).bits
        rest = Source({}, None, source.statistics, source.rate_divisor)
        groups = self.groups([spec_of(name, tensor) for name, tensor in source.tensors.items()])
        return EprSurvey(self, rest, tuple(magnitudes), groups, exact_bits)

    def represent(self, source: Source, *, rate_weight: float, seed: int) -> EprRepresentation:
        """Start latents from the source's tensors.

        Raises:
            InvalidArgument: rate_weight is not a finite number of at least 0, or a decoder is not for its tensor.
        """
        if not 0 <= rate_weight < math.inf:
            raise InvalidArgument(f"rate_weight must be a finite number of at least 0, not {rate_weight}.")
        return EprRepresentation(self, source, rate_weight=rate_weight, seed=seed)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the values of levels behind their decoders."""
        check_version(chunk, self.payload_version)
        for spec in chunk.tensors:
            if spec.dtype not in LOSSY_DTYPES:
                raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have an epr payload.")
        tensors = destinations(chunk, into)
        shapes = [(spec, tile_shape(spec, chunk.span)) for spec in chunk.tensors]
        for spec, found in zip(chunk.tensors, decode_levels(bytes(chunk.payload), shapes), strict=True):
            weights = Weights(bits_of(tensors[spec.name]), spec.dtype)
            write_values(weights, spec.name, decoded_values(found.levels, found.decoder).ravel())
        return tensors
