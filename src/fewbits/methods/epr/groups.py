"""Which tensors share a decoder and a density, and with which step they start."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import TensorSpec
from fewbits.patterns import matching
from fewbits.plan import group_network
from fewbits.quantize.rounding import energy_at_stake


class Strength(NamedTuple):
    """What a tensor's first step depends on: its energy (`energy_at_stake`), and its greatest magnitude."""

    spec: TensorSpec
    energy: float
    peak: float

    @classmethod
    def of(cls, spec: TensorSpec, values: NDArray[np.float64]) -> Self:
        """Measure a tensor's values (N,), at least one."""
        return cls(spec, energy_at_stake(values), float(np.abs(values).max()))


def groups_of(specs: Sequence[TensorSpec], patterns: Mapping[str, str]) -> list[list[str]]:
    """Return the names of the tensors of each group that has several; no group reaches beyond a unit of encoding."""
    groups: dict[tuple[int, str], list[str]] = {}
    for index, unit in enumerate(group_network(specs)):
        for spec in unit:
            group = matching(patterns, spec.name)
            if group is not None:
                groups.setdefault((index, group), []).append(spec.name)
    return [names for names in groups.values() if len(names) > 1]


def least_of_group(steps: Mapping[str, float], groups: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return steps by tensor, those of a group all the least of its tensors' that have one."""
    found = dict(steps)
    for group in groups:
        names = [name for name in group if name in found]
        found |= dict.fromkeys(names, min((steps[name] for name in names), default=0.0))
    return found
