"""The demo's data and network: 8x8 digits and a multilayer perceptron, both in the package.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository
(doi:10.24432/C50P49, CC BY 4.0), the 1,797 images that scikit-learn's `load_digits` gives; changed: their pixels, 0
to 16, are rounded to multiples of 4. The weights are our own; `recipes/digits_network.py` trains them and writes both
files, each by a method of this library.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from fewbits import api
from fewbits.random import PRIVATE, Stream, uniforms

DATA_FILE = Path(__file__).with_name("digits.fewbits")  # by `epr`: its adaptive stream knows pixels by their neighbours
NETWORK_FILE = Path(__file__).with_name("digits_network.fewbits")  # by `ecsq`
MAX_PIXEL = 4  # pixels are 0..4
WIDTHS = (64, 192, 96, 10)
NOISE = 0.25  # in medians of a tensor's magnitudes: about half a step of the file's


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
    data = api.load(DATA_FILE)
    images, labels, test = data["pixels"].T.contiguous() / MAX_PIXEL, data["labels"], data["test"]
    return Digits(images[~test], labels[~test]), Digits(images[test], labels[test])


def trained_network() -> DigitsNetwork:
    """Return the network with the weights from the package.

    They have few bits there. Noise as small as that rounding makes float32 weights of them whose every bit counts, as
    training leaves them: neither a lossless file nor a quantised one finds what the package's file has rounded away.
    """
    network = DigitsNetwork()
    weights = api.load(NETWORK_FILE)
    for number, name in enumerate(sorted(weights)):
        # NUMERICS: each operation is exact or rounded once, and a median is an element: the same bits everywhere.
        weight = weights[name].double()
        noise = torch.from_numpy(2 * uniforms(Stream(0, PRIVATE, number).sequence(0, weight.numel())) - 1)
        weight += NOISE * weight.abs().median() * noise.reshape(weight.shape)
        weights[name] = weight.float()
    network.load_state_dict(weights)
    return network.eval()


def noisy(images: Tensor) -> Tensor:
    """Return (B, 64) images as training sees them: normal noise of 0.1, then one pixel in ten dropped."""
    return dropout(images + 0.1 * torch.randn(images.shape), 0.1)


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Return the fraction of images that the network labels correctly."""
    with torch.no_grad():
        return (network(digits.images).argmax(1) == digits.labels).double().mean().item()
