"""What layers read: the covariance of each layer's inputs, by which an error of its weight is felt.

|(W - W') X|² = tr((W - W') X Xᵀ (W - W')ᵀ)
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.inputs import called
from fewbits.nn.unfolding import unfolded


@torch.no_grad()
def input_covariances(module: nn.Module, inputs: Iterable[Any]) -> dict[str, Tensor]:
    """Return, by the names of weights, the mean of x xᵀ over what Linear and Conv2d layers read, (n, n) float32.

    n is the number of elements of a weight's row; of a convolution, x is what a kernel covers at one place. Layers that
    no input reaches, and convolutions with groups, are left out. The module runs as it is, in train() or eval().

    Args:
        inputs: batches, each a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Raises:
        InvalidArgument: there is no batch, or a layer reads what is not finite.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    seen: set[int] = set()
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def watch(name: str, layer: nn.Linear | nn.Conv2d) -> None:
        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            columns = _columns_of(layer, arguments[0].detach())
            product = columns @ columns.T
            if not bool(product.isfinite().all()):
                raise InvalidArgument(f"the layer of {name!r} reads what is not finite.")
            sums[name] = sums.get(name, 0) + product
            counts[name] = counts.get(name, 0) + columns.shape[1]

        handles.append(layer.register_forward_pre_hook(note))

    for path, layer in module.named_modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d) or (isinstance(layer, nn.Conv2d) and layer.groups != 1):
            continue
        if id(layer.weight) not in seen:
            seen.add(id(layer.weight))
            watch(f"{path}.weight" if path else "weight", layer)
    batches = 0
    try:
        for batch in inputs:
            batches += 1
            called(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not batches:
        raise InvalidArgument("there is no input to look at.")
    return {name: total / counts[name] for name, total in sums.items() if counts[name]}


def _columns_of(layer: nn.Linear | nn.Conv2d, inputs: Tensor) -> Tensor:
    """What a layer's weight is multiplied by, (n, m) float32."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, layer.in_features).T.float()
    return unfolded(
        inputs.float(),
        layer.kernel_size,
        dilation=layer.dilation,
        stride=layer.stride,
        padding=layer._reversed_padding_repeated_twice,  # pyright: ignore[reportPrivateUsage]
        mode=layer.padding_mode,
    )[0]
