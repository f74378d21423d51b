"""Train a posterior over LeNet5's weights, send it block by block, and write it.

    python recipes/miracle/train.py ROW --data DIR --out FILE.fewbits [--seed 0] [--resume FOLDER]

ROW is one of recipes/miracle/rows.py. With --resume the run leaves a checkpoint in that folder every 1,000 steps and
goes on from there. Prints validation errors only: the test set is for recipes/evaluate.py. Beside FILE.fewbits it
leaves FILE.json: what the run was, and what came out.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fewbits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import mnist
import program
from miracle.rows import ROWS, Row
from models import LeNet5

CHECKPOINT_STEPS = 1000


def started(row: Row, generator: torch.Generator) -> LeNet5:
    """A network of the row's units, with He's initial weights and zero biases."""
    network = LeNet5(row.units)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel()
            scale = math.sqrt(2 / fan_in) if parameter.ndim > 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def config_of(row: Row, num_blocks: int, *, whole: bool) -> fewbits.MiracleConfig:
    """The method's settings; for the whole network they say which of its units are live."""
    first, second, third = row.units
    live = {
        "conv1.weight": [first, 1, 5, 5],
        "conv1.bias": [first],
        "conv2.weight": [second, first, 5, 5],
        "conv2.bias": [second],
        "fc1.weight": [third, 16 * second],
        "fc1.bias": [third],
        "fc2.weight": [10, third],
    }
    return fewbits.MiracleConfig(
        bits=row.bits,
        num_blocks=num_blocks,
        slack=row.slack,
        parameterisation=row.parameterisation,
        candidates=row.candidates,
        pick=row.pick,
        live=live if whole else {},
        first_priors={"*.bias": 0.1},
    )


def attached_whole(row: Row, num_blocks: int, seed: int) -> tuple[LeNet5, Any]:
    """The whole network with a posterior over what is live, in so many blocks, or in those that the budget has."""
    network = LeNet5()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)  # what it starts from is replaced, or only counted
    return network, fewbits.attach(
        network, fewbits.Miracle(config_of(row, num_blocks, whole=True)), budget=row.budget, seed=seed
    )


