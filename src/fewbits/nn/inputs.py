"""What a module is run on: batches as callers give them, and random ones where they give none."""

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.sampling import sampled_tokens
from fewbits.progress import Progress

_LENGTHS = (8, 12, 16, 24)  # of sentences of tokens
_SENTENCES, _IMAGES, _VECTORS = 16, 16, 64
_SIDES = (32, 64, 224, 28)  # of images, tried in this order
_COARSE = 4  # pixels a side of what is alike in an image


class Amount(NamedTuple):
    """How many synthetic inputs there are to be.

    rounds: each of 64 sentences, 16 images or 64 vectors. num_texts, most_work, most_logits: as `sampled_tokens`.
    """

    rounds: int
    num_texts: int
    most_work: float
    most_logits: int


FEW = Amount(1, 16, 0, 1 << 23)  # to try
SOME = Amount(16, 128, 1e13, 1 << 23)  # to measure: some minutes of two cores at most
MANY = Amount(16, 1024, math.inf, 1 << 26)  # to train on, which takes several times the module's memory anyway


class Synthetic(NamedTuple):
    """Inputs that nobody gave.

    are_sampled: whether the module, a language model, made them itself.
    """

    batches: list[Tensor]
    are_sampled: bool = False


@dataclass(frozen=True)
class Labelled:
    """A batch for a module, and what a loss is to compare its output with.

    inputs: a tensor, a tuple of arguments or a mapping of keyword arguments; target: whatever the loss takes.
    """

    inputs: Any
    target: Any


def called(module: Callable[..., Any], batch: Any) -> Any:
    """Return what a module makes of a batch: a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(batch, Labelled):
        batch = batch.inputs
    if isinstance(batch, Mapping):
        return module(**batch)
    return module(*batch) if isinstance(batch, tuple) else module(batch)


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Run a module in eval() and without gradients; each of its parts is in train() again where it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def check_named(inputs: Any) -> None:
    """Check that inputs which are only named are known.

    Raises:
        InvalidArgument: they are not.
    """
    if isinstance(inputs, str) and inputs != "synthetic":
        raise InvalidArgument(f'inputs are batches, or "synthetic", not {inputs!r}.')


def reads_tokens(module: nn.Module) -> bool:
    """Tell whether a module's first layer is a table: whether its synthetic inputs are token ids."""
    return isinstance(_first_layer(module), nn.Embedding)


def _first_layer(module: nn.Module) -> nn.Module | None:
    return next((layer for layer in module.modules() if isinstance(layer, nn.Embedding | nn.Conv2d | nn.Linear)), None)


def synthetic_inputs(
    module: nn.Module, seed: int = 0, amount: Amount = FEW, progress: Progress | None = None
) -> Synthetic:
    """Return batches that a module takes: token ids, images or vectors, as its first layer reads them.

    A language model samples its ids itself (`fewbits.nn.sampling`), texts of 64; for others ids are uniform, sentences
    of 8 to 24; images are smooth noise of variance 1; vectors are Gaussian.

    Raises:
        InvalidArgument: its first layer is of no such kind, or the module does not take them.
    """
    generator = torch.Generator().manual_seed(seed)
    first = _first_layer(module)
    candidates: list[list[Tensor]] = []
    rounds = amount.rounds
    match first:
        case nn.Embedding():
            with evaluating(module):
                device = first.weight.device
                texts = sampled_tokens(module, first.num_embeddings, device, seed, *amount[1:], progress)
            if texts is not None:
                return Synthetic(texts, are_sampled=True)
            shapes = [(_SENTENCES, length) for length in _LENGTHS] * rounds
            candidates = [[torch.randint(first.num_embeddings, shape, generator=generator) for shape in shapes]]
        case nn.Conv2d():
            candidates = [[_images(first.in_channels, side, generator) for _ in range(rounds)] for side in _SIDES]
        case nn.Linear():
            candidates = [[torch.randn(_VECTORS, first.in_features, generator=generator) for _ in range(rounds)]]
        case _:
            pass
    for batches in candidates:
        moved = [_beside(batch, first) for batch in batches]
        if _is_taken(module, moved[0][:1]):
            return Synthetic(moved)
    raise InvalidArgument("no synthetic input fits this module: give batches of its inputs.")


def _images(channels: int, side: int, generator: torch.Generator) -> Tensor:
    coarse = torch.randn(_IMAGES, channels, -(-side // _COARSE), -(-side // _COARSE), generator=generator)
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    rough = 0.3 * torch.randn(_IMAGES, channels, side, side, generator=generator)
    images = smooth + rough
    return images / images.std()


def _beside(batch: Tensor, layer: Any) -> Tensor:
    """A batch on the device of a layer, and in its precision where it is floating."""
    weight: Tensor = layer.weight
    return batch.to(weight.device, weight.dtype if batch.is_floating_point() else None)


def _is_taken(module: nn.Module, batch: Tensor) -> bool:
    try:
        with evaluating(module):
            module(batch)
    except Exception:  # whatever a stranger's module says of an input that is none
        return False
    return True
