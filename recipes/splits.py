"""Images with their labels, and how many of them a network gets wrong: what the recipes' data sets have in common."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

_BATCH = 500


class Split(NamedTuple):
    """Images (N, channels, height, width) uint8 and labels (N,) int64."""

    images: Tensor
    labels: Tensor


@torch.no_grad()
def error_of(network: nn.Module, split: Split, inputs_of: Callable[[Tensor], Tensor]) -> float:
    """Per cent of images that the network gets wrong, in eval mode; `inputs_of` makes its inputs of images."""
    training = network.training
    network.eval()
    wrong = 0
    for images, labels in zip(split.images.split(_BATCH), split.labels.split(_BATCH), strict=True):
        wrong += int((network(inputs_of(images)).argmax(1) != labels).sum())
    network.train(training)
    return 100 * wrong / len(split.labels)
