"""A codec in whole numbers: what codes and decodes images, exactly the same everywhere.

Made from a codec file, and from nothing else: gains, cells and tables are stored, networks are counted
(`fewbits.images.fixed_point`). The formulas are those of docs/payload/image.md.
"""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.errors import Corrupt
from fewbits.images.cells import Cells
from fewbits.images.codec import SCALE_MIDDLE, SCALE_STEPS, Codec, CodecConfig
from fewbits.images.fixed_point import MOST, VALUE, FixedPoint, counted
from fewbits.images.refinement import Search, refined
from fewbits.images.rounding import DITHERED
from fewbits.images.transforms import HYPER_STEP
from fewbits.models.scale_indexed import NUM_SCALES, PER_OCTAVE, ScaleIndexed
from fewbits.models.table_set import IndexedCoder, TableSet
from fewbits.quantize.universal import dither_levels

_GREY = VALUE // 64  # WIRE: what a grey level counts
_INVERSE = 1 << 20  # WIRE: what the inverse of a gain is counted in, inverted
_MOST_SCALES = 256  # WIRE
_MOST_INDEX = 1 << 15  # WIRE: the greatest magnitude of a cell's number
_GAINS = (1 << 4, 1 << 20)  # WIRE: the least and the greatest gain, counted in 2^-10
_NETWORKS = ("analysis", "synthesis", "hyper_analysis", "hyper_synthesis")


class CodedBand(NamedTuple):
    """A band's bytes; what they take by its tables, in bits, and of that the hyper-latents; what is decoded of them."""

    data: bytes
    bits: float
    hyper_bits: float
    band: Tensor  # (H, W, 3) uint8


def tensors_of(codec: Codec) -> dict[str, Tensor]:
    """Return what a codec file stores: the networks as they are, and the rest in integers."""
    config = codec.config
    tensors = {
        name: value.detach().cpu().clone()
        for name, value in codec.state_dict().items()
        if name.startswith(tuple(f"{network}." for network in _NETWORKS))
    }
    gains = {"gains": codec.log_gains} | ({"hyper_gains": codec.hyper_log_gains} if codec.has_hyper else {})
    for name, log_gains in gains.items():
        tensors[name] = counted(log_gains.detach().double().exp(), VALUE).clamp(*_GAINS).int()
    dithered = config.rounding in DITHERED
    sharpness = float(codec.sharpness()) if config.rounding == "soft" else 0.0
    cells = Cells.dithered(config.level_bits, sharpness) if dithered else Cells.rounding()
    tensors["offsets"] = cells.offsets.short()
    offsets = cells.offsets / VALUE
    priors = [copy.deepcopy(codec.prior(quality)).cpu().double() for quality in range(len(config.trades))]
    channels = config.hyper_latents if codec.has_hyper else config.latents
    tables = [TableSet.of_density(prior.interval_bits, channels, offsets) for prior in priors]
    if codec.has_hyper:
        tensors["scale_offsets"] = counted(
            codec.log_gains.detach().double() * PER_OCTAVE / torch.log(torch.tensor(2.0)), VALUE
        ).int()
        numbers = torch.arange(NUM_SCALES, dtype=torch.float64)
        conditional = ScaleIndexed(config.family, config.least_scale)

        def between(lower: Tensor, upper: Tensor) -> Tensor:
            return conditional.interval_bits(lower, upper, numbers)

        tables.append(TableSet.of_density(between, NUM_SCALES, offsets))
    joined = tables[0]
    for other in tables[1:]:
        joined = joined.joined(other)
    return tensors | {f"tables.{name}": value for name, value in joined.to_tensors().items()}


