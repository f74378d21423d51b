"""Latents of a file, to train on: levels and decoders from its parts, as they are (US12265898)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewbits.chunk import Chunk, Loss
from fewbits.errors import InvalidArgument
from fewbits.methods.epr.frames import LevelTensor
from fewbits.methods.epr.payload import VERSION, decode_levels
from fewbits.nn.latent_tensor import DecoderChoice
from fewbits.payload import check_version
from fewbits.plan import tile_shape
from fewbits.quantize.parameter_decoders import Grid, Kernels, ParameterDecoder


class Started(NamedTuple):
    """One tensor's levels, in the shape of the whole tensor's, its decoder, and what the file says that it lost."""

    tensor: LevelTensor
    loss: Loss | None


def started_from(chunks: Sequence[Chunk]) -> dict[str, Started]:
    """Read the levels of all tensors of epr parts, by name; tiles are put together.

    Raises:
        InvalidArgument: the parts are of another payload version's method, or of no method `epr`.
        Corrupt, Incompatible: as for `Epr.decode`.
    """
    pieces: dict[str, list[tuple[int, LevelTensor, Loss | None]]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for chunk in chunks:
        if chunk.method != "epr":
            raise InvalidArgument(f"a part of the method {chunk.method!r} has no latents of epr.")
        check_version(chunk, VERSION)
        ranges = [(spec, tile_shape(spec, chunk.span)) for spec in chunk.tensors]
        found = decode_levels(bytes(chunk.payload), ranges)
        losses = chunk.losses or (None,) * len(found)
        for spec, tensor, loss in zip(chunk.tensors, found, losses, strict=True):
            shapes[spec.name] = spec.shape
            pieces.setdefault(spec.name, []).append((chunk.span[0] if chunk.span else 0, tensor, loss))
    started: dict[str, Started] = {}
    for name, parts in pieces.items():
        parts.sort(key=lambda part: part[0])
        levels = np.concatenate([tensor.levels.reshape(-1) for _, tensor, _ in parts])
        decoders = {tensor.decoder for _, tensor, _ in parts}
        if len(decoders) != 1:
            raise InvalidArgument(
                f"the tiles of tensor {name!r} have several decoders: its latents cannot be trained on."
            )
        loss = parts[0][2] if len(parts) == 1 else None
        started[name] = Started(LevelTensor(shapes[name], levels, decoders.pop()), loss)
    return started


def choice_of_decoder(decoder: ParameterDecoder) -> DecoderChoice:
    """Return what trains a decoder."""
    if isinstance(decoder, Grid):
        return DecoderChoice("grid", decoder.size, decoder.image, decoder.margin)
    if isinstance(decoder, Kernels):
        return DecoderChoice("dft" if decoder.matrix is None else "matrix")
    return DecoderChoice()
