"""Minimal random code learning: a random sample of a posterior over the weights is sent, in blocks of equal length.

Weights have Gaussian posteriors against a zero-mean Gaussian prior a tensor. They are dealt out at random into blocks;
each block's divergence is held at its budget, and it is sent as the number of one of 2^bits candidates that both sides
draw of the prior. While blocks are still open, training goes on around those that are sent. How many bytes that takes
is known before training. Payload: docs/payload/miracle.md. Method: docs/methods/miracle.md.

Source: Havasi, Peharz, Hernández-Lobato 2019 (arXiv:1810.00440); the parameterisation by divergence Lin, Flamich,
Hernández-Lobato 2023 (arXiv:2307.07816). Differs: priors are final once the first block is sent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.leb128 import write_uint
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.method import Source, Survey, TrainableMethod
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.methods.miracle.config import MiracleConfig
from fewbits.methods.miracle.group import Settings, Start
from fewbits.methods.miracle.layout import Piece, sharing_of
from fewbits.methods.miracle.payload import VERSION, decode_part, description_size, tensors_of
from fewbits.methods.miracle.representation import MiracleRepresentation
from fewbits.patterns import matching
from fewbits.payload import check_version
from fewbits.plan import group_network, tile_shape, tiles
from fewbits.quantize.elements import write_values
from fewbits.quantize.parameter_decoders import nearest_code, step_of
from fewbits.quantize.rounding import energy_at_stake, equal_slope_step, ordered_sum
from fewbits.quantize.weights import Weights
from fewbits.tensors import LOSSY_DTYPES, bits_of, destinations, lossy_values, spec_of

_MOST_WIDTH, _MOST_TABLE = 1024, 1 << 27  # values of a block; numbers of a table of candidates
_MOST_VALUE_BITS = 12.0
_FURTHEST, _HALVINGS = 100.0, 60


class Slot(NamedTuple):
    """A tensor in a group, or a tile of one: where its elements start, their shape, and how they have values."""

    spec: TensorSpec
    span: tuple[int, int] | None
    start: int
    shape: tuple[int, ...]
    piece: Piece


class Plan(NamedTuple):
    """A part to be: its tensors, what they start from (None: zeros), and how many blocks."""

    slots: list[Slot]
    starts: list[Start | None]
    num_blocks: int


@dataclass(frozen=True)
class _Tensor:
    """What the number of blocks depends on, of one tensor or tile."""

    spec: TensorSpec
    num_values: int
    energy: float
    prior: float
    head_size: int  # bytes of its description, one more at most

    def bits(self, method: "Miracle", source: Source, rate_weight: float) -> float:
        """Bits that each of its values starts with: those of the channel whose error ecsq's quantiser would have."""
        step = equal_slope_step(
            self.energy, self.spec.num_elements, rate_weight, source.rate_divisor, source.statistics.get(self.spec.name)
        )
        if not self.energy or not math.isfinite(step):
            return 1.0
        error = max(step, 1e-30) ** 2 / 12
        return min(_MOST_VALUE_BITS, max(0.0, 0.5 * math.log2(max(self.prior**2 / error, 1.0))))


@dataclass(frozen=True)
class MiracleSurvey:
    """Of each part the tensors that get a posterior, and the others' bits."""

    method: "Miracle"
    source: Source  # without its tensors
    parts: tuple[tuple[_Tensor, ...], ...]
    exact_bits: float

    def bits(self, rate_weight: float) -> float:
        """Bits of all tensors: those that a file takes."""
        settings, total = self.method.settings, self.exact_bits
        for part in self.parts:
            num_blocks = self.method.num_blocks(part, self.source, rate_weight)
            total += 8 * (2 + len(write_uint(num_blocks)) + sum(tensor.head_size for tensor in part))
            total += 8 * math.ceil(settings.bits * num_blocks / 8)
        return total


