"""Factors of a source's tensors as latents: what `qswd` trains, evaluates exactly, commits and writes.

Tensors that are not factored are latents of `epr` beside them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fewbits.chunk import Chunk, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.method import Reconstruction, Source
from fewbits.methods.qswd.latents import FactorLatents
from fewbits.methods.qswd.parts import Written, chunks_of, noted
from fewbits.methods.qswd.payload import matrix_shape
from fewbits.methods.qswd.start import NOTHING, StartedTile
from fewbits.nn.latent_rounding import LatentRounding
from fewbits.nn.latent_tensor import LatentTensor
from fewbits.nn.level_representation import LevelRepresentation
from fewbits.nn.relaxed import relaxed
from fewbits.tensors import spec_of

if TYPE_CHECKING:
    from fewbits.methods.qswd import Qswd


class QswdRepresentation(LevelRepresentation):
    """Factors of those tensors that are worth it, latents of `epr` of the others."""

    def __init__(self, method: "Qswd", source: Source, *, rate_weight: float, seed: int) -> None:
        """Start from the source's tensors, which are read and not kept."""
        settings = method.settings
        super().__init__(LatentRounding("straight_through", 1.0, 1), settings.average, settings.refresh)
        self.rate_weight = rate_weight
        self.num_weights = source.rate_divisor
        self._method, self._seed = method, seed
        self._specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
        self.tiles = nn.ModuleList()
        self._tiles_of: dict[str, list[FactorLatents]] = {}
        rest: dict[str, Tensor] = {}
        self._notes: dict[str, str] = {}
        for spec in self._specs:
            tensor = source.tensors[spec.name].detach()
            found, reason = self._start_of(spec, source)
            if not found:
                rest[spec.name] = tensor
                self._notes[spec.name] = f"coded by epr: {reason}" if reason else ""
                continue
            self._tiles_of[spec.name] = [
                FactorLatents(spec, span, matrix_shape(spec, span), factors, loss, settings.average, tensor.device)
                for span, factors, loss in found
            ]
            self.tiles.extend(self._tiles_of[spec.name])
        self.rest = method.represent_rest(source, rest, rate_weight=rate_weight, seed=seed)
        self.steps = (*self._tiles_of, *self.rest.steps)

    def _start_of(self, spec: TensorSpec, source: Source) -> tuple[Sequence[StartedTile], str]:
        """The factors that a tensor starts with; none, and why, if it is not factored."""
        method = self._method
        if method.started is not NOTHING:
            tiles = method.started.tiles.get(spec.name, ())
            held = sum(tile.factors.coefficients.shape[-1] * tile.factors.tiling.height for tile in tiles)
            if tiles and held != spec.num_elements:
                raise InvalidArgument(f"the factors to start {spec.name!r} from are of another shape.")
            return tiles, ""
        found, reason = method.factored(spec, source, self.rate_weight)
        if found is None:
            return (), reason
        return [StartedTile(*tile) for tile in zip(found.spans, found.factors, found.losses, strict=True)], ""

    def latent_tensors(self) -> list[LatentTensor]:
        """Return the latents of all factors, in the source's order."""
        return [latents for tiles in self._tiles_of.values() for tile in tiles for latents in tile.latent_tensors()]

    def forward(self) -> Reconstruction:
        """Return one draw: rounded factors and their rate in train(), what decode gives in eval()."""
        rest = self.rest()
        values: dict[str, Tensor] = {spec.name: torch.empty(0) for spec in self._specs}  # in the source's order
        values |= rest.values
        if not self.training:
            values |= {name: self._exact(name) for name in self._tiles_of}
            written = sum(len(chunk.payload) for chunk in self._own_chunks())
            return Reconstruction(values, rest.bits + 8 * written)
        open_tiles = [tile for tiles in self._tiles_of.values() for tile in tiles if not tile.codebook.committed]
        bits = rest.bits
        products: dict[int, Tensor] = {}
        if open_tiles:
            latents = [one for tile in open_tiles for one in tile.latent_tensors()]
            levels, level_bits = relaxed(latents, self.rounding)
            bits = bits.to(level_bits.device) + level_bits + sum(tile.side_bits for tile in open_tiles)
            found = iter(levels)
            masked = self._num_updates < self._method.settings.mask_steps
            for tile in open_tiles:
                parts = [next(found) for _ in tile.latent_tensors()]
                products[id(tile)] = tile.product(parts[0], parts[1] if len(parts) > 1 else None, masked=masked)
        for name, tiles in self._tiles_of.items():
            if id(tiles[0]) not in products:
                values[name] = self._exact(name)
                bits = bits + sum(tile.held().coded.bits for tile in tiles)
                continue
            product = torch.cat([products[id(tile)] for tile in tiles]) if len(tiles) > 1 else products[id(tiles[0])]
            values[name] = product.to(tiles[0].dtype).reshape(tiles[0].spec.shape)
        return Reconstruction(values, bits)

    def update(self) -> None:
        """Average the latents and count them anew, the others' too."""
        super().update()
        self.rest.update()

    def owner_of(self, name: str) -> str:
        """Return the tensor that a parameter is of."""
        if name.startswith("rest."):
            return self.rest.owner_of(name.removeprefix("rest."))
        tile = self.tiles[int(name.split(".")[1])]
        assert isinstance(tile, FactorLatents)
        return tile.spec.name

    def parameter_kind(self, name: str) -> str:
        """Return what a parameter is: latents, or a decoder's step."""
        if name.startswith("rest."):
            return self.rest.parameter_kind(name.removeprefix("rest."))
        return "latents" if name.endswith(".latents") else "decoders"

    def least_bytes(self) -> int:
        """Return the bytes of the shortest descriptions, of indices that stay, and of the rest."""
        tiles = [tile for tiles in self._tiles_of.values() for tile in tiles]
        return self.rest.least_bytes() + sum(int(tile.side_bits / 8) for tile in tiles)

    def commit(self, step: str) -> None:
        """Make one tensor's factors, or its levels, final."""
        if step not in self.steps:
            raise InvalidArgument(f"there is no step named {step!r} to commit.")
        if step not in self._tiles_of:
            self.rest.commit(step)
            return
        for tile in self._tiles_of[step]:
            tile.commit()

    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts; those of tensors that are not factored come last."""
        for tiles in self._tiles_of.values():
            for tile in tiles:
                tile.commit()
        yield from self._own_chunks()
        for chunk in self.rest.chunks():
            yield noted(chunk, self._notes)

    def _exact(self, name: str) -> Tensor:
        """What decoding would give now."""
        tiles = self._tiles_of[name]
        pieces = [tile.held().values for tile in tiles]
        return torch.cat(pieces).reshape(tiles[0].spec.shape).to(tiles[0].scales.device)

    def _own_chunks(self) -> Iterator[Chunk]:
        for unit in self._method.units(self._specs):
            written = [self._written(spec) for spec in unit if spec.name in self._tiles_of]
            yield from chunks_of(self._method, written, self._seed)

    def _written(self, spec: TensorSpec) -> Written:
        tiles = self._tiles_of[spec.name]
        held = [tile.held() for tile in tiles]
        spans = [tile.span for tile in tiles]
        return Written(spec, spans, [each.coded for each in held], [each.loss for each in held])
