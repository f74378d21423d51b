"""`blockwise` for the law suite: matrices that were quantised in blocks before, beside tensors that were not."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fewbits.methods.blockwise import BlockwiseConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs


def network() -> dict[str, Tensor]:
    """A network whose matrices were quantised once, each in another way; its convolution and vectors were not."""
    tensors = sources.network()
    rng = sources.generator(31)
    return tensors | {
        "embedding": sources.on_grid(sources.normal(rng, 100, 32, scale=0.02), 32, 256, offsets=False),
        "attention.weight": sources.on_grid(tensors["attention.weight"], 16, 16, offsets=True),
        "ternary": 0.25 * torch.from_numpy(rng.integers(-1, 2, (40, 60)).astype(np.float32)),
        "double": sources.on_grid(sources.normal(rng, 20, 64), 64, 16, offsets=True).double(),
    }


def with_grids(others: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    rng = sources.generator(seed)
    more = {"grid": sources.on_grid(sources.normal(rng, 40, 96), 32, 16, offsets=True)}
    return {**others, **more, "signed grid": sources.on_grid(sources.normal(rng, 24, 48), 48, 16, offsets=False).half()}


def edges() -> dict[str, Tensor]:
    """The edges, and grids: of equal values and blocks, of the greatest and the least values, with zeros below 0."""
    rng = sources.generator(32)
    levels = torch.from_numpy(rng.integers(0, 16, (32, 64)).astype(np.float32))
    flat = sources.on_grid(sources.normal(rng, 32, 64), 32, 16, offsets=True)
    flat[3:9], flat[20, 32:] = 0.5, 0.0
    return with_grids(sources.edges(), 33) | {
        "alike": torch.full((40, 64), -0.5),
        "flat blocks": flat,
        "great": levels * 2.0**122,
        "tiny": levels * 2.0**-149,
        "negative": (levels - 8) * -0.125,
        "zero matrix": torch.zeros(40, 64),
        "two values": torch.where(levels > 7, 1.5, -0.75),
        "far off": levels + 2.0**20,
    }


def large() -> dict[str, Tensor]:
    """Matrices large enough for 32 lanes, and a vector."""
    rng = sources.generator(34)
    return {
        "blocks": sources.on_grid(sources.normal(rng, 260, 256, scale=0.04), 32, 16, offsets=True),
        "rows": sources.on_grid(sources.normal(rng, 130, 640, scale=0.04), 640, 256, offsets=False),
        "groups": sources.on_grid(sources.normal(rng, 300, 256, scale=0.04), 128, 16, offsets=False).half(),
        "bias": sources.normal(rng, 300),
    }


def tiled() -> dict[str, Tensor]:
    """Several tiles of whole rows, and a vector."""
    rng = sources.generator(35)
    matrix = sources.on_grid(sources.normal(rng, 140, 512, scale=0.1), 64, 16, offsets=True)
    return {"matrix": matrix, "row": sources.normal(rng, 70_001, dtype="float16")}


INPUTS = LawInputs(
    configs=(BlockwiseConfig(),),
    sources={
        "network": network,
        "every dtype": lambda: with_grids(sources.every_dtype(), 36),
        "edges": edges,
        "views": lambda: with_grids(sources.views(), 37),
        "large": large,
        "tiled": tiled,
    },
    rate_weights=(0.0, 1e-3, 1.0),
)
