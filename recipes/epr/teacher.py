"""Train a plain convolutional network on MNIST, and keep its logits of every training image and shift: to distil from.

    python recipes/epr/teacher.py --data DIR --out FILE.pt [--seed 0]

It sees what the rows see: the first 55,000 training images, shifted by up to a pixel.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mnist
from models import LeNet5

UNITS, STEPS, BATCH, RATE = (16, 32, 128), 4000, 128, 2e-3
_SHOWN = 1000


def trained(train: mnist.Split, seed: int) -> LeNet5:
    """Train the network; the average of its weights over the last steps."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of the initial weights
    network = LeNet5(UNITS)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    )
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / STEPS))
    order, start = torch.zeros(0, dtype=torch.int64), time.monotonic()
    for step in range(STEPS):
        if len(order) < BATCH:
            order = torch.randperm(len(train.labels), generator=generator)
        batch, order = order[:BATCH], order[BATCH:]
        images = mnist.inputs_of(mnist.shifted(train.images[batch], mnist.shifts_of(BATCH, generator)))
        loss = cross_entropy(network(images), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}; {time.monotonic() - start:.0f} s", flush=True)
    return average.module


@torch.no_grad()
def logits_of(network: LeNet5, images: Tensor) -> Tensor:
    """Return logits (3, 3, N, 10) float16 by where an image is cut (`mnist.shifts_of`), and image."""
    shifts: list[Tensor] = []
    padded = pad(images, (1, 1, 1, 1))
    for down in range(3):
        for across in range(3):
            parts = padded[:, :, down : down + 28, across : across + 28].split(_SHOWN)
            shifts.append(torch.cat([network(mnist.inputs_of(part)) for part in parts]).half())
    return torch.stack(shifts).reshape(3, 3, len(images), 10)


def main() -> None:
    """Train, show, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds mnist/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train = mnist.read(options.data, "train")
    network = trained(train, options.seed).eval()
    print(f"validation error {mnist.error_of(network, mnist.read(options.data, 'validation')):.2f} %", flush=True)
    torch.save(logits_of(network, train.images), options.out)


if __name__ == "__main__":
    main()
