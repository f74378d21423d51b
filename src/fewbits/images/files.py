"""Images to `.fewbits` files and back."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fewbits import api
from fewbits.container.atomic import check_target, write_atomic
from fewbits.container.writer import file_bytes
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.images.frozen import FrozenCodec
from fewbits.images.measures import psnr_of
from fewbits.images.method import Image, ImageConfig
from fewbits.images.pixels import Picture, image_bytes, read_picture
from fewbits.images.shelf import DIGEST_SIZE, find_codec, open_codec
from fewbits.method import Source
from fewbits.sources import entries_of

PathLike = str | os.PathLike[str]
_IMAGE, _ALPHA = "image", "alpha"  # names of a file's tensors


class Coded(NamedTuple):
    """What a file costs.

    size: bytes of the whole file. estimated_bits, actual_bits: of its payloads, by the tables, and as written.
    bits_per_pixel: of the whole file. psnr: in dB, over all colours; infinite if nothing was lost.
    """

    size: int
    estimated_bits: float
    actual_bits: int
    bits_per_pixel: float
    psnr: float


def encode(
    image: PathLike,
    path: PathLike,
    *,
    codec: PathLike | FrozenCodec,
    quality: int | None = None,
    seed: int = 0,
    refine: int = 0,
) -> Coded:
    """Code an image file: PNG, JPEG, WebP and whatever else Pillow reads, of 8 bits.

    Args:
        image: the file; of a palette the colours are coded. Alpha is kept exactly.
        path: the `.fewbits` file to write, whole or not at all.
        codec: a codec's file, or an open one.
        quality: its number, from 0 for the smallest file; by default the middle one.
        seed: of the dither; stored in the file.
        refine: steps of a search for latents that are worth more, for this image alone; each takes about as long as
            decoding. The file of such a search may differ from one machine to another; what it decodes to does not.

    Raises:
        InvalidArgument: there is no such image, codec or quality; `refine` is below 0; or the target is not usable.
        Corrupt: the image cannot be decoded; or as the codec's file is.
        OSError: the system failed to write.
    """
    return save(read_picture(image).array, path, codec=codec, quality=quality, seed=seed, refine=refine)


def save(
    image: Tensor,
    path: PathLike,
    *,
    codec: PathLike | FrozenCodec,
    quality: int | None = None,
    seed: int = 0,
    refine: int = 0,
) -> Coded:
    """Code an image in memory: (H, W) or (H, W, 1 to 4) uint8, the second or fourth channel alpha.

    Raises:
        As `encode`; also InvalidArgument: the image is of another dtype or shape, or without pixels.
    """
    check_target(path)
    if not isinstance(seed, int) or not 0 <= seed < 1 << 64:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"the seed must be a whole number from 0 to 2^64 - 1, not {seed!r}.")
    if isinstance(refine, bool) or not isinstance(refine, int) or refine < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"the steps of a search must be a whole number of at least 0, not {refine!r}.")
    picture = Picture.of(image)
    opened = codec if isinstance(codec, FrozenCodec) else open_codec(codec)
    qualities = range(len(opened.config.trades))
    if quality is None:
        quality = len(qualities) // 2
    if isinstance(quality, bool) or quality not in qualities or not isinstance(quality, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"this codec has the qualities 0 to {qualities[-1]}, not {quality!r}.")
    tensors = {_IMAGE: picture.colours} | ({} if picture.alpha is None else {_ALPHA: picture.alpha.contiguous()})
    entries = entries_of(tensors, copies=False)
    method = Image(ImageConfig(opened.digest.hex(), quality), refine=refine)
    chunks = list(method.encode(Source(tensors), rate_weight=0.0, seed=seed))
    data = file_bytes(chunks=chunks, tensors=entries, seed=seed, rate_weight=None, metadata=None)
    size = write_atomic(path, [data])
    losses = [loss for chunk in chunks for loss in chunk.losses]
    pixels = picture.colours.shape[0] * picture.colours.shape[1]
    return Coded(
        size=size,
        estimated_bits=sum(loss.bits for loss in losses),
        actual_bits=8 * sum(len(chunk.payload) for chunk in chunks),
        bits_per_pixel=8 * size / pixels,
        psnr=psnr_of(sum(loss.squared_error for loss in losses) / picture.colours.numel()),
    )


def load(path: PathLike, *, codec: PathLike | None = None, limit: int | None = None) -> Tensor:
    """Return the image of a file, (H, W, 1 to 4) uint8: the same pixels on every machine.

    Args:
        codec: the codec's file, where it lies neither beside the image nor in a folder that FEWBITS_CODECS names.
        limit: as for `fewbits.load`.

    Raises:
        Incompatible: the codec is not at hand, or another one is given than the image needs; the hash is named.
        InvalidArgument: the file holds no image.
        Corrupt, Truncated, TooLarge: as the file is.
    """
    if codec is not None:
        open_codec(codec)
    with api.open(path, limit=limit) as archive:
        if _IMAGE not in archive or set(archive) - {_IMAGE, _ALPHA}:
            raise InvalidArgument(f"{os.fspath(path)!r} holds no image.")
        if codec is None:
            _look_beside(path)
        tensors = archive.read_all()
    image, alpha = tensors[_IMAGE], tensors.get(_ALPHA)
    if image.dtype != torch.uint8 or image.ndim != 3 or (alpha is not None and alpha.shape != image.shape[:2]):
        raise Corrupt("a file's image and its alpha do not fit together.")
    return Picture(image, alpha).array


def _look_beside(path: PathLike) -> None:
    """Open the codecs that a file's record names, from its own folder: parts name them, but know no folder."""
    for method in api.info(path).methods:
        digest = method.config.get("codec")
        if method.id == Image.id and isinstance(digest, str) and len(digest) == 2 * DIGEST_SIZE:
            with suppress(ValueError):  # not hexadecimal: a record says nothing that decoding relies on
                find_codec(bytes.fromhex(digest), [Path(path).parent])


def decode(path: PathLike, out: PathLike, *, codec: PathLike | None = None, limit: int | None = None) -> None:
    """Decode a file to an image file, of the kind that its suffix names; .png keeps every pixel.

    Raises:
        As `load`; also InvalidArgument: no such kind can be written, or not there.
        OSError: the system failed to write.
    """
    check_target(out)
    array = load(path, codec=codec, limit=limit)
    write_atomic(out, [image_bytes(Picture.of(array), Path(out).suffix)])
