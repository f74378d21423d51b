"""`epr` for the law suite: from nearly exact to nearly nothing, with every rate and every decoder."""

from fewbits.methods.epr import EprConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

GRIDS = {"embedding": {"kind": "grid", "size": [2, 4], "image": [4, 8], "margin": 1}}

INPUTS = LawInputs(
    configs=(
        EprConfig(),
        EprConfig(step_factor=3.0, zero_step=1.0, refresh=1),
        EprConfig(rate="deep_factorized", average=0.0, decoders={"conv.weight": "dft", "channels last": "matrix"}),
        EprConfig(rate="laplace", average=0.0, decoders={"channels last": "dft"} | GRIDS, first_steps={"*.bias": 0.1}),
        EprConfig(average=0.5, decoders={"conv.weight": "matrix"} | GRIDS),
    ),
    sources={
        "network": sources.network,
        "every dtype": sources.every_dtype,
        "edges": sources.edges,
        "views": sources.views,
        "large": sources.large,
        "tiled": sources.tiled,
    },
    rate_weights=(1e-4, 0.1, 30.0),
)
