"""MNIST as the recipes split it: the last 5,000 training images are for choosing, the official 10,000 for the row."""

import gzip
from pathlib import Path

import numpy as np
import splits
import torch
from splits import Split
from torch import Tensor, nn
from torch.nn.functional import pad

NUM_VALIDATION = 5000


def read(folder: Path, part: str) -> Split:
    """Read a part of MNIST from `folder`/mnist/*.gz: "train" (55,000), "validation" (5,000) or "test" (10,000)."""
    prefix = "t10k" if part == "test" else "train"
    arrays: list[Tensor] = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        octets = gzip.decompress((folder / "mnist" / f"{prefix}-{kind}-ubyte.gz").read_bytes())
        arrays.append(torch.from_numpy(np.frombuffer(octets, np.uint8, offset=header).copy()))
    images, labels = arrays[0].reshape(-1, 1, 28, 28), arrays[1].long()
    if part == "test":
        return Split(images, labels)
    cut = slice(None, -NUM_VALIDATION) if part == "train" else slice(-NUM_VALIDATION, None)
    return Split(images[cut], labels[cut])


def inputs_of(images: Tensor) -> Tensor:
    """Return images (N, 1, 28, 28) uint8 as float32 in [0, 1]."""
    return images.float() / 255


_ALIKE = 16


def shifts_of(count: int, generator: torch.Generator) -> Tensor:
    """Draw where to cut (ceil(count / 16), 2) padded images: 0, 1 or 2 down and across; sixteen of them alike."""
    return torch.randint(3, (-(-count // _ALIKE), 2), generator=generator)


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift images (N, 1, 28, 28) by up to a pixel both ways."""
    parts = zip(pad(images, (1, 1, 1, 1)).split(_ALIKE), shifts.tolist(), strict=True)
    return torch.cat([part[:, :, down : down + 28, right : right + 28] for part, (down, right) in parts])


def for_each(shifts: Tensor, count: int) -> Tensor:
    """Return the shift of each of so many images, (count, 2)."""
    return shifts.repeat_interleave(_ALIKE, 0)[:count]


def error_of(network: nn.Module, split: Split) -> float:
    """Per cent of images that the network gets wrong, in eval mode."""
    return splits.error_of(network, split, inputs_of)
