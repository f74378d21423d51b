"""`epr` for the law suite: from nearly exact to nearly nothing."""

from fewbits.methods.epr import EprConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

INPUTS = LawInputs(
    configs=(EprConfig(), EprConfig(step_factor=3.0, zero_step=1.0)),
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
