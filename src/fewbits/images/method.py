"""Images as tensors of a file: bands of rows, each a part of its own, coded by a codec that the part names.

Payload: docs/payload/image.md. Method: docs/methods/image.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits import plan
from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.container.format import MAX_PART_ELEMENTS
from fewbits.errors import Corrupt, InvalidArgument, TooLarge
from fewbits.images.frozen import FrozenCodec
from fewbits.images.shelf import DIGEST_SIZE, find_codec
from fewbits.method import Method, MethodConfig, Source, Survey
from fewbits.methods.lossless import Lossless
from fewbits.payload import check_version
from fewbits.tensors import destinations, spec_of

_HEAD = DIGEST_SIZE + 1
_HEAD_BITS = 8 * (_HEAD + 12)  # with lengths, about


@dataclass(frozen=True)
class ImageConfig(MethodConfig):
    """Which codec an image is coded by, and how well.

    codec: the first 16 bytes of its file's SHA-256, in hexadecimal digits; empty to keep all tensors exactly.
    quality: from 0 for the smallest file.
    """

    codec: str = ""
    quality: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        digits = set(self.codec) - set("0123456789abcdef")
        if digits or len(self.codec) not in (0, 2 * DIGEST_SIZE):
            raise InvalidArgument(f"ImageConfig.codec is {2 * DIGEST_SIZE} hexadecimal digits, or empty.")
        if isinstance(self.quality, bool) or not 0 <= self.quality < 256:
            raise InvalidArgument(f"ImageConfig.quality is a whole number from 0, not {self.quality!r}.")


def is_image(spec: TensorSpec) -> bool:
    """Whether a tensor can be coded as an image: (height, width, 1 or 3) uint8, not empty."""
    return spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[2] in (1, 3) and spec.num_elements > 0


def bands(spec: TensorSpec, step: int) -> list[tuple[int, int]]:
    """Return the ranges of rows that an image is coded by, of as many pixels as a tile has elements: bounds memory.

    Args:
        step: what a codec makes sides multiples of; rows of steps are not parted, but where they are longer than that.

    Raises:
        InvalidArgument: even one row of steps is more than a part may be.
    """
    height, width, channels = spec.shape
    width = -(-width // step) * step
    if width * step > MAX_PART_ELEMENTS:
        raise InvalidArgument(f"tensor {spec.name!r}: an image of {spec.shape[1]} columns is too wide for this codec.")
    rows = min(max(plan.TILE // width // step * step, step), MAX_PART_ELEMENTS // (spec.shape[1] * channels))
    return [(first, min(height, first + rows)) for first in range(0, height, rows)]


class Image(Method):
    """Images by a learned codec; what is no image is kept exactly, and the loss record says so.

    The rate weight has no effect: the quality says how well an image is coded.
    """

    id = "image"
    code = 5
    payload_version = 1
    config_type = ImageConfig

    def __init__(self, config: ImageConfig | None = None, *, refine: int = 0) -> None:
        """Build the method; the default settings name no codec, and keep all exactly.

        Args:
            refine: steps of a search for better latents when encoding, which no file tells of.
        """
        self.config = self.settings = config or ImageConfig()
        self._refine = refine
        self._lossless = Lossless()

    def units(self, specs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        """Images stand alone; of others `lossless` says."""
        images = [spec for spec in specs if self._is_coded(spec)]
        others = self._lossless.units([spec for spec in specs if not self._is_coded(spec)])
        return [*others, *((spec,) for spec in images)]

    def survey(self, source: Source) -> Survey:
        """Encode: no rate weight changes an image's size."""
        chunks = list(self.encode(source, rate_weight=0.0, seed=0))
        return _Known(sum(loss.bits for chunk in chunks for loss in chunk.losses))

    def encode(self, source: Source, *, rate_weight: float, seed: int) -> Iterator[Chunk]:
        """Yield a part for each band of each image, and those of all else."""
        specs = {name: spec_of(name, tensor) for name, tensor in source.tensors.items()}
        others = {name: source.tensors[name] for name, spec in specs.items() if not self._is_coded(spec)}
        if others:
            yield from self._lossless.encode(Source(others), rate_weight=rate_weight, seed=seed)
        for name, spec in specs.items():
            if self._is_coded(spec):
                yield from self._encode_image(spec, source.tensors[name], seed)

    def _is_coded(self, spec: TensorSpec) -> bool:
        return bool(self.settings.codec) and is_image(spec)

    def _encode_image(self, spec: TensorSpec, image: Tensor, seed: int) -> Iterator[Chunk]:
        codec, quality = find_codec(bytes.fromhex(self.settings.codec)), self.settings.quality
        _check_quality(codec, quality)
        row, ranges = spec.shape[1] * spec.shape[2], bands(spec, codec.step)
        for first, last in ranges:
            band = image[first:last].cpu()
            coded = codec.encode(band.expand(-1, -1, 3), quality, seed, first, self._refine)
            error = (_as_stored(coded.band, spec.shape[2]).double() - band.double()).square().sum()
            loss = Loss(float(error), float(band.double().square().sum()), coded.bits + _HEAD_BITS)
            payload = codec.digest + bytes([quality]) + coded.data
            span = (first * row, last * row) if len(ranges) > 1 else None
            yield Chunk(
                self.id, self.payload_version, self.config.to_json(), seed, (spec,), payload, span=span, losses=(loss,)
            )

    def decode(
        self, chunk: Chunk, *, into: Mapping[str, Tensor] | None = None, num_threads: int = 1
    ) -> Mapping[str, Tensor]:
        """Return the band.

        Raises:
            Incompatible: the codec is not at hand.
        """
        check_version(chunk, self.payload_version)
        spec = chunk.tensors[0]
        if len(chunk.tensors) != 1 or not is_image(spec):
            raise Corrupt(f"tensor {spec.name!r} cannot have an image payload.")
        _, width, channels = spec.shape
        start, stop = chunk.span or (0, spec.num_elements)
        if start % (width * channels) or stop % (width * channels):
            raise Corrupt(f"tensor {spec.name!r} has an image payload of broken rows.")
        if len(chunk.payload) < _HEAD:
            raise Corrupt("an image payload is too short.")
        first, last = start // (width * channels), stop // (width * channels)
        tensors = destinations(chunk, into)
        codec, quality = find_codec(bytes(chunk.payload[:DIGEST_SIZE])), chunk.payload[DIGEST_SIZE]
        if quality >= len(codec.config.trades):
            raise Corrupt(f"an image has the quality {quality}, which its codec does not have.")
        if codec.padded(last - first, width) > MAX_PART_ELEMENTS:
            raise TooLarge(f"tensor {spec.name!r} has a part of more than {MAX_PART_ELEMENTS} pixels, in whole steps.")
        band = codec.decode(bytes(chunk.payload[_HEAD:]), last - first, width, quality, chunk.seed, first)
        tensors[spec.name].view(-1).copy_(_as_stored(band, channels).reshape(-1))
        return tensors


class _Known:
    """A size that no rate weight changes."""

    def __init__(self, bits: float) -> None:
        self._bits = bits

    def bits(self, rate_weight: float) -> float:
        """The size."""
        return self._bits


def _check_quality(codec: FrozenCodec, quality: int) -> None:
    most = len(codec.config.trades) - 1
    if quality > most:
        raise InvalidArgument(f"this codec has the qualities 0 to {most}, not {quality}.")


def _as_stored(band: Tensor, channels: int) -> Tensor:
    """A band in colour as it is stored; of grey images the mean, WIRE: rounded to the nearest."""
    if channels == 3:
        return band
    return ((2 * band.to(torch.int32).sum(-1, keepdim=True) + 3) // 6).to(torch.uint8)
