"""Layers of Gaussian weights whose inputs are correlated: bits above what reverse water-filling takes, whole files."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Measured, Row

takes_rivals = False

ROWS, COLUMNS = 4096, 192
# Eigenvalues i^-decay of a random rotation, and logarithms of channels' scales of this standard deviation.
SPECTRA = {"mild": (0.5, 0.5), "medium": (1.0, 0.7), "strong": (1.5, 1.0)}
RATES = (1.0, 2.0, 3.0)  # bits a weight
MEAN_GAP, WORST_GAP = 0.16, 0.23
# What each setting is without.
SETTINGS: dict[str, dict[str, bool]] = {
    "all": {},
    "no trellis": {"trellis": False},
    "no trellis, one model": {"trellis": False, "column_models": False},
    "GPTQ, models by column": {"trellis": False, "column_steps": False},
    "GPTQ, one model": {"trellis": False, "column_steps": False, "column_models": False},
    "no feedback, no trellis": {"trellis": False, "feedback": False},
}


def rows(options: Options) -> Iterator[Row]:
    """Measure each setting on nine layers."""
    need("torch")
    rng = np.random.default_rng(options.seed)
    weights = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    covariances = {name: _covariance(rng, *spectrum) for name, spectrum in SPECTRA.items()}
    for name, settings in SETTINGS.items():
        measured: dict[str, Measured] = {}
        for spectrum, covariance in covariances.items():
            for rate in RATES:
                measured[f"gap_{spectrum}_{rate:g}"] = _gap(weights, covariance, rate, settings, options.seed)
        gaps = [float(value) for value in measured.values()]
        measured |= {"mean_gap": sum(gaps) / len(gaps), "worst_gap": max(gaps)}
        asked = (Figure("mean_gap", "<=", MEAN_GAP), Figure("worst_gap", "<=", WORST_GAP)) if name == "all" else ()
        yield Row(f"fewbits, {name}", measured, asked, {"rows": ROWS, "columns": COLUMNS, **settings})


def _covariance(rng: np.random.Generator, decay: float, spread: float) -> np.ndarray:
    rotation = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS)))[0]
    scales = np.exp(spread * rng.standard_normal(COLUMNS))
    inner = (rotation * np.arange(1, COLUMNS + 1.0) ** -decay) @ rotation.T
    return scales[:, None] * inner * scales


def _gap(weights: np.ndarray, covariance: np.ndarray, rate: float, settings: dict[str, bool], seed: int) -> float:
    """Bits a weight of a file above those that its error needs at least."""
    import torch

    fewbits = load_fewbits("compress", "load", "Sic", "SicConfig", "Curvature")
    curvature: Any = fewbits.Curvature(covariance, np.full(ROWS, 1 / ROWS))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "layer.fewbits"
        fewbits.compress(
            {"weight": torch.from_numpy(weights)},
            path,
            budget=int(rate * weights.size / 8),
            method=fewbits.Sic(fewbits.SicConfig(**settings)),
            statistics={"weight": curvature},
            seed=seed,
        )
        size = path.stat().st_size
        error = fewbits.load(path)["weight"].numpy().astype(np.float64) - weights
    loss = float(np.einsum("ri,ij,rj->", error, covariance, error, optimize=True)) / weights.size
    return 8 * size / weights.size - _least_bits(np.linalg.eigvalsh(covariance), loss)


def _least_bits(variances: np.ndarray, loss: float) -> float:
    """Reverse water-filling: what a Gaussian source of these variances takes for a mean squared error."""
    low, high = 0.0, float(variances.max())
    for _ in range(100):
        level = (low + high) / 2
        if np.minimum(level, variances).mean() > loss:
            high = level
        else:
            low = level
    return float(np.maximum(0, np.log2(variances / low) / 2).mean()) if low > 0 else math.inf
