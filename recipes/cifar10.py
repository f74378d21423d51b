"""CIFAR-10 as the recipes split it: of the 50,000 training images 40,000 train, 5,000 choose, the last 5,000 report.

Of the official test images the first 1,000, which are at hand without loss, report too.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import splits
import torch
from numpy.typing import NDArray
from splits import Split
from torch import Tensor, nn
from torch.nn.functional import pad

# What each part is, and which training images it has; None for the official test images.
PARTS = {"train": slice(40_000), "validation": slice(40_000, 45_000), "test": slice(45_000, 50_000), "test1k": None}
# Of RGB / 255, by channel: those that the published checkpoint was trained with.
MEAN, STANDARD_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 32
_MARGIN = 4  # of zeros around an image that is cropped


def read(folder: Path, part: str) -> Split:
    """Read one of `PARTS` with the data folder's own loaders."""
    chosen = PARTS[part]
    images, labels = _loaded(folder, "cifar10_test1k" if chosen is None else "cifar10_train")
    if chosen is not None:
        images, labels = images[chosen], labels[chosen]
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(planes), torch.from_numpy(labels.astype(np.int64)))


@cache
def _loaded(folder: Path, loader: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, 32, 32, 3) and labels (N,) as a loader gives them; training sheets take seconds."""
    spec = importlib.util.spec_from_file_location("cifar10_loaders", folder / "load.py")
    assert spec and spec.loader
    loaders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaders)
    return getattr(loaders, loader)()


def inputs_of(images: Tensor) -> Tensor:
    """Return images (N, 3, H, W) uint8 as normalised float32, channels last: a CPU takes a sixth less time so."""
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STANDARD_DEVIATION))
    return ((images.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)


def cropped(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cut a square out of each image (N, 3, 32, 32), padded by 4, and mirror half of them; (N, 3, side, side)."""
    count = len(images)
    reach = SIDE + 2 * _MARGIN - side + 1
    down, across = torch.randint(reach, (2, count), generator=generator)
    rows = down[:, None] + torch.arange(side)
    columns = across[:, None] + torch.arange(side)
    mirrored = torch.randint(2, (count, 1), generator=generator) > 0
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = pad(images, (_MARGIN,) * 4)
    places = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[places, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def error_of(network: nn.Module, split: Split) -> float:
    """Per cent of images that the network gets wrong, in eval mode."""
    return splits.error_of(network, split, inputs_of)
