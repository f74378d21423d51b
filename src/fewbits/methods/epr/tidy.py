"""Free bits from symmetry: dead units are emptied, and units put in an order that codes shorter.

The function stays the same, outputs to float tolerance: sums run over the same terms in another order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.nn.latent_tensor import LatentTensor
from fewbits.nn.units import UnitGroup, Use, dead_units, permuted


def tidy_units(
    groups: Sequence[UnitGroup], latents: Sequence[LatentTensor], others: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Empty dead units and sort the others by how much is coded of them, in place; returns `others` in that order.

    Args:
        groups: of the module that the tensors belong to.
        latents: not committed.
        others: the rest of the module's tensors, by name; not modified.
    """
    latents_of = {one.spec.name: one for one in latents}
    rest = dict(others)
    groups = [
        _as_latents(group, latents_of)
        for group in groups
        if all(use.name in latents_of or use.name in rest for use in group.uses)
        and all(_runs_over_units(latents_of[use.name], use) for use in group.uses if use.name in latents_of)
    ]
    _empty_dead(groups, latents_of, rest)
    for group in groups:
        counts = _coded_of(group, latents_of)
        order = np.argsort(-counts, kind="stable")
        for use in group.uses:
            if use.name in latents_of:
                latents_of[use.name].reorder(use.axis, torch.from_numpy(order), use.repeat)
            else:
                rest[use.name] = permuted(rest[use.name], use, order)
    return rest


def _runs_over_units(latents: LatentTensor, use: Use) -> bool:
    """Whether the axis is one of the latents, too: the columns of a grid are pixels no more."""
    return latents.choice.kind != "grid" or use.axis == 0


def _as_latents(group: UnitGroup, latents_of: Mapping[str, LatentTensor]) -> UnitGroup:
    """The group as the latents of its tensors have it: behind a basis 0 stays 0, but signs say nothing."""
    vectors = [latents_of[use.name] for use in group.uses if use.role == "vector" and use.name in latents_of]
    return group if all(one.choice.kind == "scalar" for one in vectors) else replace(group, rectified=False)


def _empty_dead(
    groups: Sequence[UnitGroup], latents_of: Mapping[str, LatentTensor], rest: Mapping[str, Tensor]
) -> None:
    levels = {name: one.integers()[0] for name, one in latents_of.items()}
    changed = True
    while changed:  # a unit that nothing reads may have been the only reader of another
        changed = False
        for group in groups:
            dead = dead_units(group, {**rest, **levels})
            for use in group.uses:
                if use.name not in levels or not dead.any():
                    continue
                where = np.repeat(dead, use.repeat).reshape(
                    [-1 if a == use.axis else 1 for a in range(levels[use.name].ndim)]
                )
                emptied = np.where(where, 0, levels[use.name])
                changed |= not np.array_equal(emptied, levels[use.name])
                levels[use.name] = emptied
    for name, one in latents_of.items():
        one.set_levels(levels[name])


def _coded_of(group: UnitGroup, latents_of: Mapping[str, LatentTensor]) -> NDArray[np.int64]:
    """How many levels of each unit are not zero, (size,); those of its producers first, its consumers' for ties."""
    produced, consumed = np.zeros(group.size, np.int64), np.zeros(group.size, np.int64)
    for use in group.uses:
        if use.name in latents_of:
            present = np.moveaxis(latents_of[use.name].integers()[0] != 0, use.axis, 0)
            count = present.reshape(group.size, -1).sum(1)
            if use.role == "consumer":
                consumed += count
            else:
                produced += count
    return produced * (int(consumed.max(initial=0)) + 1) + consumed
