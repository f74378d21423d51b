"""Fine-tune one row's ResNet-20 against its own code length, from the factors of the trained network, and write it.

    python recipes/qswd/train.py ROW --data DIR --network BASELINE.fewbits --out FILE.fewbits [--resume FOLDER]

ROW is one of recipes/qswd/rows.py; BASELINE is what recipes/qswd/baseline.py leaves. With --resume the run leaves a
checkpoint in that folder every 200 steps and goes on from there. Prints validation errors only: the images that report
are for recipes/evaluate.py. Beside FILE.fewbits it leaves FILE.json: what the run was, and what came out.
"""

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fewbits
from fewbits.archive import read_latents
from fewbits.method import Source
from fewbits.methods.ecsq import steps_of
from fewbits.methods.lossless import Lossless
from fewbits.methods.qswd import Qswd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cifar10
import program
from models import ResNet20
from qswd.rows import ROWS, Row

CHECKPOINT_STEPS = 200
REFINE_BATCH = 250


def coarse(network: nn.Module) -> None:
    """Round running statistics to 8 significant bits: they are coded without loss, and need no more."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(buffer.bfloat16())


def num_bytes_of_buffers(network: nn.Module) -> int:
    """Return what a file's lossless parts of the buffers take."""
    source = Source(dict(network.named_buffers()))
    return sum(len(chunk.payload) for chunk in Lossless().encode(source, rate_weight=0.0, seed=0))


class Run:
    """One fine-tuning: network, latents, optimizer and the order of the images; all of it in its checkpoint."""

    def __init__(self, row: Row, seed: int, data: Path, baseline: Path) -> None:
        """Start a run from the baseline's factors."""
        self.row, self.step, self.seconds = row, 0, 0.0
        self.train, self.validation = cifar10.read(data, "train"), cifar10.read(data, "validation")
        self.steps = row.epochs * (len(self.train.labels) // row.batch)
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.order = torch.zeros(0, dtype=torch.int64)
        self.network = fewbits.load(baseline, into=ResNet20()).to(memory_format=torch.channels_last)
        self.num_weights = sum(parameter.numel() for parameter in self.network.parameters())
        self.target = int(row.bits * self.num_weights / 8)
        # Steering counts the statistics as they are; the file will have them coarse.
        raw = num_bytes_of_buffers(self.network)
        coarse(self.network)
        self.statistics = num_bytes_of_buffers(self.network)
        self.spared = raw - self.statistics
        fewbits.load(baseline, into=self.network)
        self.framing = 400  # bytes of a file beside its parts, about: corrected at the end
        self.started_bytes = self.attach()
        groups = self.latents.parameter_groups(row.latent_rate, row.decoder_rate)
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.rates = [group["lr"] for group in groups]

    def attach(self) -> int:
        """Put latents behind the network; returns the bytes of the file that they start from."""
        row = self.row
        own: Any = "ecsq"
        if row.family != "epr":
            mask_steps = int(row.mask_share * self.steps)
            own = Qswd(fewbits.QswdConfig(family=row.family, average=row.average, mask_steps=mask_steps))
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "start.fewbits"
            budget = int(row.start * self.target) - self.statistics
            report = fewbits.compress(self.network, file, budget=budget, method=own, bare=True)
            chunks = read_latents(file, self.network).chunks
        if row.family == "epr":
            steps = {name: step for chunk in chunks if chunk.method == "ecsq" for name, step in steps_of(chunk).items()}
            method = fewbits.Epr(fewbits.EprConfig(first_steps=steps, average=row.average))
        else:
            method = Qswd.resumed(chunks)
        rate_weight = row.nats_per_bit * self.num_weights
        if row.family == "vq":
            self.latents = fewbits.attach(self.network, method, rate_weight=rate_weight)
        else:
            self.latents = fewbits.attach(
                self.network,
                method,
                rate_weight=rate_weight,
                budget=self.target - self.framing + self.spared,
                num_steps=self.steps,
                warm_up=int(row.warm_up * self.steps),
            )
        return report.size

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.order, self.step, self.seconds = state["order"], state["step"], state["seconds"]

    def examples(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of training images by their indices (N,), cropped and mirrored anew."""
        images = cifar10.cropped(self.train.images[chosen], cifar10.SIDE, self.generator)
        return cifar10.inputs_of(images), self.train.labels[chosen]

    def task_loss(self, examples: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross-entropy."""
        inputs, labels = examples
        return cross_entropy(self.network(inputs), labels)

    def advance(self) -> None:
        """Take one training step."""
        if len(self.order) < self.row.batch:
            self.order = torch.randperm(len(self.train.labels), generator=self.generator)
        batch, self.order = self.order[: self.row.batch], self.order[self.row.batch :]
        factor = max(0.01, 0.5 + 0.5 * math.cos(math.pi * self.step / self.steps))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        loss = self.task_loss(self.examples(batch)) + self.latents.rate_loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def go(self, checkpoint: Path | None) -> None:
        """Train to the end."""
        while self.step < self.steps:
            start, stop = time.monotonic(), min(self.step + CHECKPOINT_STEPS, self.steps)
            while self.step < stop:
                self.advance()
            self.seconds += time.monotonic() - start
            error = cifar10.error_of(self.network, self.validation)
            size = self.latents.num_bytes() - self.spared
            print(f"step {self.step}: {size} B, validation error {error:.2f} %; {self.seconds:.0f} s", flush=True)
            program.save(self.state(), checkpoint)

    def refine(self) -> None:
        """Trade training loss for bits once more, on the first training images, until the file fits."""
        coarse(self.network)
        with tempfile.TemporaryDirectory() as scratch:
            report = fewbits.save(self.network, Path(scratch) / "unrefined.fewbits", bare=True)
        budget = self.target - (report.size - self.latents.num_bytes()) - 8
        start = time.monotonic()
        batches = [self.examples(chosen) for chosen in torch.arange(self.row.refine).split(REFINE_BATCH)]
        done = self.latents.refine(batches, self.task_loss, batch_size=REFINE_BATCH, budget=budget)
        self.seconds += time.monotonic() - start
        print(
            f"refined: {done.bytes_before} to {done.bytes_after} B, loss {done.loss_before:.4f} to"
            f" {done.loss_after:.4f}, {done.num_moves} moves",
            flush=True,
        )


def main() -> None:
    """Train, write, and say what came out."""
    parser = program.parser_of(__doc__, ROWS, "cifar10/ and load.py")
    parser.add_argument("--network", type=Path, required=True, help="the trained network to start from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    row, changed = program.settings_of(options, ROWS)
    run = Run(row, options.seed, options.data, options.network)
    print(f"started from {run.started_bytes} B for {run.target} B", flush=True)
    checkpoint = program.checkpoint_of(options)
    if checkpoint is not None and checkpoint.exists():
        run.restore(torch.load(checkpoint))
    run.go(checkpoint)
    run.refine()
    estimated = 8 * run.latents.num_bytes()
    report = fewbits.save(run.network, options.out, bare=True)
    loaded = fewbits.load(options.out, into=ResNet20())
    found = {
        "row": options.row,
        "seed": options.seed,
        "settings": changed,
        "bytes": report.size,
        "started_bytes": run.started_bytes,
        "estimated_bits": estimated,
        "actual_bits": report.actual_bits,
        "validation_error_percent": round(cifar10.error_of(loaded, run.validation), 2),
        "training_seconds": round(run.seconds),
    }
    program.tell(found, options.out)


if __name__ == "__main__":
    main()