class Run:
    """One training: network, posterior, optimizer and the order of the images; all of it in its checkpoint."""

    def __init__(self, row: Row, seed: int, data: Path) -> None:
        """Start a run."""
        self.row, self.seed, self.step, self.seconds = row, seed, 0, 0.0
        self.train, self.validation = mnist.read(data, "train"), mnist.read(data, "validation")
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # of the posterior's samples
        self.order = torch.zeros(0, dtype=torch.int64)
        self.network: nn.Module = started(row, self.generator).train()
        self.num_blocks = len(attached_whole(row, 0, seed)[1].representation.steps)
        method = fewbits.Miracle(config_of(row, self.num_blocks, whole=False))
        self.latents = fewbits.attach(self.network, method, rate_weight=1.0, seed=seed)
        representation = self.latents.representation
        named = dict(representation.named_parameters())
        rates = {"raw_means": row.mean_rate, "spreads": row.spread_rate, "log_priors": row.prior_rate}
        groups = [
            {"params": [p for name, p in named.items() if name.endswith(kind)], "lr": rate}
            for kind, rate in rates.items()
        ]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.rates = [group["lr"] for group in groups]
        # Blocks are sent in the order that they lie in: which weights a block has is random already.
        steps = representation.steps
        self.sendings = [steps[i : i + row.blocks_at_once] for i in range(0, len(steps), row.blocks_at_once)]

    @property
    def num_steps(self) -> int:
        """Training steps of the whole run."""
        return self.row.steps + self.row.steps_between * (len(self.sendings) - 1)

    def rate_factor(self) -> float:
        """Learning rates: constant, then along a cosine to `sending_rate`; that while blocks are sent, falling to 0."""
        row = self.row
        if self.step >= row.steps:
            return row.sending_rate * (1 - (self.step - row.steps) / max(1, self.num_steps - row.steps + 1))
        progress = max(0.0, (self.step / row.steps - row.fall) / (1 - row.fall))
        return row.sending_rate + (1 - row.sending_rate) * (0.5 + 0.5 * math.cos(math.pi * progress))

    def advance(self) -> None:
        """Take one training step; send blocks where it is time to."""
        row = self.row
        after = self.step - row.steps
        if after >= 0 and after % row.steps_between == 0:
            self.latents.representation.commit_all(self.sendings[after // row.steps_between])
        if len(self.order) < row.batch:
            self.order = torch.randperm(len(self.train.labels), generator=self.generator)
        batch, self.order = self.order[: row.batch], self.order[row.batch :]
        images = self.train.images[batch]
        if row.shifts:
            images = mnist.shifted(images, mnist.shifts_of(len(images), self.generator))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.rate_factor()
        loss = cross_entropy(self.network(mnist.inputs_of(images)), self.train.labels[batch]) + self.latents.rate_loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "latents": self.latents.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": (self.generator.get_state(), torch.get_rng_state()),
            "order": self.order,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.latents.load_state_dict(state["latents"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generators"][0])
        torch.set_rng_state(state["generators"][1])
        self.order, self.step, self.seconds = state["order"], state["step"], state["seconds"]

    @torch.no_grad()
    def sampled_error(self) -> float:
        """Validation error of one sample of what is open: evaluating exactly would send everything."""
        wrong = 0
        for images, labels in zip(self.validation.images.split(1000), self.validation.labels.split(1000), strict=True):
            wrong += int((self.network(mnist.inputs_of(images)).argmax(1) != labels).sum())
        return 100 * wrong / len(self.validation.labels)

    def go(self, checkpoint: Path | None) -> None:
        """Train to the end, and send what is open."""
        while self.step < self.num_steps:
            start, stop = time.monotonic(), min(self.step + CHECKPOINT_STEPS, self.num_steps)
            while self.step < stop:
                self.advance()
            self.seconds += time.monotonic() - start
            open_blocks = len(self.latents.representation.open_steps)
            priors = [round(p, 3) for p in self.latents.representation.groups[0].priors().tolist()]
            print(
                f"step {self.step} of {self.num_steps}: {open_blocks} blocks open, a sample's validation error"
                f" {self.sampled_error():.2f} %, priors {priors}; {self.seconds:.0f} s",
                flush=True,
            )
            program.save(self.state(), checkpoint)
        self.latents.representation.commit_all(self.latents.representation.open_steps)


def whole(run: Run) -> nn.Module:
    """The whole network, attached, with what the run has sent; its other units zero."""
    network, latents = attached_whole(run.row, run.num_blocks, run.seed)
    sent = run.latents.representation.state_dict()
    latents.load_state_dict({"representation": sent, "control": latents.control.state_dict()})
    return network.eval()


def main() -> None:
    """Train, write, and say what came out."""
    parser = program.parser_of(__doc__, ROWS, "mnist/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    row, changed = program.settings_of(options, ROWS)
    run = Run(row, options.seed, options.data)
    checkpoint = program.checkpoint_of(options)
    if checkpoint is not None and checkpoint.exists():
        run.restore(torch.load(checkpoint))
    run.go(checkpoint)
    report = fewbits.save(whole(run), options.out, bare=True)
    loaded = fewbits.load(options.out, into=LeNet5())
    found = {
        "row": options.row,
        "seed": options.seed,
        "settings": changed,
        "bytes": report.size,
        "parts_bytes": math.ceil(report.actual_bits / 8),
        "asked_bytes": row.budget,
        "validation_error_percent": round(mnist.error_of(loaded, run.validation), 2),
        "training_error_percent": round(mnist.error_of(loaded, run.train), 2),
        "training_seconds": round(run.seconds),
    }
    program.tell(found, options.out)


if __name__ == "__main__":
    main()
