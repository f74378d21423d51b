"""Make the two files of `fewbits demo`: the digits as an .npz, and a perceptron trained on them.

    pip install scikit-learn && python recipes/digits_network.py

Takes about 10 s on one core. Writes into `src/fewbits/cli/`.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.datasets import load_digits as load_scikit_digits
from torch.nn.functional import cross_entropy

from fewbits.cli.digits import Digits, DigitsNetwork, accuracy, load_digits, noisy

FOLDER = Path(__file__).parents[1] / "src" / "fewbits" / "cli"
SEED = 1
NUM_TEST = 500
EPOCHS = 80
BATCH = 64


def test_of(count: int) -> NDArray[np.bool_]:
    """Return which of so many images, in scikit-learn's order, are for testing."""
    test = np.zeros(count, dtype=bool)
    test[np.random.default_rng(SEED).permutation(count)[:NUM_TEST]] = True
    return test


def write_data(path: Path) -> None:
    """Write pixels (64, 1797) uint8, labels (1797,) uint8, test (1797,) bool, in an order that deflates well."""
    source = load_scikit_digits()
    test = test_of(len(source.target))
    order = np.argsort(source.target, kind="stable")
    pixels = np.ascontiguousarray(source.images.astype(np.uint8)[order].reshape(-1, 64).T)
    np.savez_compressed(path, pixels=pixels, labels=source.target.astype(np.uint8)[order], test=test[order])


def train() -> DigitsNetwork:
    """Train with AdamW, a cosine schedule, and dropout and noise on the pixels."""
    torch.manual_seed(SEED)
    digits, _ = load_digits()
    # Back in scikit-learn's order: that by label is the file's alone.
    labels = load_scikit_digits().target
    places = torch.from_numpy(np.argsort(np.argsort(labels[~test_of(len(labels))], kind="stable")))
    digits = Digits(digits.images[places], digits.labels[places])
    network = DigitsNetwork()
    steps = EPOCHS * (len(digits.labels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
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


if __name__ == "__main__":
    write_data(FOLDER / "digits.npz")
    network = train()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            # To four significant bits: next to nothing to the network, and most of its file in a deflated wheel.
            mantissa, exponent = torch.frexp(tensor)
            tensor.copy_(torch.ldexp((mantissa * 16).round() / 16, exponent))
    for name, digits in zip(("train", "test"), load_digits(), strict=True):
        print(f"{name} accuracy {accuracy(network, digits):.4f}")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, FOLDER / "digits_network.safetensors", metadata={"trained_by": "recipes/digits_network.py"})
