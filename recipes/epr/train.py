"""Train one row's network against its own code length, and write it.

    python recipes/epr/train.py ROW --data DIR --out FILE.fewbits [--seed 0] [--resume FOLDER]

ROW is one of recipes/epr/rows.py. With --resume the run leaves a checkpoint in that folder every 1,000 steps and goes
on from there. Prints validation errors only: the test set is for recipes/evaluate.py. Beside FILE.fewbits it leaves
FILE.json: what the run was, and what came out.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

import fewbits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mnist
import program
from epr import narrow
from epr.rows import ROWS, Row
from models import NETWORKS, UNIT_LAYERS

CHECKPOINT_STEPS, NARROW_STEPS = 1000, 250
TEMPERATURE = 3.0
REFINE_BATCH = 250


def started(row: Row, generator: torch.Generator) -> nn.Module:
    """The row's network, with the units that it starts with, He's initial weights and zero biases."""
    network = NETWORKS[row.network](row.units)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                parameter.zero_()
                continue
            grid = row.decoders.get(name)
            if isinstance(grid, dict):
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


class Examples(NamedTuple):
    """Inputs (N, 1, 28, 28) float32, labels (N,) int64, and what the teacher says of each: logits (N, 10) or None."""

    inputs: Tensor
    labels: Tensor
    taught: Tensor | None


class Run:
    """One training: network, latents, optimizer and the order of the images; all of it in its checkpoint."""

    def __init__(self, row: Row, seed: int, data: Path, taught: Tensor | None = None) -> None:
        """Start a run; taught: the teacher's logits, as recipes/epr/teacher.py leaves them."""
        self.row, self.seed, self.step, self.seconds, self.taught = row, seed, 0, 0.0, taught
        self.train, self.validation = mnist.read(data, "train"), mnist.read(data, "validation")
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of the noise that densities see
        self.order = torch.zeros(0, dtype=torch.int64)
        self.attach(started(row, self.generator))

    def attach(self, network: nn.Module) -> None:
        """Put latents behind a network, and make their optimizer."""
        row, self.network = self.row, network.train()
        config = fewbits.EprConfig(
            rate=row.rate,
            rounding=row.rounding,
            sharpness_steps=int(0.9 * row.steps),
            decoders=row.decoders,
            groups=row.groups,
            first_steps=row.first_steps,
            average=row.average,
        )
        num_weights = sum(parameter.numel() for parameter in network.parameters())
        self.latents = fewbits.attach(
            network,
            fewbits.Epr(config),
            rate_weight=row.nats_per_bit * num_weights,
            budget=row.budget or None,
            num_steps=row.steps if row.budget else None,
            warm_up=int(row.warm_up * row.steps),
            seed=0,
        )
        groups = self.latents.parameter_groups(row.latent_rate, row.decoder_rate, row.density_rate)
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.rates = [group["lr"] for group in groups]

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": (self.generator.get_state(), torch.get_rng_state()),
            "order": self.order,
            "units": narrow.units_of(self.network, UNIT_LAYERS[self.row.network]),
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.attach(NETWORKS[self.row.network](state["units"]))
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generators"][0])
        torch.set_rng_state(state["generators"][1])
        self.order, self.step, self.seconds = state["order"], state["step"], state["seconds"]

    def examples(self, chosen: Tensor) -> Examples:
        """Return training images by their indices, (N,), shifted anew if the row has that."""
        images, labels = self.train.images[chosen], self.train.labels[chosen]
        shifts = torch.ones(-(-len(images) // 16), 2, dtype=torch.int64)  # as they are
        if self.row.shifts:
            shifts = mnist.shifts_of(len(images), self.generator)
            images = mnist.shifted(images, shifts)
        taught = None
        if self.taught is not None:
            down, across = mnist.for_each(shifts, len(images)).unbind(1)
            taught = self.taught[down, across, chosen].float()
        # Convolutions and poolings of a CPU take two thirds of the time with channels last.
        inputs = mnist.inputs_of(images).to(memory_format=torch.channels_last)
        return Examples(inputs, labels, taught)

    def task_loss(self, examples: Examples) -> Tensor:
        """Return the mean cross-entropy; a row with a teacher has part of it from the teacher's softened answers.

        PAPER: Hinton et al. 2015, section 2, gradients of both parts of one size: the teacher's times T squared.
        """
        logits = self.network(examples.inputs)
        loss = cross_entropy(logits, examples.labels)
        if examples.taught is None:
            return loss
        softened = kl_div(
            log_softmax(logits / TEMPERATURE, 1), softmax(examples.taught / TEMPERATURE, 1), reduction="batchmean"
        )
        return (1 - self.row.distil) * loss + self.row.distil * TEMPERATURE**2 * softened

    def narrow(self) -> None:
        """Leave dead units out of the rest of the training."""
        live = narrow.live_units(self.network, self.latents)
        if all(len(units) == group.size for group, units in live):
            return
        latents, optimizer = self.latents, self.optimizer
        self.attach(NETWORKS[self.row.network](narrow.sizes_of(live, UNIT_LAYERS[self.row.network])))
        narrow.carry(latents, self.latents, live)
        narrow.carry_moments(latents, optimizer, self.latents, self.optimizer, live)

    def advance(self) -> None:
        """Take one training step."""
        if len(self.order) < self.row.batch:
            self.order = torch.randperm(len(self.train.labels), generator=self.generator)
        batch, self.order = self.order[: self.row.batch], self.order[self.row.batch :]
        examples = self.examples(batch)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * rate_factor(self.row, self.step)
        loss = self.task_loss(examples) + self.latents.rate_loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        if self.step % NARROW_STEPS == 0:
            self.narrow()

    def go(self, checkpoint: Path | None) -> None:
        """Train to the end."""
        while self.step < self.row.steps:
            start, stop = time.monotonic(), min(self.step + CHECKPOINT_STEPS, self.row.steps)
            while self.step < stop:
                self.advance()
            self.seconds += time.monotonic() - start
            error = mnist.error_of(self.network, self.validation)
            units = "-".join(map(str, narrow.units_of(self.network, UNIT_LAYERS[self.row.network])))
            print(
                f"step {self.step}: {self.latents.num_bytes()} B, units {units},"
                f" validation error {error:.2f} %; {self.seconds:.0f} s",
                flush=True,
            )
            program.save(self.state(), checkpoint)


def refined(run: Run) -> None:
    """Trade training loss for bits once more, on the first images of the training split, shifted as in training."""
    batches = [run.examples(chosen) for chosen in torch.arange(run.row.refine).split(REFINE_BATCH)]
    done = run.latents.refine(batches, run.task_loss, batch_size=REFINE_BATCH, budget=run.row.budget or None)
    print(
        f"refined: {done.bytes_before} to {done.bytes_after} B, loss {done.loss_before:.4f} to {done.loss_after:.4f},"
        f" {done.num_moves} moves",
        flush=True,
    )


def whole(run: Run) -> nn.Module:
    """The row's network at its full size, attached, with what the run has trained; its other units zero."""
    latents = run.latents.state_dict()["representation"]
    run.attach(NETWORKS[run.row.network]())
    own = run.latents.state_dict()
    own["representation"] = {
        name: narrow.spread(latents[name], value.shape) for name, value in own["representation"].items()
    }
    run.latents.load_state_dict(own)
    return run.network.eval()


def main() -> None:
    """Train, write, and say what came out."""
    parser = program.parser_of(__doc__, ROWS, "mnist/")
    parser.add_argument("--teacher", type=Path, help="what recipes/epr/teacher.py left, for a row with a teacher")
    options = parser.parse_args()
    torch.set_num_threads(1)
    row, changed = program.settings_of(options, ROWS)
    if row.distil and options.teacher is None:
        parser.error(f"row {options.row} has a teacher: run recipes/epr/teacher.py, and give its file as --teacher")
    run = Run(row, options.seed, options.data, torch.load(options.teacher) if row.distil else None)
    checkpoint = program.checkpoint_of(options)
    if checkpoint is not None and checkpoint.exists():
        run.restore(torch.load(checkpoint))
    run.go(checkpoint)
    start = time.monotonic()
    if run.row.refine:
        refined(run)
    run.seconds += time.monotonic() - start
    estimated = 8 * run.latents.num_bytes()
    network = whole(run)
    if run.row.budget and run.latents.num_bytes() > run.row.budget:
        refined(run)  # where its units sat takes some bytes, too
    report = fewbits.save(network, options.out, bare=True)
    loaded = fewbits.load(options.out, into=NETWORKS[run.row.network]())
    found = {
        "row": options.row,
        "seed": options.seed,
        "settings": changed,
        "bytes": report.size,
        "estimated_bits": estimated,
        "actual_bits": report.actual_bits,
        "validation_error_percent": round(mnist.error_of(loaded, run.validation), 2),
        "training_error_percent": round(mnist.error_of(loaded, run.train), 2),
        "training_seconds": round(run.seconds),
    }
    program.tell(found, options.out)


if __name__ == "__main__":
    main()
