"""Go on training without the units that have died, and put a narrow network back into its whole one.

A unit is left out once its latents, and their average, round to 0 wherever it is read, or wherever it is made.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.nn.attached import Attached
from fewbits.nn.units import UnitGroup, dead_units, unit_groups

State = Mapping[str, Tensor]


def live_units(network: nn.Module, latents: Attached) -> list[tuple[UnitGroup, NDArray[np.int64]]]:
    """Return each group of hidden units, with the indices of those that are not dead."""
    state = latents.state_dict()["representation"]
    levels: dict[str, Tensor] = {}
    for name, latent, average in of_latents(latents, state):
        levels[name] = torch.maximum(state[latent].abs().round(), state[average].abs().round())
        if name.endswith("bias"):  # its sign is asked for: a unit that only a bias could wake is dead below 0
            levels[name] = torch.maximum(state[latent].round(), state[average].round())
    groups = unit_groups(network)
    found = [(group, np.flatnonzero(~dead_units(group, levels))) for group in groups]
    return [(group, units if len(units) else np.arange(1)) for group, units in found]


def of_latents(latents: Attached, state: State) -> list[tuple[str, str, str]]:
    """Return each tensor's name with the names of its latents and of their average in a representation's state."""
    keys = [key for key in state if key.endswith(".latents")]
    return [(latents.representation.owner_of(key), key, key.replace(".latents", ".average")) for key in keys]


def units_of(network: nn.Module, layers: Sequence[str]) -> tuple[int, ...]:
    """Return how many units each of these layers has."""
    return tuple(int(network.get_submodule(layer).weight.shape[0]) for layer in layers)


def sizes_of(live: Sequence[tuple[UnitGroup, NDArray[np.int64]]], layers: Sequence[str]) -> tuple[int, ...]:
    """Return how many live units each of these layers has."""
    sizes = {use.name: len(units) for group, units in live for use in group.uses if use.role == "producer"}
    return tuple(sizes[f"{layer}.weight"] for layer in layers)


def carry(before: Attached, after: Attached, live: Sequence[tuple[UnitGroup, NDArray[np.int64]]]) -> None:
    """Give a narrower network's latents, and what is learned with them, the state of the live units of a wider one."""
    old, new = before.state_dict(), after.state_dict()
    kept = _kept_by_key(before, live)
    new["representation"] = {key: cut(value, kept[key]) for key, value in old["representation"].items()}
    # What a bit is worth is per weight there.
    fewer = after.representation.num_weights / before.representation.num_weights
    new["control"] = old["control"] | {"log_weight": old["control"]["log_weight"] + math.log(fewer)}
    after.load_state_dict(new)


def carry_moments(
    before: Attached,
    old: torch.optim.Optimizer,
    after: Attached,
    new: torch.optim.Optimizer,
    live: Sequence[tuple[UnitGroup, NDArray[np.int64]]],
) -> None:
    """Give the narrower network's optimizer what the other remembers of the live units."""
    kept, held = _kept_by_key(before, live), dict(before.representation.named_parameters())
    for key, parameter in after.representation.named_parameters():
        new.state[parameter] = {
            name: cut(value, kept[key]) if value.ndim else value.clone() for name, value in old.state[held[key]].items()
        }


def _kept_by_key(latents: Attached, live: Sequence[tuple[UnitGroup, NDArray[np.int64]]]) -> dict[str, list[Tensor]]:
    """The indices to keep of each entry of a representation's state: those of latents, and of what is shaped alike."""
    state = latents.state_dict()["representation"]
    kept: dict[str, list[Tensor]] = {key: [] for key in state}
    for name, latent, _ in of_latents(latents, state):
        prefix, shape = latent.removesuffix("latents"), state[latent].shape
        for key, value in state.items():
            if key.startswith(prefix) and value.shape == shape:
                kept[key] = kept_of(shape, name, live)
    return kept


def kept_of(shape: Sequence[int], name: str, live: Sequence[tuple[UnitGroup, NDArray[np.int64]]]) -> list[Tensor]:
    """Return the indices along each axis of a tensor's latents that are of live units."""
    kept = [torch.arange(size) for size in shape]
    for group, units in live:
        for use in group.uses:
            if use.name == name:
                indices = units[:, None] * use.repeat + np.arange(use.repeat)
                kept[use.axis] = torch.from_numpy(indices.reshape(-1))
    return kept


def cut(tensor: Tensor, kept: Sequence[Tensor]) -> Tensor:
    """Return what a tensor has at these indices along its axes."""
    for axis, indices in enumerate(kept):
        tensor = tensor.index_select(axis, indices)
    return tensor


def spread(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of this shape with a smaller one in its corner, zeros elsewhere."""
    whole = tensor.new_zeros(tuple(shape))
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole
