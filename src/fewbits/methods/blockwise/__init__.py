"""Weights that were quantised in blocks before, on the grid that they lie on.

A checkpoint that was once quantised and is stored as floats again has few values a block: its levels are coded, and a
scale and maybe an offset of each block, to the bit or as exactly as pays. `ecsq` and `sic` try this for each tensor, as
`compress(…, lossless=True)` does; where a tensor has no such grid, this method leaves it to `lossless`.
Payload: docs/payload/blockwise.md. Method: docs/methods/blockwise.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import LEAST_WIDE_BITS, framing_bits
from fewbits.coder.scratch import scratch_array
from fewbits.errors import Corrupt
from fewbits.method import Curvature, Method, MethodConfig, Source, Survey
from fewbits.methods.blockwise.payload import PAYLOAD_VERSION, blocks_of, payload_of
from fewbits.methods.blockwise.quantiser import BlockQuantiser, BlockRates, Candidate
from fewbits.methods.lossless import Lossless, code_bits
from fewbits.plan import TILE, group_small, is_group, tiles
from fewbits.quantize.block_grid import Layout, find_layout, read_grid
from fewbits.quantize.rounding import BIT_WORTH, equal_slope_step
from fewbits.quantize.weights import Weights
from fewbits.tensors import bits_of, destinations, lossy_weights, spec_of

__all__ = [
    "BlockRates",
    "Blocked",
    "Blockwise",
    "BlockwiseConfig",
    "Candidate",
    "Gridded",
    "chunk_of",
    "gridded",
]

_LEAST_ELEMENTS = 1024


@dataclass(frozen=True)
class BlockwiseConfig(MethodConfig):
    """No settings: how exactly scales are told is decided by what errors and bits weigh."""


class Blocked(NamedTuple):
    """A tensor's parts, coded block by block, what they take, and that and their errors' cost, in bits."""

    chunks: list[Chunk]
    bits: float
    total: float


@dataclass(frozen=True)
class Gridded:
    """A tensor that seems to lie on a grid, and the spans that it is coded in: ranges of whole rows."""

    spec: TensorSpec
    weights: Weights
    layout: Layout
    spans: Sequence[tuple[int, int]]
    curvature: Curvature | None

    def rates(self) -> list[BlockRates] | None:
        """Return what is known in advance of each span; None if there is no grid after all."""
        rates: list[BlockRates] = []
        for span in self.spans:
            quantiser = self._quantiser(span)
            if quantiser is None:
                return None
            rates.append(quantiser.rates)
        return rates

    def candidate(self, slope: float) -> Candidate | None:
        """Code where a bit is worth so much, if there is one span; None if there is no grid after all."""
        found = self._quantiser(self.spans[0])
        return None if found is None else found.candidate(slope)

    def coded(self, slopes: Sequence[float], seed: int) -> Blocked | None:
        """Code where a bit is worth so much in each span, at 0 to the bit; None if a span cannot be coded so."""
        chunks, bits, total = list[Chunk](), 0.0, 0.0
        for span, slope in zip(self.spans, slopes, strict=True):
            quantiser = self._quantiser(span)
            candidate = quantiser and quantiser.candidate(slope)
            if not candidate:
                return None
            chunk = chunk_of([self.spec], [candidate], seed, span if len(self.spans) > 1 else None)
            chunks.append(chunk)
            bits += chunk.losses[0].bits
            total += chunk.losses[0].bits + (candidate.cost / slope if candidate.cost else 0.0)
        return Blocked(chunks, bits, total)

    def _quantiser(self, span: tuple[int, int]) -> BlockQuantiser | None:
        # Made when it is needed: all spans' levels together are as large as the tensor.
        part = self.weights.part(*span)
        grid = read_grid(part, self.layout)
        if grid is None:
            return None
        row_length = self.spec.num_elements // self.spec.num_rows
        own = self.curvature and self.curvature.of_rows(span[0] // row_length, span[1] // row_length)
        return BlockQuantiser(part, grid, own)


def gridded(
    spec: TensorSpec, weights: Weights, spans: Sequence[tuple[int, int]], curvature: Curvature | None = None
) -> Gridded | None:
    """Look for the grid that a tensor's weights lie on, in a sample; None if there is none, as in most tensors.

    Args:
        spec: of the tensor.
        weights: all of it, finite.
        spans: ranges of whole rows that it is coded in.
        curvature: of the tensor; without one all errors of a span count alike.
    """
    row_length = spec.num_elements // max(1, spec.num_rows)
    if len(spec.shape) < 2 or spec.num_elements < _LEAST_ELEMENTS or row_length > TILE:
        return None
    layout = find_layout(weights, spec.num_rows)
    return None if layout is None else Gridded(spec, weights, layout, spans, curvature)


def chunk_of(
    specs: Sequence[TensorSpec], candidates: Sequence[Candidate], seed: int, span: tuple[int, int] | None = None
) -> Chunk:
    """Return the part of tensors that are coded: of a group of small ones, of a large one, or of a span of it."""
    wide = len(specs) == 1 and candidates[0].loss.bits >= LEAST_WIDE_BITS
    payload = payload_of([each.written for each in candidates], wide=wide)
    framing = framing_bits(candidates[0].loss.bits if wide else 0.0) / len(candidates)
    losses = tuple(each.loss._replace(bits=each.loss.bits + framing) for each in candidates)
    config = BlockwiseConfig().to_json()
    return Chunk(Blockwise.id, PAYLOAD_VERSION, config, seed, tuple(specs), payload, span=span, losses=losses)


@dataclass(frozen=True)
class _Survey:
    """Rates of gridded spans, each with what a bit is worth there at rate weight 1; and bits of all else."""

    rates: tuple[tuple[BlockRates, float], ...]
    other_bits: float

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        return self.other_bits + sum(rates.expected(rate_weight * slope).bits for rates, slope in self.rates)


class Blockwise(Method):
    """Levels of blocks as they are, scales and offsets as exactly as pays."""

    id = "blockwise"
    code = 8
    payload_version = PAYLOAD_VERSION
    config_type = BlockwiseConfig

    def __init__(self, config: BlockwiseConfig | None = None) -> None:
        """Build the method; there is nothing to set."""
        self.config = config or BlockwiseConfig()
        self._lossless = Lossless()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Group small tensors; every other one stands alone."""
        return group_small(specs)

    def survey(self, source: Source) -> Survey:
        """Look for grids."""
        rates: list[tuple[BlockRates, float]] = []
        other_bits = 0.0
        for name, tensor in source.tensors.items():
            spec = spec_of(name, tensor)
            found = _found(spec, tensor)
            of_spans = found and found.rates()
            if not of_spans:
                other_bits += code_bits(bits_of(tensor), spec).bits
            else:
                slope = _slope(spec, tensor, source, 1.0)
                rates += [(each, slope) for each in of_spans]
        return _Survey(tuple(rates), other_bits)

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield the parts, at rate weight 0 to the bit; other tensors come as parts of the lossless method."""
        specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        for unit in self.units(specs):
            rest: list[tuple[TensorSpec, Tensor, str]] = []
            small: dict[TensorSpec, Candidate] = {}
            for spec in unit:
                tensor = source.tensors[spec.name]
                found = _found(spec, tensor)
                slope = _slope(spec, tensor, source, rate_weight) if found and rate_weight > 0 else 0.0
                if found and is_group(unit):
                    candidate = found.candidate(slope)
                    if candidate and _pays(spec, tensor, slope, candidate.loss.bits):
                        small[spec] = candidate
                        continue
                elif found:
                    blocked = found.coded([slope] * len(found.spans), seed)
                    if blocked and _pays(spec, tensor, slope, blocked.bits):
                        yield from blocked.chunks
                        continue
                rest.append((spec, tensor, ""))
            if small:
                yield chunk_of(list(small), list(small.values()), seed)
            if rest:
                yield from self._lossless.encode_unit(rest, seed)

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the values of blocks."""
        found = blocks_of(chunk, num_threads, scratch_array)
        tensors = destinations(chunk, into)
        for spec, blocks in zip(chunk.tensors, found, strict=True):
            if not blocks.write(Weights(bits_of(tensors[spec.name]), spec.dtype)):
                raise Corrupt(f"tensor {spec.name!r} decodes to values that are not finite.")
        return tensors


def _found(spec: TensorSpec, tensor: Tensor) -> Gridded | None:
    weights = lossy_weights(spec, tensor)[0]
    return None if weights is None else gridded(spec, weights, tiles(spec))


def _pays(spec: TensorSpec, tensor: Tensor, slope: float, bits: float) -> bool:
    """Whether blocks are worth it: what loses nothing either way is written in the shorter way."""
    return slope > 0 or bits < code_bits(bits_of(tensor), spec).bits


def _slope(spec: TensorSpec, tensor: Tensor, source: Source, rate_weight: float) -> float:
    """What a bit is worth of a tensor's squared error."""
    weights = lossy_weights(spec, tensor)[0]
    assert weights is not None
    sensitivity = source.statistics.get(spec.name)
    known = float(sensitivity) if isinstance(sensitivity, float) else None
    step = equal_slope_step(weights.energy_at_stake(), spec.num_elements, rate_weight, source.rate_divisor, known)
    return BIT_WORTH * step * step
