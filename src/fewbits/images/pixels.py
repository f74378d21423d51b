"""Images as arrays, by Pillow (the extra `images`)."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import Corrupt, InvalidArgument

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


class Picture(NamedTuple):
    """An image of 8 bits: colours (H, W, 1 or 3) uint8, and alpha (H, W) uint8 or None."""

    colours: Tensor
    alpha: Tensor | None

    @classmethod
    def of(cls, array: Tensor) -> "Picture":
        """Take an array (H, W), or (H, W, 1 to 4) whose second or fourth channel is alpha, uint8.

        Raises:
            InvalidArgument: it is of another dtype or shape, or without pixels.
        """
        if array.dtype != torch.uint8:
            also = ", and not all its values are finite" if not bool(array.isfinite().all()) else ""
            raise InvalidArgument(
                f"an image is 8 bit, uint8; this one is {str(array.dtype).removeprefix('torch.')}{also}."
            )
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or not 1 <= array.shape[2] <= 4:
            raise InvalidArgument(f"an image is (height, width, 1 to 4 channels), not {tuple(array.shape)}.")
        if not array.numel():
            raise InvalidArgument("an image has at least one pixel.")
        has_alpha = array.shape[2] in (2, 4)
        return cls(array[..., : array.shape[2] - has_alpha], array[..., -1] if has_alpha else None)

    @property
    def array(self) -> Tensor:
        """All channels, (H, W, 1 to 4) uint8."""
        return self.colours if self.alpha is None else torch.cat([self.colours, self.alpha[..., None]], -1)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read an image file. Palettes become the colours they stand for; what is not of 8 bits is refused.

    Raises:
        InvalidArgument: there is no such file, it is no image, or one of more than 8 bits.
        Corrupt: it begins as an image does, and cannot be decoded.
    """
    image_module = pillow()
    name = os.fspath(path)
    if not os.path.isfile(path):
        raise InvalidArgument(f"there is no file {name!r}.")
    # A size is no reason to refuse, as encoding goes band by band. But the limit is the process's: it is put back.
    limit, image_module.MAX_IMAGE_PIXELS = image_module.MAX_IMAGE_PIXELS, None
    try:
        image = image_module.open(path)
    except Exception as error:
        raise InvalidArgument(f"{name!r} is no image that Pillow can read.") from error
    finally:
        image_module.MAX_IMAGE_PIXELS = limit
    with image:
        if image.mode.startswith(("I", "F")):
            raise InvalidArgument(f"{name!r} has more than 8 bits a channel; an image is 8 bit.")
        if image.mode == "P" or "transparency" in image.info:
            mode = "RGBA" if "transparency" in image.info else "RGB"
        else:
            mode = {"1": "L", "L": "L", "LA": "LA", "RGBA": "RGBA", "PA": "RGBA"}.get(image.mode, "RGB")
        try:
            array = np.asarray(image.convert(mode))
        except Exception as error:
            raise Corrupt(f"{name!r} is an image that cannot be decoded.") from error
    return Picture.of(torch.from_numpy(array.copy()))


def image_bytes(picture: Picture, suffix: str) -> bytes:
    """Return an image file's bytes, of the kind that a suffix names.

    Raises:
        InvalidArgument: Pillow writes no such kind, or not of such images.
    """
    array = picture.array.numpy()
    image = pillow().fromarray(array[..., 0] if array.shape[2] == 1 else array)
    kinds = pillow().registered_extensions()
    buffer = io.BytesIO()
    try:
        image.save(buffer, kinds[suffix.lower()])
    except (KeyError, OSError, ValueError) as error:
        raise InvalidArgument(
            f"an image of this kind cannot be written as {suffix or 'a file without suffix'!r}; try .png."
        ) from error
    return buffer.getvalue()


def image_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted.

    Raises:
        InvalidArgument: it is no folder, or holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InvalidArgument(f"there is no folder {os.fspath(folder)!r}.")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InvalidArgument(f"the folder {os.fspath(folder)!r} holds no image ({', '.join(SUFFIXES)}).")
    return found


def read_colours(paths: list[Path]) -> Iterator[Tensor]:
    """Yield images in colour, (3, H, W) uint8; grey ones three times the same, alpha left out."""
    for path in paths:
        colours = read_picture(path).colours
        yield colours.expand(*colours.shape[:2], 3).movedim(-1, 0).contiguous()


def pillow() -> Any:
    """Return Pillow's module of images.

    Raises:
        InvalidArgument: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidArgument("images need Pillow: pip install 'fewbits[images]'.") from error
    Image.init()
    return Image
