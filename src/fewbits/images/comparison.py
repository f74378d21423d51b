"""A codec beside those that Pillow has, on the same images: sizes of whole files, distortions, times."""

import io
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.images.files import load, save
from fewbits.images.frozen import FrozenCodec
from fewbits.images.measures import bd_rate, ms_ssim, psnr
from fewbits.images.pixels import pillow

OURS, ANCHOR = "fewbits", "JPEG"
# What Pillow is asked for. JPEG: 4:2:0, optimised, by its defaults otherwise.
PEERS: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "JPEG": ({"subsampling": "4:2:0", "optimize": True}, (5, 8, 12, 20, 30, 45, 60, 75, 85, 90)),
    "WEBP": ({"method": 6}, (1, 5, 15, 30, 50, 70, 85, 92)),
    "AVIF": ({"speed": 6}, (15, 25, 35, 45, 55, 65, 75, 85)),
}


class Measured(NamedTuple):
    """One image at one setting. bits_per_pixel of the whole file; psnr in dB; ms_ssim, NaN where a side is below 176.

    payload_bits: without the container's; estimated: those that the codec's tables say; NaN for others. Times in s.
    """

    image: str
    codec: str
    setting: int
    bits_per_pixel: float
    psnr: float
    ms_ssim: float
    payload_bits: float
    estimated: float
    encode_seconds: float
    decode_seconds: float


class Point(NamedTuple):
    """The mean of all images at one setting, fields as in `Measured`."""

    codec: str
    setting: int
    bits_per_pixel: float
    psnr: float
    ms_ssim: float
    encode_seconds: float
    decode_seconds: float


def compare(
    images: Sequence[tuple[str, Tensor]],
    codec: FrozenCodec,
    *,
    peers: Sequence[str] | None = None,
    seed: int = 0,
    refine: int = 0,
) -> Iterator[Measured]:
    """Yield what each image costs and loses at each setting of each codec.

    Args:
        images: names, and images (H, W, 3) uint8.
        codec: of ours.
        peers: which of PEERS, by default all that this Pillow has.
        refine: steps of a search by our codec, as in `fewbits.images.encode`.
    """
    known = set(pillow().registered_extensions().values()) & set(PEERS if peers is None else peers)
    for name, image in images:
        for quality in range(len(codec.config.trades)):
            yield _ours(name, image, codec, quality, seed, refine)
        for kind, (options, settings) in PEERS.items():
            for setting in settings if kind in known else ():
                yield _peer(name, image, kind, setting, options)


def points_of(measured: Sequence[Measured]) -> list[Point]:
    """Return the means over images, by codec and setting, in the order in which these first come."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    for each in measured:
        groups.setdefault((each.codec, each.setting), []).append(each)

    def mean(group: list[Measured], field: str) -> float:
        return float(np.mean([getattr(each, field) for each in group]))

    return [Point(*key, *(mean(group, field) for field in Point._fields[2:])) for key, group in groups.items()]


def bd_rates(measured: Sequence[Measured], anchor: str = ANCHOR) -> dict[str, float]:
    """Return each codec's BD-rate against an anchor's, by PSNR: the mean of all images' own.

    Raises:
        InvalidArgument: on some image two codecs share no quality.
    """
    found: dict[str, list[float]] = {}
    for image in dict.fromkeys(each.image for each in measured):
        of_image = [each for each in measured if each.image == image]
        curves = {codec: _curve([each for each in of_image if each.codec == codec]) for codec in _codecs(of_image)}
        for codec, curve in curves.items():
            if codec != anchor:
                found.setdefault(codec, []).append(bd_rate(*curve, *curves[anchor]))
    return {codec: float(np.mean(values)) for codec, values in found.items()}


def _codecs(measured: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(each.codec for each in measured))


def _curve(measured: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Rates and qualities, without settings that cost more and give no more."""
    rates, good = list[float](), list[float]()
    for each in sorted(measured, key=lambda each: each.bits_per_pixel):
        if not good or each.psnr > good[-1]:
            rates.append(each.bits_per_pixel)
            good.append(each.psnr)
    return rates, good


def _ours(name: str, image: Tensor, codec: FrozenCodec, quality: int, seed: int, refine: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.fewbits"
        start = time.perf_counter()
        coded = save(image, path, codec=codec, quality=quality, seed=seed, refine=refine)
        middle = time.perf_counter()
        decoded = load(path)
        end = time.perf_counter()
    found = _measured(name, OURS, quality, image, decoded, coded.size, middle - start, end - middle)
    return found._replace(payload_bits=coded.actual_bits, estimated=coded.estimated_bits)


def _peer(name: str, image: Tensor, kind: str, setting: int, options: dict[str, object]) -> Measured:
    module, buffer = pillow(), io.BytesIO()
    start = time.perf_counter()
    module.fromarray(image.numpy()).save(buffer, kind, quality=setting, **options)
    middle = time.perf_counter()
    decoded = np.array(module.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    end = time.perf_counter()
    size = len(buffer.getvalue())
    found = torch.from_numpy(decoded)
    return _measured(name, kind, setting, image, found, size, middle - start, end - middle)


def _measured(
    name: str,
    codec: str,
    setting: int,
    image: Tensor,
    decoded: Tensor,
    size: int,
    encode_seconds: float,
    decode_seconds: float,
) -> Measured:
    try:
        similarity = ms_ssim(image, decoded)
    except InvalidArgument:
        similarity = math.nan
    return Measured(
        image=name,
        codec=codec,
        setting=setting,
        bits_per_pixel=8 * size / (image.shape[0] * image.shape[1]),
        psnr=psnr(image, decoded),
        ms_ssim=similarity,
        payload_bits=math.nan,
        estimated=math.nan,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
    )
