"""`lossless` for the law suite: every dtype with any bits, every layout; the rate weight has no effect."""

from fewbits.methods.lossless import LosslessConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

INPUTS = LawInputs(
    configs=(LosslessConfig(),),
    sources={
        "network": sources.network,
        "every dtype": sources.every_dtype,
        "edges": sources.edges,
        "views": sources.views,
        "large": sources.large,
        "tiled": sources.tiled,
        "sparse": sources.sparse,
    },
    rate_weights=(0.0,),
)
