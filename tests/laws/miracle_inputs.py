"""`miracle` for the law suite: from nearly exact to nearly nothing, all kinds of candidates, both parameterisations."""

from fewbits.methods.miracle import MiracleConfig
from tests.laws import sources
from tests.laws.inputs import LawInputs

INPUTS = LawInputs(
    configs=(
        MiracleConfig(),
        MiracleConfig(bits=7, candidates="own", parameterisation="deviation", slack=1.0),
        MiracleConfig(bits=8, candidates="own", simulator="orc", slack=3.0, share={"embedding": 3, "*.weight": 2}),
        MiracleConfig(bits=9, candidates="lattice", live={"embedding": [5, 7]}, first_priors={"*.bias": 0.25}),
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
    without_core=MiracleConfig(bits=6),
)
