"""A second decoder of the payload `image`, written from docs/payload/image.md alone, on top of `independent_decoder`.

It shares no code with fewbits. Numbers between layers are whole, kept in float64, where all of them are exact.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from tests.golden import independent_decoder as base
    from tests.golden import shared_randomness
except ImportError:  # run as a program, from any folder
    import independent_decoder as base
    import shared_randomness

Array = NDArray[Any]

CODECS = Path(__file__).parent / "codecs"
DITHER = 2  # the purpose of the words
DITHERED, PLAIN = ("universal", "soft"), ("noise", "straight_through")
CODEC_KEYS = {"entropy_model", "rounding", "trades", "widths", "latents"}
MOST_SCALES, ESCAPE = 256, 63  # the column of an escape
LARGEST = float(1 << 20)  # magnitude of a number between layers
MOST_MAGNITUDE, MOST_SHIFT = 1 << 15, 32


# ---- The codec's file --------------------------------------------------------------------------------------


class Codec:
    """What the metadata and the tensors of a codec's file say."""

    def __init__(self, metadata: dict[str, str], tensors: dict[str, Array]) -> None:
        about = read_json(metadata.get("fewbits.codec", ""))
        self.tensors = tensors
        self.hyperprior = about["entropy_model"] == "hyperprior"
        self.level_bits: int = about["level_bits"] if about["rounding"] in DITHERED else 0
        self.levels, self.qualities = 1 << self.level_bits, len(about["trades"])
        self.latents: int = about["latents"]
        self.hyper_latents: int = about["hyper_latents"] if self.hyperprior else 0
        self.side = 4 << len(about["widths"])  # S: pixels a latent

        m = self.latents
        channels = [m, *reversed(about["widths"])]
        self.synthesis: list[Layer] = []
        for a, b in pairwise(channels):
            self.synthesis += [self.transposed(f"synthesis.{len(self.synthesis)}", a, b, 5, 2)]
            self.synthesis += [self.normalisation(f"synthesis.{len(self.synthesis)}", b)]
        self.synthesis += [self.transposed(f"synthesis.{len(self.synthesis)}", channels[-1], 3, 8, 4)]
        self.hyper_synthesis: list[Layer] = []
        if self.hyperprior:
            hyper_width = about["hyper_width"]
            self.hyper_synthesis = [
                self.transposed("hyper_synthesis.0", self.hyper_latents, hyper_width, 5, 2),
                Rectifier(),
                self.transposed("hyper_synthesis.2", hyper_width, hyper_width, 5, 2),
                Rectifier(),
                Convolution(*self.pair("hyper_synthesis.4", (2 * m, hyper_width, 3, 3), 2 * m)),
            ]

        self.gains = self.read_gains("gains", m)
        if self.hyperprior:
            self.hyper_gains = self.read_gains("hyper_gains", self.hyper_latents)
            self.scale_offsets = self.tensor("scale_offsets", "int32", self.qualities, m).astype(np.float64)
        self.offsets = self.tensor("offsets", "int16", self.levels).astype(np.int64)
        base.require(np.all((self.offsets >= -1024) & (self.offsets <= 0)), "an offset of a codec is out of range")
        self.read_tables()

    def tensor(self, name: str, dtype: str, *shape: int) -> Array:
        found = self.tensors.get(name)
        if found is None or found.dtype != np.dtype(dtype) or found.shape != shape:
            raise base.DecodeError("Corrupt", f"a codec has no {name} of {dtype} and shape {shape}")
        return found

    def pair(self, name: str, shape: tuple[int, ...], out: int) -> tuple[Array, Array]:
        """Weight and bias, counted; the layer has yet to see to their bounds."""
        weight, bias = self.tensor(f"{name}.weight", "float32", *shape), self.tensor(f"{name}.bias", "float32", out)
        return counted(weight.astype(np.float64), 14), counted(bias.astype(np.float64), 24)

    def transposed(self, name: str, a: int, b: int, kernel: int, stride: int) -> Layer:
        return Transposed(*self.pair(name, (a, b, kernel, kernel), b), stride)

    def normalisation(self, name: str, channels: int) -> Layer:
        gamma = self.tensor(f"{name}.gamma_root", "float32", channels, channels).astype(np.float64)
        beta = self.tensor(f"{name}.beta_root", "float32", channels).astype(np.float64)
        return Normalisation(counted(gamma * gamma, 14), counted(beta * beta + 2.0**-6, 24))

    def read_gains(self, name: str, channels: int) -> Array:
        gains = self.tensor(name, "int32", self.qualities, channels).astype(np.float64)
        base.require(np.all((gains >= 1 << 4) & (gains <= 1 << 20)), f"one of a codec's {name} is out of range")
        return gains

    def read_tables(self) -> None:
        of_channels = self.qualities * (self.hyper_latents if self.hyperprior else self.latents)
        count = self.tensors["tables.low"].size if "tables.low" in self.tensors else 0
        self.scales, rest = divmod(count - of_channels * self.levels, self.levels)
        good = rest == 0 and (1 <= self.scales <= MOST_SCALES if self.hyperprior else self.scales == 0)
        base.require(good, "a codec has not as many tables as it should")
        self.frequencies = self.tensor("tables.frequencies", "int16", count, ESCAPE + 1).astype(np.int64)
        self.low = self.tensor("tables.low", "int16", count).tolist()
        self.shift = self.tensor("tables.shift", "uint8", count).tolist()
        base.require(max(self.shift) <= MOST_SHIFT, "a shift of a codec is above 32")
        there = self.frequencies[:, :ESCAPE] != 0
        self.sizes = np.count_nonzero(there, 1)
        base.require(np.all(there == (np.arange(ESCAPE) < self.sizes[:, None])), "a table of a codec has a gap")
        good = np.all(self.frequencies >= 0) and np.all(self.sizes >= 1) and np.all(self.frequencies < 8192)
        base.require(good and np.all(self.frequencies.sum(1) == 8192), "the frequencies of a codec's table are wrong")

    def model(self, number: int) -> base.Model:
        frequencies = self.frequencies[number].tolist()
        return base.Model(
            base.Table(self.low[number], frequencies[: self.sizes[number]], frequencies[ESCAPE]), self.shift[number]
        )


