"""Claim 17: ResNet-20's weights as samples of narrow Gaussians around them, by hybrid coding, beside rounding."""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import Options
from .coder import decodes_to, encoded
from .comparison import Tensors
from .inputs import data_file, data_loaders, load_fewbits, need
from .resnet20 import predictions
from .row import Figure, Measured, Row

takes_rivals = False

RATIOS = (0.05, 0.03)  # a target's standard deviation to its tensor's root mean square
DIM, TAIL, CAP = 8, 1e-2, 1 << 18  # weights that have one index; what is cut off of their Gaussian; candidates
DESCRIPTION = 12  # bytes of a tensor: deviation and reach of the proposal, or step; number of cells
LEAST_CELLS = 4

Floats = NDArray[np.float64]


class Coded(NamedTuple):
    """A tensor's weights as they decode, and what they took.

    index_size, cell_size, fixed_cell_size: bytes of indices, and of cells by the integer coder or of fixed length.
    num_cells: of the fewest in a dimension; capped: searches that ended at the cap.
    """

    values: Floats
    index_size: int
    cell_size: int
    fixed_cell_size: int
    num_cells: int
    capped: int


def rows(options: Options) -> Iterator[Row]:
    """Measure the original; then, at equal noise in the weights, hybrid coding and rounding to a grid."""
    need("safetensors", "torch", "fewbits")
    load_fewbits()
    from safetensors.numpy import load_file

    tensors = load_file(data_file("models/cifar10_resnet20.safetensors"))
    images, labels = data_loaders().cifar10_test1k()
    original = predictions(tensors, images)

    def quality(decoded: Tensors) -> dict[str, Measured]:
        found = predictions(decoded, images)
        return {
            "accuracy": round(100 * float((found == labels).mean()), 6),
            "same_predictions": float((found == original).mean()),
            "num_images": len(labels),
        }

    # Kernels and the last layer's matrix are coded; norms and biases stay as they are.
    weights = {name: each.astype(np.float64).ravel() for name, each in tensors.items() if each.ndim > 1}
    yield Row("original", quality(tensors))
    for ratio in RATIOS:
        settings = {"ratio": ratio, "dim": DIM, "tail": TAIL, "cap": CAP, "seed": options.seed}
        start = time.perf_counter()
        sampled = {name: _sampled(each, ratio, options.seed) for name, each in weights.items()}
        measured = _measured(tensors, sampled) | quality(_with(tensors, sampled))
        measured["encode_seconds"] = time.perf_counter() - start
        asked = (Figure("least_cells", ">=", LEAST_CELLS), Figure("capped", "<=", 0))
        yield Row(f"fewbits hybrid, sd {ratio}", measured, asked, settings)
        # Grids whose rounding errors have the samples' mean squares.
        rounded = {
            name: _rounded(each, float(((sampled[name].values - each) ** 2).mean())) for name, each in weights.items()
        }
        measured = _measured(tensors, rounded) | quality(_with(tensors, rounded))
        yield Row(f"fewbits rounded, as sd {ratio}", measured, (), {"ratio": ratio})


def _sampled(weights: Floats, ratio: float, seed: int) -> Coded:
    """Send a sample of a Gaussian around each weight, DIM at a time, against a uniform proposal.

    The cells of a uniform proposal are a grid, whose indices have the weights' own histogram: the integer coder takes
    them for what they tell.
    """
    from fewbits.channel.distributions import Gaussian, Uniform
    from fewbits.channel.hybrid import Hybrid
    from fewbits.channel.index_code import decode_indices, encode_indices

    sd = float(np.float32(ratio * math.sqrt(float((weights**2).mean()))))
    means = np.resize(weights, -(-len(weights) // DIM) * DIM).reshape(-1, DIM)  # the last ones are filled up
    reach = float(np.float32(np.abs(weights).max() + 5 * sd))
    target, proposal = Gaussian(means, sd), Uniform(np.full(DIM, -reach), np.full(DIM, reach))
    simulator = Hybrid.fitting(target, proposal, tail=TAIL, cap=CAP)
    message = simulator.encode(target, proposal, seed=seed)
    indices, cells = encode_indices(message.indices, CAP), [message.offsets.ravel()]
    coded = encoded(cells, wide=True)
    if (decode_indices(indices, len(means), CAP) != message.indices).any() or not decodes_to(coded, cells):
        raise RuntimeError("indices or cells do not come back from their bytes.")
    values = simulator.decode(message, proposal, seed=seed).ravel()[: len(weights)]
    fixed = math.ceil(len(means) * simulator.cell_bits / 8)
    num_cells = int(simulator.num_cells.min())
    return Coded(values, len(indices), len(coded), fixed, num_cells, int(message.capped.sum()))


def _rounded(weights: Floats, wanted: float) -> Coded:
    """Round to multiples of a step, found so that the errors' mean square is the one wanted."""
    low, high = 0.0, 8 * math.sqrt(12 * wanted)
    for _ in range(60):
        step = (low + high) / 2
        if float(((np.rint(weights / step) * step - weights) ** 2).mean()) > wanted:
            high = step
        else:
            low = step
    levels = [np.rint(weights / low).astype(np.int64)]
    coded = encoded(levels, wide=True)
    if not decodes_to(coded, levels):
        raise RuntimeError("levels do not come back from their bytes.")
    return Coded(levels[0] * low, 0, len(coded), len(coded), 0, 0)


def _with(tensors: Tensors, coded: dict[str, Coded]) -> Tensors:
    decoded = {name: each.values.astype(np.float32).reshape(tensors[name].shape) for name, each in coded.items()}
    return {**tensors, **decoded}


def _measured(tensors: Tensors, coded: dict[str, Coded]) -> dict[str, Measured]:
    count = sum(each.values.size for each in coded.values())
    errors = sum(float(((each.values - tensors[name].ravel()) ** 2).sum()) for name, each in coded.items())
    energy = sum(float((tensors[name].astype(np.float64) ** 2).sum()) for name in coded)
    sizes = np.sum([[each.index_size, each.cell_size, each.fixed_cell_size] for each in coded.values()], 0)
    size = int(sizes[:2].sum()) + DESCRIPTION * len(coded)
    return {
        "size": size,
        "bits_per_weight": 8 * size / count,
        "index_bits_per_weight": 8 * float(sizes[0]) / count,
        "bits_per_weight_cells_of_fixed_length": 8 * float(sizes[0] + sizes[2] + DESCRIPTION * len(coded)) / count,
        "relative_error": math.sqrt(errors / energy),
        "least_cells": min(each.num_cells for each in coded.values()),
        "capped": sum(each.capped for each in coded.values()),
    }
