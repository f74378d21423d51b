"""Train the ResNet-20 that the rows on CIFAR-10 start from, on 40,000 images.

    python recipes/qswd/baseline.py --data DIR --out FILE.fewbits [--seed 0] [--resume FILE.pt]

It sees crops of 24 × 24 pixels first, whole images at the end: a third of the time less than with whole images, for
no worse a network. With --resume it leaves a checkpoint there after each epoch, and goes on from it. The file holds the
network without loss.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

import fewbits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cifar10
import program
from models import ResNet20

EPOCHS, SMALL_EPOCHS, SMALL_SIDE = 20, 12, 24
BATCH = 128
PEAK_RATE, WARM_UP, DECAY, SMOOTHING = 0.3, 0.2, 5e-4, 0.05


class Run:
    """One training: network, optimizer, the order of images and where it is."""

    def __init__(self, data: Path, seed: int) -> None:
        """Start a run."""
        self.train, self.validation = cifar10.read(data, "train"), cifar10.read(data, "validation")
        torch.manual_seed(seed)  # of the initial weights
        self.network = ResNet20().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), PEAK_RATE, momentum=0.9, weight_decay=DECAY, nesterov=True
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch, self.seconds = 0, 0.0

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def advance(self) -> None:
        """Take an epoch's steps."""
        start = time.monotonic()
        side = SMALL_SIDE if self.epoch < SMALL_EPOCHS else cifar10.SIDE
        order = torch.randperm(len(self.train.labels), generator=self.generator).split(BATCH)
        for step, chosen in enumerate(order):
            self.optimizer.param_groups[0]["lr"] = rate_at((self.epoch + step / len(order)) / EPOCHS)
            images = cifar10.cropped(self.train.images[chosen], side, self.generator)
            logits = self.network(cifar10.inputs_of(images))
            loss = cross_entropy(logits, self.train.labels[chosen], label_smoothing=SMOOTHING)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.epoch += 1
        self.seconds += time.monotonic() - start


def rate_at(progress: float) -> float:
    """Learning rate at a share of the run: up to its peak along a line, and down to 0."""
    return PEAK_RATE * (progress / WARM_UP if progress < WARM_UP else (1 - progress) / (1 - WARM_UP))


def main() -> None:
    """Train, write, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds cifar10/ and load.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(options.data, options.seed)
    if options.resume is not None and options.resume.exists():
        run.restore(torch.load(options.resume))
    while run.epoch < EPOCHS:
        run.advance()
        error = cifar10.error_of(run.network, run.validation)
        print(f"epoch {run.epoch}: validation error {error:.2f} %; {run.seconds:.0f} s", flush=True)
        program.save(run.state(), options.resume)
    report = fewbits.compress(run.network, options.out, lossless=True)
    print(f"{options.out.name}: {report.size:,} B")


if __name__ == "__main__":
    main()
