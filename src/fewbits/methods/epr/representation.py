"""Latents of a source's tensors: what `epr` trains, evaluates exactly, commits and writes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.method import Reconstruction, Source
from fewbits.methods.epr.frames import LevelTensor
from fewbits.methods.epr.groups import Strength
from fewbits.methods.epr.payload import encode_levels
from fewbits.methods.epr.tidy import tidy_units
from fewbits.methods.lossless import code_bits
from fewbits.nn.latent_tensor import LatentTensor, decoded_values
from fewbits.nn.level_representation import LevelRepresentation
from fewbits.nn.relaxed import relaxed
from fewbits.nn.units import UnitGroup
from fewbits.plan import group_network, tile_shape, tiles
from fewbits.tensors import bits_of, from_bits, lossy_values, spec_of

if TYPE_CHECKING:
    from fewbits.methods.epr import Epr


class EprRepresentation(LevelRepresentation):
    """Latents of a source's floating point tensors; what cannot be coded lossily stays as it is."""

    def __init__(self, method: "Epr", source: Source, *, rate_weight: float, seed: int) -> None:
        """Start the latents from the source's tensors, which are read and not kept."""
        settings = method.settings
        super().__init__(settings.latent_rounding(), settings.average, settings.refresh)
        self.rate_weight = rate_weight
        self.num_weights = source.rate_divisor
        self._method, self._seed = method, seed
        self._specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        self._exact: dict[str, tuple[Tensor, str]] = {}
        self.tensors = nn.ModuleList()
        strengths: list[Strength] = []
        for spec in self._specs:
            tensor = source.tensors[spec.name].detach()
            values, note = lossy_values(spec, tensor)
            if values is not None:
                strengths.append(Strength.of(spec, values))
            else:
                # A copy by its bits: torch cannot copy every dtype without complaint.
                copied = from_bits(bits_of(tensor).copy(), spec.dtype, spec.shape).to(tensor.device)
                self._exact[spec.name] = (copied, note)
        groups, slices = method.groups(self._specs), method.slices_of(source)
        steps = method.first_steps(strengths, groups, source, rate_weight)
        for spec, _, _ in strengths:
            tensor = source.tensors[spec.name].detach()
            self.tensors.append(method.latent_tensor(spec, tensor, steps[spec.name], slices))
        self._share(groups)
        self.steps = tuple(latents.spec.name for latents in self.latent_tensors())
        self._exact_bits = sum(
            code_bits(bits_of(tensor), spec_of(name, tensor)).bits for name, (tensor, _) in self._exact.items()
        )
        self._written: dict[tuple[str, ...], tuple[list[LevelTensor], list[Chunk]]] = {}

    def _share(self, groups: Sequence[Sequence[str]]) -> None:
        """Give the tensors of a group one decoder and, if it is learned, one density: the first one's."""
        latents_of = {latents.spec.name: latents for latents in self.latent_tensors()}
        for group in groups:
            members = [latents_of[name] for name in group if name in latents_of]
            for latents in members[1:]:
                latents.share(members[0])

    def latent_tensors(self) -> list[LatentTensor]:
        """Return the tensors that have latents, in the source's order."""
        return [module for module in self.tensors if isinstance(module, LatentTensor)]

    def forward(self) -> Reconstruction:
        """Return one draw: relaxed values and their rate in train(), what decode gives in eval()."""
        values: dict[str, Tensor] = {spec.name: torch.empty(0) for spec in self._specs}  # in the source's order
        values |= {name: tensor for name, (tensor, _) in self._exact.items()}
        if not self.training:
            values |= {latents.spec.name: latents.exact() for latents in self.latent_tensors()}
            written = sum(len(chunk.payload) for unit in self._units() for chunk in self._lossy(unit))
            return Reconstruction(values, torch.tensor(self._exact_bits + 8 * written))
        open_latents = [latents for latents in self.latent_tensors() if not latents.committed]
        bits = torch.tensor(self._exact_bits, dtype=torch.float32)
        if open_latents:
            relaxed_values, relaxed_bits = relaxed(open_latents, self.rounding)
            bits = bits.to(relaxed_bits.device) + relaxed_bits
            values |= zip((latents.spec.name for latents in open_latents), relaxed_values, strict=True)
        for latents in self.latent_tensors():
            if latents.committed:
                values[latents.spec.name] = latents.exact()
                with torch.no_grad():
                    levels = torch.from_numpy(latents.integers()[0]).to(latents.latents)
                    bits = bits.to(levels.device) + latents.density.total_bits(levels)
        return Reconstruction(values, bits)

    def owner_of(self, name: str) -> str:
        """Return the tensor that a parameter is of."""
        return self.latent_tensors()[int(name.split(".")[1])].spec.name

    def least_bytes(self) -> int:
        """Return the bytes of a coder, of each tensor's shortest description, and of what is kept exactly."""
        return 1 + 2 * len(self.latent_tensors()) + int(self._exact_bits / 8)

    def parameter_kind(self, name: str) -> str:
        """Return what a parameter is: latents; a decoder's step or basis; or a density's."""
        if ".density." in name:
            return "densities"
        return "latents" if name.endswith(".latents") else "decoders"

    def tidy(self, groups: Sequence[UnitGroup], others: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Empty dead units and sort the others, unless something is committed."""
        if any(latents.committed for latents in self.latent_tensors()):
            return others
        return tidy_units(groups, self.latent_tensors(), others)

    def commit(self, step: str) -> None:
        """Make one tensor's levels and decoder final."""
        if step not in self.steps:
            raise InvalidArgument(f"there is no step named {step!r} to commit.")
        self.latent_tensors()[self.steps.index(step)].commit()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts; tensors kept exactly come as parts of the lossless method."""
        for latents in self.latent_tensors():
            latents.commit()
        for unit in self._units():
            yield from self._lossy(unit)
            exact = [(spec, *self._exact[spec.name]) for spec in unit if spec.name in self._exact]
            if exact:
                yield from self._method.lossless.encode_unit(exact, self._seed)

    def _units(self) -> list[tuple[TensorSpec, ...]]:
        return group_network(self._specs)

    def _lossy(self, unit: Sequence[TensorSpec]) -> list[Chunk]:
        """The parts of a unit's tensors that have latents, as they are now."""
        latents_of = {latents.spec.name: latents for latents in self.latent_tensors()}
        unit_latents = [latents_of[spec.name] for spec in unit if spec.name in latents_of]
        if not unit_latents:
            return []
        now = [LevelTensor(one.spec.shape, *one.integers()) for one in unit_latents]
        # Evaluation loops ask again and again: nothing is coded again unless a level or a decoder has changed.
        names = tuple(one.spec.name for one in unit_latents)
        before, chunks = self._written.get(names, ([], []))
        if not (before and all(map(_equal, before, now))):
            chunks = list(self._coded(unit_latents, now))
            self._written[names] = now, chunks
        return chunks

    def _coded(self, latents: Sequence[LatentTensor], levels: Sequence[LevelTensor]) -> Iterator[Chunk]:
        if len(latents) > 1 or len(tiles(latents[0].spec)) == 1:
            yield self._chunk(latents, levels, None)
            return
        (one,), (whole,) = latents, levels
        for span in tiles(one.spec):
            yield self._chunk([one], [tile_of(whole, one.spec, span)], span)

    def _chunk(
        self, latents: Sequence[LatentTensor], levels: Sequence[LevelTensor], span: tuple[int, int] | None
    ) -> Chunk:
        payload = encode_levels(levels)
        entropies = [_entropy_bits(each.levels) for each in levels]
        total = sum(entropies)  # above 0: a tensor without elements has no latents
        losses: list[Loss] = []
        for one, each, entropy in zip(latents, levels, entropies, strict=True):
            share = 8 * len(payload) * entropy / total
            values = decoded_values(each.levels, each.decoder)
            losses.append(one.loss_of(values.reshape(-1), span[0] if span else 0, share))
        id, version, config = self._method.id, self._method.payload_version, self._method.config.to_json()
        specs = tuple(one.spec for one in latents)
        return Chunk(id, version, config, self._seed, specs, payload, span=span, losses=tuple(losses))


def tile_of(whole: LevelTensor, spec: TensorSpec, span: tuple[int, int]) -> LevelTensor:
    """Return the part of a tensor's levels that a range of its elements has: whole rows, or a flat range of scalars."""
    shape = tile_shape(spec, span)
    if len(shape) < 2:
        return LevelTensor(shape, whole.levels.reshape(-1)[span[0] : span[1]], whole.decoder)
    row = spec.num_elements // spec.shape[0]
    return LevelTensor(shape, whole.levels[span[0] // row : span[1] // row], whole.decoder)


def _equal(a: LevelTensor, b: LevelTensor) -> bool:
    return a.decoder == b.decoder and np.array_equal(a.levels, b.levels)


def _entropy_bits(levels: NDArray[np.int64]) -> float:
    """Zero-order entropy of levels, in bits: what share of a payload is a tensor's."""
    _, counts = np.unique(levels, return_counts=True)
    return float(-(counts * np.log2(counts / levels.size)).sum()) + 1.0
