"""Settings of `miracle`: how blocks are made and where training starts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewbits.channel.mrc import CANDIDATES_KINDS
from fewbits.errors import InvalidArgument
from fewbits.method import MethodConfig
from fewbits.methods.miracle.layout import MOST_SHARED

MOST_CONFIG_BITS = 24
PARAMETERISATIONS = ("divergence", "deviation")
SIMULATORS = ("mrc", "orc", "pfr")
PICKS = ("sample", "likeliest")


@dataclass(frozen=True)
class MiracleConfig(MethodConfig):
    """How blocks are made and where training starts; decoding needs none of it.

    Tensors are named by patterns as in a shell ("*.weight"); of several that match, the first counts.

    bits: of a block's number: 2^bits candidates are looked at for each block. From 1 to 24.
    num_blocks: of each part; 0 for as many as the rate weight asks for.
    slack: bits that a block's divergence stays below that: more of them, a sample closer to the posterior's law.
    parameterisation: "divergence" (mean and share of the block's divergence: the budget is held by construction), or
        "deviation" (mean and standard deviation, and a penalty a block that is steered).
    candidates: "shared" by all blocks, "own" ones of each, or a "lattice" shared by all.
    simulator: "mrc" (minimal random coding, numbers of fixed length); "orc" (ordered random coding) or "pfr" (Poisson
        functional representation, cut off: less bias with as many candidates), whose numbers are entropy coded: worth
        it where slack is 3 or more, and candidates are "own".
    pick: with "mrc", a "sample" of the posterior, or the "likeliest" candidate, nearer to the posterior's mean.
    share: by pattern, how many elements share a value (the hashing trick).
    live: by pattern, how far along each axis elements may be other than 0.
    first_priors: by pattern, the prior's standard deviation that a tensor starts with; else that of its values. Zeros
        stay so unless their tensor is named here.
    first_penalty, penalty_rate: with "deviation", a block's first penalty, and by how much it moves in a step.
    """

    bits: int = 14
    num_blocks: int = 0
    slack: float = 0.0
    parameterisation: str = "divergence"
    candidates: str = "shared"
    simulator: str = "mrc"
    pick: str = "sample"
    share: Mapping[str, int] = field(default_factory=dict[str, int])
    live: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    first_priors: Mapping[str, float] = field(default_factory=dict[str, float])
    first_penalty: float = 1e-5
    penalty_rate: float = 2e-4

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            InvalidArgument: one is not what its line above says.
        """
        values = self.to_json()  # whatever JSON holds, not what the annotations say
        if not _is_whole(values["bits"], 1, MOST_CONFIG_BITS):
            raise InvalidArgument(f"MiracleConfig.bits must be a whole number from 1 to {MOST_CONFIG_BITS}.")
        if not _is_whole(values["num_blocks"], 0, 1 << 24):
            raise InvalidArgument(
                f"MiracleConfig.num_blocks must be a whole number from 0 on, not {values['num_blocks']!r}."
            )
        if not _is_number(values["slack"]) or not 0 <= self.slack < self.bits:
            raise InvalidArgument(f"MiracleConfig.slack must be from 0 to less than bits, not {self.slack!r}.")
        if self.parameterisation not in PARAMETERISATIONS:
            raise InvalidArgument(f"MiracleConfig.parameterisation must be one of {', '.join(PARAMETERISATIONS)}.")
        if self.candidates not in CANDIDATES_KINDS:
            raise InvalidArgument(f"MiracleConfig.candidates must be one of {', '.join(CANDIDATES_KINDS)}.")
        if self.simulator not in SIMULATORS:
            raise InvalidArgument(f"MiracleConfig.simulator must be one of {', '.join(SIMULATORS)}.")
        if self.coded and self.candidates != "own":
            raise InvalidArgument(f"MiracleConfig.simulator {self.simulator!r} is for candidates 'own'.")
        if self.pick not in PICKS or (self.coded and self.pick != "sample"):
            raise InvalidArgument(f"MiracleConfig.pick must be one of {', '.join(PICKS)}, and 'sample' but for 'mrc'.")
        for pattern, share in values["share"].items():
            if not _is_whole(share, 1, MOST_SHARED):
                raise InvalidArgument(
                    f"MiracleConfig.share[{pattern!r}] must be from 1 to {MOST_SHARED}, not {share!r}."
                )
        for pattern, live in values["live"].items():
            if not isinstance(live, list | tuple) or not all(_is_whole(size, 1, 1 << 40) for size in live):
                raise InvalidArgument(f"MiracleConfig.live[{pattern!r}] must be whole numbers above 0, not {live!r}.")
        positive = {f"first_priors[{name!r}]": prior for name, prior in values["first_priors"].items()}
        for name in ("first_penalty", "penalty_rate"):
            positive[name] = values[name]
        for name, value in positive.items():
            if not _is_number(value) or not 0 < value < math.inf:
                raise InvalidArgument(f"MiracleConfig.{name} must be a finite number above 0, not {value!r}.")

    @property
    def by_divergence(self) -> bool:
        """Whether a block's divergence is held by the parameterisation."""
        return self.parameterisation == "divergence"

    @property
    def coded(self) -> bool:
        """Whether blocks' numbers are entropy coded."""
        return self.simulator != "mrc"


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and least <= value <= most
