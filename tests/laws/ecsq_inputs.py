"""`ecsq` for the law suite: from nearly exact to nearly nothing, with every setting on and off."""

from fewbits.methods.ecsq import EcsqConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

INPUTS = LawInputs(
    configs=(
        EcsqConfig(),
        EcsqConfig(rate_distortion=False, centroids=False, row_classes=False),
        EcsqConfig(rate_distortion=False, trellis=False),
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
