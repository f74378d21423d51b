"""Training a codec on images: crops, a schedule, checkpoints that a run resumes from."""

import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewbits.container.atomic import check_target, write_atomic
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.images.codec import Codec, CodecConfig

_START_IMAGES = 64
_WARM_UP = 100  # steps
# Learning rates by what parameters' names begin with: densities are behind, and bear haste.
_RATES = {"priors": 10, "hyper": 3, "": 1}


class TrainingConfig(NamedTuple):
    """How a codec is trained.

    steps: of the optimiser, each with images of one quality.
    batch, side: images a step, and pixels a side of each; smaller crops are put together to it.
    learning_rate: at first, falling along a cosine; three times that for hyper-networks, ten for priors.
    every: steps between checkpoints.
    """

    steps: int = 8000
    batch: int = 2
    side: int = 256
    learning_rate: float = 5e-4
    seed: int = 0
    every: int = 500


class Crops:
    """Random crops of images, in eight orientations, put together to squares of one size.

    Where the least image is too small for a square, crops of half its side, or a quarter, are joined: networks then see
    seams, and not a border of zeros, at every turn.
    """

    def __init__(self, images: Sequence[Tensor], side: int) -> None:
        """Take images (3, H, W) uint8.

        Raises:
            InvalidArgument: there is none, or one has a side of less than 32 pixels.
        """
        if not images:
            raise InvalidArgument("there is no image to train on.")
        least = min(min(image.shape[1:]) for image in images)
        if least < 32:
            raise InvalidArgument(f"an image to train on has sides of at least 32 pixels, not {least}.")
        self.images, self.side, self.crop = images, side, side
        while self.crop > least:
            self.crop //= 2

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return squares (count, 3, side, side) float, in grey levels."""
        across = self.side // self.crop
        pieces = torch.stack([self._piece(generator) for _ in range(count * across * across)])
        pieces = pieces.reshape(count, across, across, 3, self.crop, self.crop).permute(0, 3, 1, 4, 2, 5)
        return pieces.reshape(count, 3, self.side, self.side).float()

    def _piece(self, generator: torch.Generator) -> Tensor:
        def below(bound: int) -> int:
            return int(torch.randint(bound, (), generator=generator))

        image = self.images[below(len(self.images))]
        top, left = (below(size - self.crop + 1) for size in image.shape[1:])
        piece = image[:, top : top + self.crop, left : left + self.crop]
        return torch.rot90(piece.flip(2) if below(2) else piece, below(4), (1, 2))


def train(
    images: Sequence[Tensor],
    config: CodecConfig | None = None,
    training: TrainingConfig | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Codec:
    """Train a codec on images, all qualities together, one a step.

    Args:
        images: (3, H, W) uint8 each.
        checkpoint: a file that the state is written to, and that a run which stopped goes on from.
        progress: called with a stage and how many of how many steps are done.

    Returns:
        The codec, in eval(), on the CPU.

    Raises:
        InvalidArgument: as for `Crops`; the loss is no number any more; or the checkpoint is of another run.
        Corrupt: the checkpoint is damaged.
    """
    training = training or TrainingConfig()
    if checkpoint is not None:
        check_target(checkpoint)
    run = _Run(images, config or CodecConfig(), training, torch.device(device))
    if checkpoint is not None and Path(checkpoint).exists():
        run.resume(Path(checkpoint))
    while run.done < training.steps:
        run.step()
        if progress is not None:
            progress("train", run.done, training.steps)
        if checkpoint is not None and (run.done % training.every == 0 or run.done == training.steps):
            run.write(checkpoint)
    return run.codec.eval().cpu()


class _Run:
    def __init__(
        self, images: Sequence[Tensor], config: CodecConfig, training: TrainingConfig, device: torch.device
    ) -> None:
        self.training, self.device, self.done = training, device, 0
        self.crops = Crops(images, training.side)
        self.generator = torch.Generator().manual_seed(training.seed)
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.codec = Codec(config, sharpness_steps=training.steps * 4 // 5)
        self.codec.start_from(self.crops.draw(_START_IMAGES, self.generator))
        self.codec.train().to(device)
        groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in _RATES}
        for name, value in self.codec.named_parameters():
            groups[next(kind for kind in _RATES if name.startswith(kind))].append(value)
        self.optimizer = torch.optim.Adam([{"params": groups[kind]} for kind in _RATES])

    def step(self) -> None:
        training, codec = self.training, self.codec
        share = self.done / max(1, training.steps)
        rate = training.learning_rate * min(1, (self.done + 1) / _WARM_UP)
        rate *= 0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2
        for group, factor in zip(self.optimizer.param_groups, _RATES.values(), strict=True):
            group["lr"] = rate * factor
        quality = int(torch.randint(len(codec.config.trades), (), generator=self.generator))
        pixels = self.crops.draw(training.batch, self.generator).to(self.device)
        # Noise is of the seed and the step, whatever else draws: a run that resumes is the run that never stopped.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(training.seed * 1_000_003 + self.done)
            draw = codec(pixels, quality)
        rate_bits = draw.bits.sum() / (len(pixels) * training.side**2)
        loss = rate_bits + codec.config.trades[quality] * (draw.pixels - pixels).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        if not bool(torch.isfinite(norm)):
            raise InvalidArgument(f"the loss or its gradient is no finite number any more, in step {self.done}.")
        self.optimizer.step()
        codec.sharpness.advance()
        self.done += 1

    def write(self, path: str | os.PathLike[str]) -> None:
        buffer = io.BytesIO()
        state = {
            "config": self.codec.config.to_json(),
            "training": self.training._asdict(),
            "done": self.done,
            "generator": self.generator.get_state(),
            "codec": self.codec.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, buffer)
        write_atomic(path, [buffer.getvalue()])

    def resume(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            config, training = CodecConfig.from_json(state["config"]), TrainingConfig(**state["training"])
        except Exception as error:
            raise Corrupt(f"the checkpoint {str(path)!r} cannot be read.") from error
        if config != self.codec.config or training != self.training:
            raise InvalidArgument(f"the checkpoint {str(path)!r} is of a run with other settings.")
        self.codec.load_state_dict(state["codec"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.done = state["done"]