def read_json(text: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except ValueError as error:
        raise base.DecodeError("Corrupt", "the metadata of a codec is not JSON") from error
    base.require(type(about) is dict and about.keys() >= CODEC_KEYS, "the metadata of a codec lacks a key")
    good = about["entropy_model"] in ("hyperprior", "factorized") and about["rounding"] in DITHERED + PLAIN
    good = good and type(about["trades"]) is list and 1 <= len(about["trades"]) <= 256
    good = good and type(about["widths"]) is list and len(about["widths"]) <= 6
    base.require(good, "the metadata of a codec is malformed")
    numbers = [about["latents"], *about["widths"]]
    if about["entropy_model"] == "hyperprior":
        numbers += [about.get("hyper_width"), about.get("hyper_latents")]
    if about["rounding"] in DITHERED:
        numbers.append(about.get("level_bits"))
        base.require(numbers[-1] in range(1, 9), "the dither of a codec has no 2 to 256 levels")
    base.require(
        all(type(n) is int and 1 <= n <= 4096 for n in numbers), "a number in the metadata of a codec is malformed"
    )
    return about


@cache
def find_codec(digest: bytes) -> Codec:
    for path in sorted(CODECS.glob("*.fewbits")):
        data = path.read_bytes()
        if hashlib.sha256(data).digest()[:16] == digest:
            file = base.read_file(data, None)
            arrays = base.decode_tensors(file)
            return Codec(file.metadata, {t.name: a for t, a in zip(file.tensors, arrays, strict=True)})
    raise base.DecodeError("Incompatible", f"there is no codec whose SHA-256 begins with {digest.hex()}")


# ---- Networks ----------------------------------------------------------------------------------------------


def counted(x: Array, bits: int) -> Array:
    return np.floor(x * 2.0**bits + 0.5)


def cut(x: Array) -> Array:
    return np.clip(x, -LARGEST, LARGEST)


def check_sums(weights: Array, bias: Array) -> None:
    """`weights` (out, ...); not a number is refused, too."""
    sums = np.abs(weights).reshape(bias.size, -1).sum(1) * LARGEST + np.abs(bias) + (1 << 14)
    base.require(np.all(sums < 1 << 52), "the weights of a codec are too large")


class Rectifier:
    def __call__(self, v: Array) -> Array:
        return np.maximum(v, 0)


class Convolution:
    """Kernel 3, stride 1, padding 1."""

    def __init__(self, weights: Array, bias: Array) -> None:
        check_sums(weights, bias)
        self.weights, self.bias = weights, bias

    def __call__(self, v: Array) -> Array:
        _, h, w = v.shape
        padded = np.pad(v, ((0, 0), (1, 1), (1, 1)))
        total = np.zeros((self.bias.size, h, w))
        for a, b in np.ndindex(3, 3):
            total += np.tensordot(self.weights[:, :, a, b], padded[:, a : a + h, b : b + w], 1)
        return cut(np.floor((total + self.bias[:, None, None] + (1 << 13)) / (1 << 14)))


class Transposed:
    """Padding 2; the output is `stride` times as high and wide as the input."""

    def __init__(self, weights: Array, bias: Array, stride: int) -> None:
        check_sums(weights.swapaxes(0, 1), bias)
        self.weights, self.bias, self.stride = weights, bias, stride

    def __call__(self, v: Array) -> Array:
        _, h, w = v.shape
        s, kernel = self.stride, self.weights.shape[-1]
        whole = np.zeros((self.bias.size, s * h + kernel, s * w + kernel))
        for a, b in np.ndindex(kernel, kernel):
            whole[:, a : a + s * h : s, b : b + s * w : s] += np.tensordot(self.weights[:, :, a, b].T, v, 1)
        total = whole[:, 2 : 2 + s * h, 2 : 2 + s * w]
        return cut(np.floor((total + self.bias[:, None, None] + (1 << 13)) / (1 << 14)))


class Normalisation:
    """Inverse: every channel times its norm."""

    def __init__(self, gamma: Array, beta: Array) -> None:
        check_sums(gamma, beta)
        self.gamma, self.beta = gamma, beta

    def __call__(self, v: Array) -> Array:
        norm = np.clip(np.tensordot(self.gamma, np.abs(v), 1) + self.beta[:, None, None], 1, 1 << 32)
        return cut(np.floor((v * norm + (1 << 23)) / (1 << 24)))


Layer = Rectifier | Convolution | Transposed | Normalisation


def run(layers: list[Layer], v: Array) -> Array:
    for layer in layers:
        v = layer(v)
    return v


# ---- Decoding ----------------------------------------------------------------------------------------------


def decode_image(c: base.Cursor, tensor: base.Tensor, piece: base.Piece, seed: int) -> Array:
    """The band of rows that a part holds, (rows, width, channels) uint8."""
    good = tensor.dtype == "uint8" and len(tensor.shape) == 3 and tensor.shape[2] in (1, 3) and tensor.elements > 0
    base.require(good, f"{tensor.name} is no image")
    _, width, channels = tensor.shape
    first, rest = divmod(piece.start, width * channels)
    rows, more = divmod(piece.elements, width * channels)
    base.require(rest == more == 0, f"a tile of {tensor.name} is not of whole rows")

    codec, quality = find_codec(c.take(16)), c.u8()
    base.require(quality < codec.qualities, f"a codec has no quality {quality}")
    multiple = codec.side * (4 if codec.hyperprior else 1)
    h, w = (-(-size // multiple) * multiple // codec.side for size in (rows, width))
    base.require(h * w * codec.side**2 <= 1 << 24, "a part has more than 2^24 pixels, in whole steps", "TooLarge")
    hyper_shape, shape = (codec.hyper_latents, h // 4, w // 4), (codec.latents, h, w)
    split, total = np.prod(hyper_shape, dtype=int), np.prod(hyper_shape, dtype=int) + np.prod(shape, dtype=int)
    levels = np.zeros(total, np.int64)
    if codec.level_bits:
        words = shared_randomness.sequence(seed, DITHER, first, int(total))
        levels = (words >> np.uint64(32 - codec.level_bits)).astype(np.int64)
    hyper_levels, levels = levels[:split].reshape(hyper_shape), levels[split:].reshape(shape)

    if codec.hyperprior:
        hyper = base.Cursor(c.take(c.uint()), "the hyper-latents")
        numbers = channel_tables(codec, quality, codec.hyper_latents, hyper_levels)
        values = read_values(hyper, codec, numbers, hyper_levels, codec.hyper_gains[quality])
        mean, s = np.split(run(codec.hyper_synthesis, values), 2)
        scale = np.floor((8 * s + codec.scale_offsets[quality][:, None, None]) / 1024 + 16.5)
        scale = np.clip(scale, 0, codec.scales - 1).astype(np.int64)
        numbers = (codec.qualities * codec.hyper_latents + scale) * codec.levels + levels
        latents = cut(mean + read_values(c, codec, numbers, levels, codec.gains[quality]))
    else:
        numbers = channel_tables(codec, quality, codec.latents, levels)
        latents = read_values(c, codec, numbers, levels, codec.gains[quality])

    pixels = np.clip(np.floor(run(codec.synthesis, latents) / 16 + 128.5), 0, 255)[:, :rows, :width]
    if channels == 1:
        pixels = np.floor((2 * pixels.sum(0, keepdims=True) + 3) / 6)
    return np.moveaxis(pixels, 0, -1).astype(np.uint8)


def channel_tables(codec: Codec, quality: int, channels: int, levels: Array) -> Array:
    """Number of the table of each element, where it depends on channel and level only."""
    return (quality * channels + np.arange(channels)[:, None, None]) * codec.levels + levels


def read_values(c: base.Cursor, codec: Codec, numbers: Array, levels: Array, gains: Array) -> Array:
    """An indexed body, to the end of what the cursor reads: the values of its cells."""
    order = np.argsort(numbers, axis=None, kind="stable")
    occurring, counts = np.unique(numbers, return_counts=True)
    found = zip(occurring.tolist(), counts.tolist(), strict=True)
    arrays = [base.CodedArray(1, count, [codec.model(number)], None) for number, count in found]
    base.decode_body(c, arrays)
    k = np.empty(numbers.size, np.int64)
    k[order] = np.concatenate([array.q for array in arrays]).view(np.int64)
    good = np.all((k >= -MOST_MAGNITUDE) & (k <= MOST_MAGNITUDE))
    base.require(good, "the number of a cell is too large")
    m = k.reshape(numbers.shape) * 1024 + codec.offsets[levels] + 512
    inverse = np.floor((1 << 30) / gains + 0.5)[:, None, None]
    return cut(np.floor((m * inverse + (1 << 19)) / (1 << 20)))
