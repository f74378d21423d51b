"""Train one row's network against its own code length, and write it.

    python recipes/epr/train.py ROW --data DIR --out FILE.fewbits [--seed 0] [--resume FOLDER]

ROW is one of recipes/epr/rows.py. With --resume the run leaves a checkpoint in that folder every 1,000 steps and goes
on from there. Prints validation errors only: the test set is for recipes/evaluate.py.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fewbits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mnist
from epr.rows import ROWS, Row
from models import LeNet5, LeNet300

CHECKPOINT_STEPS = 1000
REFINE_IMAGES, REFINE_BATCH = 10_000, 250


def started(row: Row, generator: torch.Generator) -> nn.Module:
    """The row's network with He's initial weights and zero biases, LeNet5 with the row's units."""
    network = LeNet300() if row.network == "lenet300" else LeNet5(row.channels, row.hidden)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                parameter.zero_()
                continue
            grid = row.decoders.get(name)
            if grid is not None and grid["kind"] == "grid":
                parameter.copy_(on_grid(parameter.shape[0], grid, generator))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / fan_in))
    return network


def on_grid(rows: int, grid: dict[str, Any], generator: torch.Generator) -> Tensor:
    """Initial weights (rows, height × width) that a grid of bumps can give: independent coefficients."""
    from fewbits.quantize.parameter_decoders import Grid

    size = (grid["size"][0], grid["size"][1])
    down, across = map(torch.from_numpy, Grid((0,), size, tuple(grid["image"]), grid["margin"]).bases())
    # A bump covers about two pixels each way, so its coefficient counts four times.
    coefficients = torch.randn(rows, *size, generator=generator) * math.sqrt(2 / math.prod(size)) / 4
    return (down @ coefficients @ across.T).reshape(rows, -1)


def rate_factor(row: Row, step: int) -> float:
    """Learning rates: constant, then along a cosine to a hundredth."""
    progress = (step / row.steps - row.flat) / (1 - row.flat)
    return max(0.01, 0.5 + 0.5 * math.cos(math.pi * max(0.0, progress)))


class Run:
    """One training: network, latents, optimizer and the order of the images; all of it in its checkpoint."""

    def __init__(self, row: Row, seed: int, data: Path) -> None:
        """Start a run."""
        self.row, self.seed, self.step, self.seconds = row, seed, 0, 0.0
        self.train, self.validation = mnist.read(data, "train"), mnist.read(data, "validation")
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of the noise that densities see
        self.network = started(row, self.generator).train()
        config = fewbits.EprConfig(
            rate=row.rate, decoders=row.decoders, first_steps=row.first_steps, average=row.average
        )
        num_weights = sum(parameter.numel() for parameter in self.network.parameters())
        self.latents = fewbits.attach(
            self.network,
            fewbits.Epr(config),
            rate_weight=row.nats_per_bit * num_weights,
            warm_up=int(row.warm_up * row.steps),
            seed=0,
        )
        groups = self.latents.parameter_groups(row.latent_rate, row.decoder_rate, row.density_rate)
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: rate_factor(row, step))
        self.order = torch.zeros(0, dtype=torch.int64)

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": (self.generator.get_state(), torch.get_rng_state()),
            "order": self.order,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generators"][0])
        torch.set_rng_state(state["generators"][1])
        self.order, self.step, self.seconds = state["order"], state["step"], state["seconds"]

    def advance(self) -> None:
        """Take one training step."""
        if len(self.order) < self.row.batch:
            self.order = torch.randperm(len(self.train.labels), generator=self.generator)
        batch, self.order = self.order[: self.row.batch], self.order[self.row.batch :]
        images = self.train.images[batch]
        if self.row.shifts:
            images = mnist.shifted(images, self.generator)
        loss = cross_entropy(self.network(mnist.inputs_of(images)), self.train.labels[batch])
        loss = loss + self.latents.rate_loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1

    def go(self, checkpoint: Path | None) -> None:
        """Train to the end."""
        while self.step < self.row.steps:
            start, stop = time.monotonic(), min(self.step + CHECKPOINT_STEPS, self.row.steps)
            while self.step < stop:
                self.advance()
            self.seconds += time.monotonic() - start
            error = mnist.error_of(self.network, self.validation)
            print(
                f"step {self.step}: {self.latents.num_bytes()} B, estimated {float(self.latents.bits()) / 8:.0f} B;"
                f" validation error {error:.2f} %; {self.seconds:.0f} s",
                flush=True,
            )
            if checkpoint is not None:
                unfinished = checkpoint.with_suffix(".unfinished")
                torch.save(self.state(), unfinished)
                unfinished.replace(checkpoint)


def refined(run: Run) -> None:
    """Trade training loss for bits once more, on the first images of the training split, shifted as in training."""
    some = run.train.images[:REFINE_IMAGES]
    images = (mnist.shifted(some, run.generator) if run.row.shifts else some).split(REFINE_BATCH)
    labels = run.train.labels[:REFINE_IMAGES].split(REFINE_BATCH)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(run.network(mnist.inputs_of(batch[0])), batch[1])

    done = run.latents.refine(list(zip(images, labels, strict=True)), loss, batch_size=REFINE_BATCH)
    print(
        f"refined: {done.bytes_before} to {done.bytes_after} B, loss {done.loss_before:.4f} to {done.loss_after:.4f},"
        f" {done.num_moves} moves",
        flush=True,
    )


def whole(run: Run) -> nn.Module:
    """The row's network at its full size, attached, with what the run has trained; its other units zero."""
    if run.row.network != "lenet5":
        return run.network
    tensors, _ = run.latents.finished()
    network = LeNet5()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            small = tensors[name]
            parameter.zero_()
            if name == "fc1.weight":
                part = small.reshape(small.shape[0], -1, 16)
                parameter.reshape(500, 50, 16)[: part.shape[0], : part.shape[1]] = part
            else:
                parameter[tuple(slice(side) for side in small.shape)] = small
    # The steps of the run, so that the latents are the very integers again.
    steps = {one.spec.name: float(one.exact_step()) for one in run.latents.representation.latent_tensors()}
    fewbits.attach(network, fewbits.Epr(fewbits.EprConfig(first_steps=steps)), rate_weight=0.0)
    return network.eval()


def main() -> None:
    """Train, write, and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=sorted(ROWS))
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds mnist/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="folder of checkpoints")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="another value of a setting (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    changed = {name: json.loads(value) for name, _, value in (item.partition("=") for item in options.set)}
    run = Run(Row(**{**vars(ROWS[options.row]), **changed}), options.seed, options.data)
    checkpoint = None
    if options.resume is not None:
        options.resume.mkdir(parents=True, exist_ok=True)
        checkpoint = options.resume / f"{options.row}-{options.seed}.pt"
        if checkpoint.exists():
            run.restore(torch.load(checkpoint))
    run.go(checkpoint)
    start = time.monotonic()
    if run.row.refine:
        refined(run)
    run.seconds += time.monotonic() - start
    network = whole(run)
    print("saving", flush=True)
    report = fewbits.save(network, options.out, bare=True)
    loaded = fewbits.load(options.out, into=(LeNet300 if run.row.network == "lenet300" else LeNet5)())
    print(
        json.dumps(
            {
                "row": options.row,
                "seed": options.seed,
                **changed,
                "bytes": report.size,
                "validation_error_percent": round(mnist.error_of(loaded, run.validation), 2),
                "training_seconds": round(run.seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
