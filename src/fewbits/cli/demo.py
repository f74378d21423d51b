"""`fewbits demo`: one small trained network through every method here, size against accuracy.

Every size is that of a file on disk; every accuracy is that of the network loaded back from that file.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from fewbits import api
from fewbits.cli.digits import Digits, DigitsNetwork, accuracy, load_digits, noisy, trained_network
from fewbits.container import inspect
from fewbits.methods.epr import Epr
from fewbits.progress import Progress

ECSQ_BITS = (8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0)
EPR_RATE_WEIGHTS = (1.0, 3.0)
EPR_EPOCHS = 60
EPR_LEARNING_RATE = 5e-2  # of latents, in steps
BATCH = 128
SEED = 0
FRAMING = "header and index"

Job = Callable[[Path, Path], "Point"]  # from the original checkpoint to a file


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file of the demo.

    size: bytes on disk; accuracy: fraction of the 500 test images; tensor_bytes: (name, payload bytes), the
    rest of the file last under the name `FRAMING`.
    """

    method: str
    setting: str
    size: int
    bits_per_weight: float  # 8 * size / number of parameters: the whole file counts
    accuracy: float
    tensor_bytes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """All files of one run; the first point is the original checkpoint."""

    points: tuple[Point, ...]
    num_weights: int
    num_test: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the run as a dict of JSON values."""
        values = asdict(self)
        values["points"] = [p | {"tensor_bytes": dict(p["tensor_bytes"])} for p in values["points"]]
        return values


def run_demo(progress: Progress | None = None) -> DemoResult:
    """Compress the demo's network to every setting; offline, in a temporary folder."""
    started = time.perf_counter()
    train, test = load_digits()
    original = trained_network()
    num_weights = sum(p.numel() for p in original.parameters())

    def measured(method: str, setting: str, path: Path) -> Point:
        network = api.load(path, into=DigitsNetwork()).eval()
        size = path.stat().st_size
        return Point(
            method=method,
            setting=setting,
            size=size,
            bits_per_weight=8 * size / num_weights,
            accuracy=accuracy(network, test),
            tensor_bytes=bytes_by_tensor(path),
        )

    def lossless(checkpoint: Path, path: Path) -> Point:
        api.compress(checkpoint, path, lossless=True)
        return measured("lossless", "every bit", path)

    def ecsq(bits: float) -> Job:
        def run(checkpoint: Path, path: Path) -> Point:
            api.compress(checkpoint, path, bits=bits, seed=SEED)
            return measured("ecsq", f"{bits:g} bit{'' if bits == 1 else 's'}", path)

        return run

    def epr(rate_weight: float) -> Job:
        def run(checkpoint: Path, path: Path) -> Point:
            train_epr(train, rate_weight, path)
            return measured("epr", f"λ = {rate_weight:g}", path)

        return run

    jobs = [lossless, *map(ecsq, ECSQ_BITS), *map(epr, EPR_RATE_WEIGHTS)]
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "original.safetensors"
        save_file(original.state_dict(), checkpoint)
        size = checkpoint.stat().st_size
        points = [
            Point(
                method="original",
                setting="float32",
                size=size,
                bits_per_weight=8 * size / num_weights,
                accuracy=accuracy(original, test),
            )
        ]
        for i, job in enumerate(jobs):
            if progress is not None:
                progress("files", i, len(jobs))
            points.append(job(checkpoint, Path(folder) / f"{i}.fewbits"))
    return DemoResult(
        points=tuple(points),
        num_weights=num_weights,
        num_test=len(test.labels),
        seconds=time.perf_counter() - started,
    )


def train_epr(digits: Digits, rate_weight: float, path: Path) -> None:
    """Train the network's latents from its trained weights against their own code length, and save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches this small only make threads wait for each other
    try:
        _train_epr(digits, rate_weight, path)
    finally:
        torch.set_num_threads(threads)


def _train_epr(digits: Digits, rate_weight: float, path: Path) -> None:
    torch.manual_seed(SEED)
    network = trained_network().train()
    latents = api.attach(network, Epr(), rate_weight=rate_weight, seed=SEED)
    optimizer = torch.optim.Adam(network.parameters(), lr=EPR_LEARNING_RATE)
    steps = EPR_EPOCHS * -(-len(digits.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPR_EPOCHS):
        for batch in torch.randperm(len(digits.labels)).split(BATCH):
            logits = network(noisy(digits.images[batch]))
            loss = cross_entropy(logits, digits.labels[batch]) + latents.rate_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    api.save(network.eval(), path)


def bytes_by_tensor(path: Path) -> tuple[tuple[str, float], ...]:
    """Return (tensor, bytes of its share of the payload) as the file records it, and the rest of the file."""
    found = [(t.name, (t.bits or 0) / 8) for t in inspect.info(path).tensors]
    return (*found, (FRAMING, path.stat().st_size - sum(size for _, size in found)))
