"""Make the data file of `fewbits demo`, the digits: a file of this library.

    pip install scikit-learn && python recipes/digits_data.py

Writes into `src/fewbits/cli/`.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits as load_scikit_digits
from torch import Tensor, nn

import fewbits
from fewbits.cli.digits import DATA_FILE, MAX_PIXEL, accuracy, load_digits, trained_network

SEED = 1
NUM_TEST = 500


class StoredDigits(nn.Module):
    """The digits as a module, which `epr` can code. pixels: (64, N) float32; labels: (N,) int64; test: (N,) bool."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], test: NDArray[np.bool_]) -> None:
        super().__init__()
        self.pixels = nn.Parameter(torch.from_numpy(images.T.astype(np.float32)))
        self.labels: Tensor
        self.register_buffer("labels", torch.from_numpy(labels))
        self.test: Tensor
        self.register_buffer("test", torch.from_numpy(test))


def scikit_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Return images (1797, 64) in 0..MAX_PIXEL, labels (1797,), and which are for testing (1797,)."""
    source = load_scikit_digits()
    images = np.floor(source.data * (MAX_PIXEL / 16) + 0.5).astype(np.uint8)
    labels = source.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    test[np.random.default_rng(SEED).permutation(len(labels))[:NUM_TEST]] = True
    return images, labels, test


def short_order(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[int]:
    """Return an order that codes well: digit by digit, and after each image the one most like it that is left."""
    values = images.astype(np.int64)
    order: list[int] = []
    for label in np.unique(labels):
        left = np.flatnonzero(labels == label)
        while left.size:
            next_one = 0
            if order:
                next_one = int(((values[left] - values[order[-1]]) ** 2).sum(1).argmin())
            order.append(int(left[next_one]))
            left = np.delete(left, next_one)
    return order


def write_data(path: Path) -> None:
    """Write the digits, their order apart without loss: at a step of 1, pixels are their own levels."""
    images, labels, test = scikit_digits()
    order = short_order(images, labels)
    stored = StoredDigits(images[order], labels[order], test[order])
    expected = {name: tensor.clone() for name, tensor in stored.state_dict().items()}
    fewbits.attach(stored, fewbits.Epr(fewbits.EprConfig(first_steps={"*": 1.0}, average=0)), rate_weight=1e-9)
    fewbits.save(stored.eval(), path, keep_units=True)
    found = fewbits.load(path)
    if not all(torch.equal(found[name], tensor) for name, tensor in expected.items()):
        raise SystemExit("the digits' file does not hold the digits.")


if __name__ == "__main__":
    write_data(DATA_FILE)
    network = trained_network()
    for name, digits in zip(("train", "test"), load_digits(), strict=True):
        print(f"{name} accuracy of the demo's network {accuracy(network, digits):.4f}")
