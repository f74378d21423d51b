"""`qswd` for the law suite: from nearly exact to nearly nothing, with every family, side and kind of rank."""

from fewbits.methods.qswd import QswdConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

INPUTS = LawInputs(
    configs=(
        QswdConfig(),
        QswdConfig(tilings=(("rows", 4), ("columns", 2), ("columns", 8)), ranks=(1, 3, 8), turns=3),
        QswdConfig(family="svd"),
        QswdConfig(family="vq", ranks=(2, 16)),
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
