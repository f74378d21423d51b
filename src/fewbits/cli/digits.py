"""The demo's data and network: 8x8 digits and a multilayer perceptron, both in the package.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository
(doi:10.24432/C50P49, CC BY 4.0), the 1,797 images that scikit-learn's `load_digits` gives. The weights are
our own; `recipes/digits_network.py` trains them and writes both files.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

DATA_FILE = Path(__file__).with_name("digits.npz")
NETWORK_FILE = Path(__file__).with_name("digits_network.safetensors")
MAX_PIXEL = 16  # pixels are 0..16
WIDTHS = (64, 192, 96, 10)


class Digits(NamedTuple):
    """One half of the data. images: (B, 64) float32 in [0, 1]; labels: (B,) int64 in 0..9."""

    images: Tensor
    labels: Tensor


class DigitsNetwork(nn.Module):
    """Perceptron 64-192-96-10 with ReLU: 31,978 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTHS[0], WIDTHS[1])
        self.second = nn.Linear(WIDTHS[1], WIDTHS[2])
        self.third = nn.Linear(WIDTHS[2], WIDTHS[3])

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 10) logits of (B, 64) images."""
        hidden = torch.relu(self.second(torch.relu(self.first(images))))
        return self.third(hidden)


def load_digits() -> tuple[Digits, Digits]:
    """Return the training and the test half (1,297 and 500 images); the split is stored with the data."""
    with np.load(DATA_FILE) as data:
        images = torch.from_numpy(data["pixels"].T.astype(np.float32) / MAX_PIXEL)
        labels = torch.from_numpy(data["labels"].astype(np.int64))
        test = torch.from_numpy(data["test"])
    return Digits(images[~test], labels[~test]), Digits(images[test], labels[test])


def trained_network() -> DigitsNetwork:
    """Return the network with the weights from the package."""
    from safetensors.torch import load_file

    network = DigitsNetwork()
    network.load_state_dict(load_file(NETWORK_FILE))
    return network.eval()


def noisy(images: Tensor) -> Tensor:
    """Return (B, 64) images as training sees them: normal noise of 0.1, then one pixel in ten dropped."""
    return dropout(images + 0.1 * torch.randn(images.shape), 0.1)


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Return the fraction of images that the network labels correctly."""
    with torch.no_grad():
        return (network(digits.images).argmax(1) == digits.labels).double().mean().item()