class Miracle(TrainableMethod):
    """Numbers of candidates for random blocks of a Gaussian posterior's sample."""

    id = "miracle"
    code = 4
    payload_version = VERSION
    config_type = MiracleConfig

    def __init__(self, config: MiracleConfig | None = None) -> None:
        """Build the method."""
        self.settings = config or MiracleConfig()
        self.config = self.settings
        self.lossless = Lossless()

    @property
    def group(self) -> Settings:
        """What a group needs of the settings."""
        own = self.settings
        return Settings(
            own.bits,
            own.slack,
            own.by_divergence,
            own.first_penalty,
            own.penalty_rate,
            own.candidates,
            own.simulator,
            own.pick,
        )

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Keep networks of up to 2^22 weights together; of larger ones group small tensors."""
        return group_network(specs)

    def num_blocks(self, part: Sequence[_Tensor], source: Source, rate_weight: float) -> int:
        """Return how many blocks a part has: as its bits ask for, no block wider than a table allows."""
        num_values = sum(tensor.num_values for tensor in part)
        bits = sum(tensor.num_values * tensor.bits(self, source, rate_weight) for tensor in part)
        widest = max(1, min(_MOST_WIDTH, _MOST_TABLE >> self.settings.bits))
        least = -(-num_values // widest)
        wanted = self.settings.num_blocks or math.ceil(bits / (self.settings.bits - self.settings.slack))
        return min(num_values, max(least, wanted))

    def plans(
        self,
        specs: Sequence[TensorSpec],
        values: Mapping[str, NDArray[np.float64]],
        source: Source,
        rate_weight: float,
        seed: int,
    ) -> list[Plan]:
        """Return the parts of a source's tensors with these values (N,)."""
        plans: list[Plan] = []
        for slots in self._slots(specs, values):
            present, starts = list[_Tensor](), list[Start | None]()
            for index, slot in enumerate(slots):
                found = self._measured(slot, values[slot.spec.name], seed, index)
                if found is None:
                    starts.append(None)
                    continue
                tensor, own = found
                present.append(tensor)
                starts.append(Start(slot.piece, own, tensor.prior, tensor.bits(self, source, rate_weight)))
            plans.append(Plan(slots, starts, self.num_blocks(present, source, rate_weight)))
        return plans

    def _slots(self, specs: Sequence[TensorSpec], values: Mapping[str, Any]) -> list[list[Slot]]:
        groups: list[list[Slot]] = []
        for unit in group_network(specs):
            own = [spec for spec in unit if spec.name in values]
            if len(own) == 1 and len(tiles(own[0])) > 1:
                groups += [[self._slot(own[0], span)] for span in tiles(own[0])]
            elif own:
                groups.append([self._slot(spec, None) for spec in own])
        return groups

    def _slot(self, spec: TensorSpec, span: tuple[int, int] | None) -> Slot:
        shape = tile_shape(spec, span)
        live = matching(self.settings.live, spec.name) if span is None else None
        live = shape if live is None else tuple(live)
        if len(live) != len(shape) or any(a > b for a, b in zip(live, shape, strict=True)):
            raise InvalidArgument(f"tensor {spec.name!r} of shape {shape} cannot have {live} live.")
        share = min(matching(self.settings.share, spec.name) or 1, max(1, math.prod(live)))
        return Slot(spec, span, span[0] if span else 0, shape, Piece(shape, live, share))

    def _measured(
        self, slot: Slot, values: NDArray[np.float64], seed: int, index: int
    ) -> tuple[_Tensor, NDArray[np.float64]] | None:
        """What a slot asks for of its tensor's values (N,), and its own values; None for zeros that stay so."""
        values = values[slot.start : slot.start + math.prod(slot.shape)]
        live = values.reshape(slot.shape)[tuple(slice(size) for size in slot.piece.live)].reshape(-1)
        prior = matching(self.settings.first_priors, slot.spec.name)
        energy = energy_at_stake(live)
        if prior is None and not energy:
            return None
        sharing = sharing_of(slot.piece, seed, index)
        if sharing is not None:
            counts = np.bincount(sharing.value, minlength=slot.piece.num_values)
            live = np.bincount(sharing.value, live * sharing.sign, slot.piece.num_values) / counts
        if prior is None:
            # NUMERICS: by the greatest magnitude, whose square may be beyond float64.
            peak = max(float(np.abs(live).max()), 1e-300)
            prior = peak * math.sqrt(max(ordered_sum((live / peak) ** 2) / live.size, 1e-12))
        prior = float(step_of(nearest_code(prior)))
        return _Tensor(slot.spec, slot.piece.num_values, energy, prior, description_size(slot.piece)), live

    def survey(self, source: Source) -> Survey:
        """Measure the tensors; random numbers do not matter to sizes."""
        values: dict[str, NDArray[np.float64]] = {}
        specs, exact_bits = list[TensorSpec](), 0.0
        for name, tensor in source.tensors.items():
            specs.append(spec_of(name, tensor))
            found, _ = lossy_values(specs[-1], tensor)
            if found is None:
                exact_bits += code_bits(bits_of(tensor), specs[-1]).bits
            else:
                values[name] = found
        parts: list[tuple[_Tensor, ...]] = []
        for slots in self._slots(specs, values):
            found = [self._measured(slot, values[slot.spec.name], 0, index) for index, slot in enumerate(slots)]
            parts.append(tuple(each[0] for each in found if each is not None))
        rest = Source({}, None, source.statistics, source.rate_divisor)
        return MiracleSurvey(self, rest, tuple(parts), exact_bits)

    def rate_weight_within(self, source: Source, budget: int) -> float:
        """Return the rate weight with the most blocks that fit the bytes: sizes are known before training."""
        survey = self.survey(source)
        fine, coarse = -_FURTHEST, _FURTHEST  # log2 of rate weights; the size falls from one to the other
        if survey.bits(2.0**coarse) > 8 * budget:
            least = math.ceil(survey.bits(2.0**coarse) / 8)
            raise InvalidArgument(f"a budget of {budget} bytes is too small: this takes {least}.")
        for _ in range(_HALVINGS):
            middle = (fine + coarse) / 2
            if survey.bits(2.0**middle) > 8 * budget:
                fine = middle
            else:
                coarse = middle
        return 2.0**coarse

    def represent(self, source: Source, *, rate_weight: float, seed: int) -> MiracleRepresentation:
        """Start posteriors from the source's tensors.

        Raises:
            InvalidArgument: rate_weight is not a finite number of at least 0, or settings are not for a tensor.
        """
        if not 0 <= rate_weight < math.inf:
            raise InvalidArgument(f"rate_weight must be a finite number of at least 0, not {rate_weight}.")
        return MiracleRepresentation(self, source, rate_weight=rate_weight, seed=seed)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the values of the candidates that were chosen."""
        check_version(chunk, self.payload_version)
        for spec in chunk.tensors:
            if spec.dtype not in LOSSY_DTYPES:
                raise Corrupt(f"tensor {spec.name!r} of dtype {spec.dtype} cannot have a miracle payload.")
        tensors = destinations(chunk, into)
        part = decode_part(bytes(chunk.payload), [tile_shape(spec, chunk.span) for spec in chunk.tensors])
        dtypes = [spec.dtype for spec in chunk.tensors]
        for spec, found in zip(chunk.tensors, tensors_of(part, dtypes, chunk.seed), strict=True):
            write_values(Weights(bits_of(tensors[spec.name]), spec.dtype), spec.name, found.ravel())
        return tensors
