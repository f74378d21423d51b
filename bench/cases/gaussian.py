"""One matrix of 4096 x 4096 independent numbers, Gaussian and Laplace: squared error beside the bound, by rate."""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Row

takes_rivals = False

SIDE = 4096
RATES = (0.5, 1.0, 2.0, 3.0, 4.02)  # bits a number, the whole file
ASKED = {
    ("gaussian", 2.0): (Figure("squared_error", "<=", 0.078),),
    ("gaussian", 4.02): (Figure("relative_error", "<=", 0.0675),),
}
# h(X) - log2(2 pi e) / 2 of unit variance: Shannon's lower bound is this less log2(D) / 2, and exact for a Gaussian.
ENTROPY_ABOVE_GAUSSIAN = {
    "gaussian": 0.0,
    "laplace": math.log2(math.sqrt(2) * math.e) - 0.5 * math.log2(2 * math.pi * math.e),
}
SEARCHED, REPEATS = 1 << 22, 5  # weights of a timed search, and how often
SPEED_BOUND = 15e6  # weights a second, one thread


def rows(options: Options) -> Iterator[Row]:
    """Measure files with and without a trellis; then the search alone."""
    need("torch")
    rng = np.random.default_rng(options.seed)
    for density in ("gaussian", "laplace"):
        values = rng.normal(size=SIDE * SIDE) if density == "gaussian" else rng.laplace(size=SIDE * SIDE) / math.sqrt(2)
        matrix = values.astype(np.float32).reshape(SIDE, SIDE)
        for rate in RATES:
            for trellis in (True, False):
                yield _file_row(density, matrix, rate, trellis, options.seed)
    yield _speed_row(options.seed)


def _file_row(density: str, matrix: np.ndarray, rate: float, trellis: bool, seed: int) -> Row:
    import torch

    fewbits = load_fewbits("compress", "load", "Ecsq", "EcsqConfig")
    method = fewbits.Ecsq(fewbits.EcsqConfig(trellis=trellis))
    budget = int(rate * matrix.size / 8)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "matrix.fewbits"
        fewbits.compress({"matrix": torch.from_numpy(matrix)}, path, budget=budget, method=method, seed=seed)
        decoded = fewbits.load(path)["matrix"].numpy()
        size = path.stat().st_size
    wide = matrix.astype(np.float64)
    error = float(((decoded - wide) ** 2).sum() / (wide**2).sum())
    bits = 8 * size / matrix.size
    bound = ENTROPY_ABOVE_GAUSSIAN[density] - 0.5 * math.log2(error)
    measured = {
        "size": size,
        "bits_per_number": bits,
        "squared_error": error,
        "relative_error": math.sqrt(error),
        "bits_above_bound": bits - max(bound, 0.0),
    }
    name = f"{density} {rate:g} bit" + ("" if trellis else ", scalar")
    asked = ASKED.get((density, rate), ()) if trellis else ()
    return Row(name, measured, asked, {"budget": budget, "trellis": trellis, "seed": seed})


def _speed_row(seed: int) -> Row:
    load_fewbits("compress")
    from fewbits.quantize.trellis import MOST_PRICED, NO_CORRECTIONS, Trellis
    from fewbits.quantize.weights import Weights

    values = np.random.default_rng(seed).normal(size=SEARCHED).astype(np.float32)
    prices = np.zeros((1, 2 * MOST_PRICED + 1), np.float32)
    trellis = Trellis(Weights(values.view(np.uint32), "float32"), 1.0, 1)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        trellis.levels(NO_CORRECTIONS, prices, None)
        seconds.append(time.perf_counter() - start)
    speed = SEARCHED / statistics.median(seconds)
    asked = (Figure("weights_per_second", ">=", SPEED_BOUND),)
    return Row("search, one thread", {"weights_per_second": speed}, asked, {"weights": SEARCHED, "runs": REPEATS})
