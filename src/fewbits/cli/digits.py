"""The demo's data and network: 8x8 digits in the package, and a multilayer perceptron that learns them on the spot.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository
(doi:10.24432/C50P49, CC BY 4.0), the 1,797 images that scikit-learn's `load_digits` gives; changed: their pixels, 0
to 16, are rounded to multiples of 4. `recipes/digits_data.py` writes the file, by a method of this library.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from fewbits import api

DATA_FILE = Path(__file__).with_name("digits.fewbits")  # by `epr`: its adaptive stream knows pixels by their neighbours
MAX_PIXEL = 4  # pixels are 0..4
WIDTHS = (64, 192, 96, 10)
SEED, EPOCHS, BATCH = 1, 40, 64


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


@cache
def _trained() -> DigitsNetwork:
    digits, _ = load_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = DigitsNetwork()
        steps = EPOCHS * (len(digits.labels) // BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(digits.labels)).split(BATCH)[: len(digits.labels) // BATCH]:
                logits = network(noisy(digits.images[batch]))
                loss = cross_entropy(logits, digits.labels[batch], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def trained_network() -> DigitsNetwork:
    """Return a network that has learned the training half: AdamW, a cosine schedule, noise and dropout on pixels.

    Trained when it is first asked for, in some seconds; the same in every process of one machine.
    """
    return deepcopy(_trained())


def noisy(images: Tensor) -> Tensor:
    """Return (B, 64) images as training sees them: normal noise of 0.1, then one pixel in ten dropped."""
    return dropout(images + 0.1 * torch.randn(images.shape), 0.1)


def accuracy(network: nn.Module, digits: Digits) -> float:
    """Return the fraction of images that the network labels correctly."""
    with torch.no_grad():
        return (network(digits.images).argmax(1) == digits.labels).double().mean().item()
