"""`sic` for the law suite: matrices with curvatures beside tensors without, from nearly exact to nearly nothing."""

import torch
from torch import Tensor

from fewbits.methods.sic import SicConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs


def large() -> dict[str, Tensor]:
    """Matrices large enough for 32 lanes: tall, so that the search in NumPy takes few steps."""
    rng = sources.generator(2)
    scales = 2.0 ** rng.integers(-3, 2, (1, 12))
    tall = torch.from_numpy((rng.standard_normal((6200, 12)) * scales).astype("float32"))
    kernels = sources.normal(rng, 2060, 4, 3, 3, dtype="float16")
    return {"tall": tall, "kernels": kernels, "bias": sources.normal(rng, 300)}


def tiled() -> dict[str, Tensor]:
    """Several tiles of four paths, and a vector."""
    rng = sources.generator(3)
    return {"matrix": sources.normal(rng, 3100, 24, scale=0.1), "row": sources.normal(rng, 70_001, dtype="float16")}


INPUTS = LawInputs(
    configs=(
        SicConfig(),
        SicConfig(feedback=False, column_steps=False, column_models=False, row_weights=False, trellis=False),
        SicConfig(trellis=False),
        SicConfig(column_models=False),
        SicConfig(column_steps=False, row_weights=False),
    ),
    sources={
        "network": sources.network,
        "every dtype": sources.every_dtype,
        "edges": sources.matrix_edges,
        "views": sources.views,
        "large": large,
        "tiled": tiled,
    },
    rate_weights=(1e-4, 0.1, 30.0),
    statistics=sources.curvatures,
)