class FrozenCodec:
    """A codec ready to code: bands of images to bytes and back.

    Law: the same band gives the same bytes, where no search is asked for, and the same bytes the same band, on every
    machine, thread count and instruction set; a CPU does it, whatever else there is.
    """

    def __init__(self, config: CodecConfig, tensors: Mapping[str, Tensor], digest: bytes = b"") -> None:
        """Build from what a codec file stores.

        Args:
            digest: the first bytes of the file's SHA-256, by which images name it.

        Raises:
            Corrupt: tensors are missing, or are not those of the settings.
        """
        self.config, self.digest = config, digest
        with torch.device("meta"):  # shapes are compared before any memory is taken
            codec = Codec(config)
        networks = {name: getattr(codec, name) for name in _NETWORKS if hasattr(codec, name)}
        for name, network in networks.items():
            _fill(
                network,
                {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")},
            )
        self._networks = {name: FixedPoint.of(network) for name, network in networks.items()}
        self._synthesis = codec.synthesis.eval().requires_grad_(False)  # for what is searched, and never for decoding
        self.has_hyper, qualities = codec.has_hyper, len(config.trades)
        self.cells = Cells(
            _integers(tensors, "offsets", (1 << config.level_bits if config.rounding in DITHERED else 1,), torch.int16)
        )
        if bool((self.cells.offsets < -VALUE).any()) or bool((self.cells.offsets > 0).any()):
            raise Corrupt("a codec's cells are not where its settings say.")
        self._gains = _gains(tensors, "gains", (qualities, config.latents))
        channels = config.latents
        if self.has_hyper:
            channels = config.hyper_latents
            self._hyper_gains = _gains(tensors, "hyper_gains", (qualities, channels))
            self._scale_offsets = _integers(tensors, "scale_offsets", (qualities, config.latents))
        self._first_scale = qualities * channels * len(self.cells.offsets)
        stored = {key.removeprefix("tables."): value for key, value in tensors.items() if key.startswith("tables.")}
        tables = TableSet.from_tensors(stored)
        self._num_scales, rest = divmod(len(tables.low) - self._first_scale, len(self.cells.offsets))
        if rest or (not 1 <= self._num_scales <= _MOST_SCALES if self.has_hyper else self._num_scales):
            raise Corrupt("a codec has not as many tables as its settings say.")
        self._coder = IndexedCoder(tables)

    @property
    def step(self) -> int:
        """What the sides of a band are made multiples of, in pixels."""
        return self.config.step * (HYPER_STEP if self.has_hyper else 1)

    def encode(self, band: Tensor, quality: int, seed: int, item: int, refine: int = 0) -> CodedBand:
        """Code a band.

        Args:
            band: (H, W, 3) uint8.
            quality: its number, from 0.
            seed, item: of the dither.
            refine: steps of a search for better latents; what it finds is taken if it is better.
        """
        height, width = band.shape[:2]
        shapes = self._shapes(height, width)
        latents = self._networks["analysis"](self._input(band))
        head, hyper_bits = b"", 0.0
        if self.has_hyper:
            place = self._prior(quality, shapes.hyper, seed, item)
            values = self._networks["hyper_analysis"](latents)
            cells = self._cells_of(values, quality, place, self._hyper_gains)
            head, hyper_bits, hyper = self._send(cells, quality, place, self._hyper_gains)
            head = write_uint(len(head)) + head
            means, place = self._conditions(hyper, quality, shapes, seed, item)
        else:
            means, place = torch.zeros(()), self._prior(quality, shapes.latents, seed, item)
        cells = self._cells_of(latents - means, quality, place, self._gains)
        found = self._coded(cells, means, quality, place, height, width)
        if refine:
            search = self._search(band, latents, means, quality, place)
            cells = refined(search, refine, seed=item).clamp(-_MOST_INDEX, _MOST_INDEX)
            other = self._coded(cells, means, quality, place, height, width)
            found = min(found, other, key=lambda each: self._worth(each, band, quality))
        return found._replace(data=head + found.data, bits=found.bits + hyper_bits, hyper_bits=hyper_bits)

    def _coded(self, cells: Tensor, means: Tensor, quality: int, place: "_Place", height: int, width: int) -> CodedBand:
        """A band as its latents' cells make it, without hyper-latents."""
        data, bits, residuals = self._send(cells, quality, place, self._gains)
        return CodedBand(data, bits, 0.0, self._output(means + residuals, height, width))

    def _worth(self, coded: CodedBand, band: Tensor, quality: int) -> float:
        """Bits, and what the error is worth of them."""
        error = float((coded.band.double() - band.cpu().double()).square().sum())
        return coded.bits + self.config.trades[quality] * error / 3

    def _search(self, band: Tensor, latents: Tensor, means: Tensor, quality: int, place: "_Place") -> Search:
        middles = self.cells.middles(torch.zeros_like(place.levels), place.levels).reshape(place.shape) / VALUE
        numbers = place.numbers.numpy()
        return Search(
            synthesis=self._synthesis,
            pixels=band.cpu().float(),
            positions=(latents - means) * self._gains.gains[quality] / VALUE**2 - middles,
            middles=middles,
            steps=VALUE / self._gains.gains[quality],
            means=means / VALUE,
            bits_of=lambda cells: self._coder.bits_of_each(cells, numbers),
            trade=self.config.trades[quality],
        )

    def decode(self, data: bytes, height: int, width: int, quality: int, seed: int, item: int) -> Tensor:
        """Return a band (H, W, 3) uint8.

        Raises:
            Corrupt: these are not the bytes of a band of this size.
        """
        shapes = self._shapes(height, width)
        if not self.has_hyper:
            latents = self._received(data, quality, self._prior(quality, shapes.latents, seed, item), self._gains)
        else:
            size, position = read_uint(data, 0)
            if size > len(data) - position:
                raise Corrupt("an image's hyper-latents end beyond its payload.")
            place = self._prior(quality, shapes.hyper, seed, item)
            hyper = self._received(data[position : position + size], quality, place, self._hyper_gains)
            means, place = self._conditions(hyper, quality, shapes, seed, item)
            latents = means + self._received(data[position + size :], quality, place, self._gains)
        return self._output(latents, height, width)

    def _output(self, latents: Tensor, height: int, width: int) -> Tensor:
        values = self._networks["synthesis"](latents.clamp(-MOST, MOST))
        # WIRE: 128 grey levels more, to the nearest.
        pixels = torch.floor(values / _GREY + 128.5).clamp(0, 255)
        return pixels[0, :, :height, :width].movedim(0, -1).to(torch.uint8).contiguous()

    def padded(self, height: int, width: int) -> int:
        """Return how many pixels a band has with those that make its sides whole steps."""
        return -(-height // self.step) * -(-width // self.step) * self.step**2

    def _shapes(self, height: int, width: int) -> "_Shapes":
        rows, columns = (-(-side // self.step) * self.step // self.config.step for side in (height, width))
        latents = torch.Size((1, self.config.latents, rows, columns))
        return _Shapes(latents, torch.Size((1, self.config.hyper_latents, rows // HYPER_STEP, columns // HYPER_STEP)))

    def _input(self, band: Tensor) -> Tensor:
        """A band as the networks see it, its last row and column repeated up to whole steps."""
        height, width = band.shape[:2]
        values = band.cpu().movedim(-1, 0)[None].double() * _GREY - 128 * _GREY
        return pad(values, (0, -width % self.step, 0, -height % self.step), mode="replicate")

    def _levels(self, seed: int, item: int, count: int, start: int) -> Tensor:
        bits = self.cells.level_bits
        if not bits:
            return torch.zeros(count, dtype=torch.int64)
        return dither_levels(seed, item, (count,), bits, start=start)[1]

    def _prior(self, quality: int, shape: torch.Size, seed: int, item: int) -> "_Place":
        """Of what has a prior a channel: these come first in an image's dither, and their tables in a codec's."""
        levels = self._levels(seed, item, shape.numel(), 0)
        channel = torch.arange(shape[1]).repeat_interleave(shape[2] * shape[3])
        return _Place(shape, levels, (quality * shape[1] + channel) * len(self.cells.offsets) + levels)

    def _conditions(
        self, hyper: Tensor, quality: int, shapes: "_Shapes", seed: int, item: int
    ) -> tuple[Tensor, "_Place"]:
        """What hyper-latents say of latents: their means, and which table each has."""
        means, scales = self._networks["hyper_synthesis"](hyper).chunk(2, 1)
        offsets = self._scale_offsets[quality][:, None, None]
        numbers = torch.floor((scales * SCALE_STEPS + offsets) / VALUE + SCALE_MIDDLE + 0.5)
        levels = self._levels(seed, item, shapes.latents.numel(), shapes.hyper.numel())
        first = self._first_scale + numbers.clamp(0, self._num_scales - 1).long().flatten() * len(self.cells.offsets)
        return means, _Place(shapes.latents, levels, first + levels)

    def _cells_of(self, values: Tensor, quality: int, place: "_Place", gains: "_Gains") -> Tensor:
        """The numbers of the cells that values lie in, (N,) int64."""
        scaled = torch.floor((values * gains.gains[quality] + VALUE / 2) / VALUE)
        return self.cells.indices(scaled.flatten(), place.levels).clamp(-_MOST_INDEX, _MOST_INDEX)

    def _send(self, cells: Tensor, quality: int, place: "_Place", gains: "_Gains") -> tuple[bytes, float, Tensor]:
        """Cells' bytes, their bits, and what the decoder makes of them."""
        indices, numbers = cells.numpy(), place.numbers.numpy()
        data, bits = self._coder.encode(indices, numbers), self._coder.bits(indices, numbers)
        return data, bits, self._unscaled(cells, quality, place, gains)

    def _received(self, data: bytes, quality: int, place: "_Place", gains: "_Gains") -> Tensor:
        found = torch.from_numpy(self._coder.decode(data, place.numbers.numpy()))
        if bool(((found < -_MOST_INDEX) | (found > _MOST_INDEX)).any()):  # -2^63 has no magnitude
            raise Corrupt("an image has a latent beyond all bounds.")
        return self._unscaled(found, quality, place, gains)

    def _unscaled(self, indices: Tensor, quality: int, place: "_Place", gains: "_Gains") -> Tensor:
        middles = self.cells.middles(indices, place.levels).reshape(place.shape)
        return torch.floor((middles * gains.inverses[quality] + _INVERSE / 2) / _INVERSE).clamp(-MOST, MOST)


class _Shapes(NamedTuple):
    latents: torch.Size
    hyper: torch.Size


class _Place(NamedTuple):
    """Values of a shape: the level of each one's dither, and the number of its table, both (N,) int64."""

    shape: torch.Size
    levels: Tensor
    numbers: Tensor


class _Gains(NamedTuple):
    """Gains by quality, and their inverses, (qualities, channels, 1, 1) float64, counted in 2^-10 and 2^-20."""

    gains: Tensor
    inverses: Tensor


def _gains(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> _Gains:
    gains = _integers(tensors, name, shape)
    if bool((gains < _GAINS[0]).any()) or bool((gains > _GAINS[1]).any()):
        raise Corrupt("a codec's gains are out of range.")
    # WIRE NUMERICS: a quotient of whole numbers far below 2^53, rounded in one way.
    return _Gains(gains[..., None, None], torch.floor(VALUE * _INVERSE / gains + 0.5)[..., None, None])


def _integers(
    tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.int32
) -> Tensor:
    if name not in tensors or tuple(tensors[name].shape) != shape or tensors[name].dtype != dtype:
        raise Corrupt(f"a codec has no {name!r} as its settings want them.")
    return tensors[name].double()


def _fill(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    said = "a codec's networks are not those of its settings."
    if any(value.dtype != torch.float32 for value in tensors.values()):
        raise Corrupt(said)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise Corrupt(said) from error
