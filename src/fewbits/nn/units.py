"""Hidden units of a module: neurons and channels that may be permuted, or removed where dead, for the same function.

Two things are taken for granted, since no trace shows them: inputs have a batch axis first (a Conv2d sees
(N, C, H, W)), and the function is that of `forward`, not of activations read off submodules from outside. Everything
else is shown or left alone: what is not known to treat all units alike keeps its units out of every group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.trace import graphs_of
from fewbits.nn.unit_rules import UnitSearch
from fewbits.nn.unit_sets import Role


class Use(NamedTuple):
    """One axis of a tensor that runs over units.

    name: the tensor's name in the plain state_dict, the first where its module has several.
    axis: 0 for a layer's outputs, 1 for its inputs.
    repeat: consecutive indices per unit along the axis: H·W where (C, H, W) was flattened, else 1.
    role: "producer" are weights whose rows make units, "vector" one entry or filter per unit (biases, norms,
        depthwise kernels), "consumer" weights whose columns read them.
    """

    name: str
    axis: int
    repeat: int
    role: Role


@dataclass(frozen=True)
class UnitGroup:
    """Units that all of `uses` index alike: one permutation of all these axes leaves the function as it is.

    removable: consumers read 0 of a unit whose producer rows and vector entries are all 0.
    rectified: they do so, too, where its producer rows are 0 and no vector entry is above 0: a ReLU comes between.
    """

    size: int
    uses: tuple[Use, ...]
    removable: bool
    rectified: bool


def unit_groups(module: nn.Module, *, input_ranks: Sequence[int] = ()) -> tuple[UnitGroup, ...]:
    """Find the groups of hidden units of a module; () if it cannot be traced.

    The module is not changed, and only stand-ins for tensors pass through it; no other thread may run a module
    meanwhile.

    Args:
        module: plain or attached. Whether it trains does not matter: a group holds in both modes.
        input_ranks: number of axes of each input, batch included, where known. A BatchNorm1d over a Linear's units
            needs it unless something before fixes it, as a flatten does: given (N, L, C) it norms the other axis.
    """
    graphs = graphs_of(module)
    if graphs is None:
        return ()
    search = UnitSearch(module)
    for graph in graphs:
        search.run(graph, input_ranks)
    return tuple(
        UnitGroup(found.size, tuple(Use(*use) for use in found.uses), found.removable, found.rectified)
        for found in search.groups()
    )


def dead_units(group: UnitGroup, tensors: Mapping[str, Tensor | NDArray[Any]]) -> NDArray[np.bool_]:
    """Tell which units do nothing: all their entries can be 0 at once, in all tensors, for the same function.

    Args:
        group: of the module that the tensors are from.
        tensors: values or integer latents by name; only what is zero and what is above zero matters.

    Returns:
        (size,) bool.

    Raises:
        InvalidArgument: a tensor is missing, or does not run over the group's units.
    """
    unread, silent, rectified = (np.ones(group.size, np.bool_) for _ in range(3))
    for use in group.uses:
        if use.name not in tensors:
            raise InvalidArgument(f"the group uses tensor {use.name!r}, which is not given.")
        tensor = tensors[use.name]
        zero = _of_every_entry(tensor == 0, use, group.size)
        if use.role == "consumer":
            unread &= zero
        else:
            silent &= zero
            rectified &= zero if use.role == "producer" else _of_every_entry(tensor <= 0, use, group.size)
    return unread | (silent & group.removable) | (rectified & group.rectified)


@overload
def permuted(tensor: Tensor, use: Use, order: ArrayLike) -> Tensor: ...
@overload
def permuted(tensor: NDArray[Any], use: Use, order: ArrayLike) -> NDArray[Any]: ...
def permuted(tensor: Tensor | NDArray[Any], use: Use, order: ArrayLike) -> Tensor | NDArray[Any]:
    """Return a tensor with its units in another order: the result's unit i is the given tensor's unit order[i].

    Args:
        tensor: as named by the use; not modified.
        use: one of a group's; the group's function stays if all of its uses are permuted alike.
        order: (size,) integers, each of 0 … size - 1 once.

    Raises:
        InvalidArgument: the order is not a permutation of the units that the tensor has along the axis.
    """
    units = np.asarray(order)
    integers = units.ndim == 1 and (units.dtype.kind in "iu" or units.size == 0)
    if not integers or not np.array_equal(np.sort(units), np.arange(units.size)):
        raise InvalidArgument(f"the order of the units of {use.name!r} is not a permutation of 0 … size - 1.")
    _check_axis(tensor, use, units.size)
    index = (units.astype(np.int64)[:, None] * use.repeat + np.arange(use.repeat)).reshape(-1)
    if isinstance(tensor, Tensor):
        return tensor.index_select(use.axis, torch.from_numpy(index).to(tensor.device))
    return np.take(tensor, index, axis=use.axis)


def _check_axis(tensor: Tensor | NDArray[Any], use: Use, size: int) -> None:
    shape = tuple(tensor.shape)
    if len(shape) <= use.axis or shape[use.axis] != size * use.repeat:
        raise InvalidArgument(
            f"tensor {use.name!r} has the shape {shape}; axis {use.axis} must have {size} units of {use.repeat}."
        )


def _of_every_entry(holds: Tensor | NDArray[np.bool_], use: Use, size: int) -> NDArray[np.bool_]:
    """Whether something holds for all entries of a unit: (size,) bool. NaN compares as false, so it is not zero."""
    array: NDArray[np.bool_] = holds.cpu().numpy() if isinstance(holds, Tensor) else np.asarray(holds)
    _check_axis(array, use, size)
    entries = np.moveaxis(array, use.axis, 0).reshape(size, array.size // size)
    return np.logical_and.reduce(entries, axis=1)
