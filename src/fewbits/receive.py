"""What `load` does with a file's tensors: fills a module, puts layers that compute from factors, attaches latents."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.archive import Latents, read_factored
from fewbits.errors import InvalidArgument
from fewbits.method import TrainableMethod
from fewbits.nn.attach import attach
from fewbits.nn.attached import Attached
from fewbits.nn.factored import Factored, replace
from fewbits.registry import method_class


def load_with_factors(
    path: str | os.PathLike[str],
    into: nn.Module | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    limit: int | None,
) -> Any:
    """Do what `load` does with keep_factors.

    Raises:
        As `load`.
    """
    tensors = read_factored(path, into=into, limit=limit)
    if into is None:
        exact = {name for name, value in tensors.items() if isinstance(value, Tensor) and not value.is_floating_point()}
        return {
            name: value.to(device=device, dtype=None if name in exact else dtype) for name, value in tensors.items()
        }
    check_keys(into, tensors)
    replace(into, {name: value for name, value in tensors.items() if isinstance(value, Factored)})
    rest = {name: value for name, value in tensors.items() if not isinstance(value, Factored)}
    into.load_state_dict(rest, strict=False)
    return into.to(device=device, dtype=dtype) if device is not None or dtype is not None else into


def attach_again(
    module: nn.Module,
    latents: Latents,
    rate_weight: float | None,
    budget: int | None,
    num_steps: int | None,
    warm_up: int,
) -> Attached:
    """Attach a file's latents to the module that it was loaded into.

    Raises:
        InvalidArgument: as for `attach`.
    """
    kind = method_class(latents.method)
    if not issubclass(kind, TrainableMethod):
        raise InvalidArgument(f"the method {latents.method!r} has no latents to train.")
    # A buffer that was coded lossily stays a buffer: there is nothing to train in it.
    parameters = dict(module.named_parameters(remove_duplicate=False))
    names = [spec.name for chunk in latents.chunks for spec in chunk.tensors if spec.name in parameters]
    method = kind.resumed(latents.chunks)
    if rate_weight is None and budget is None:
        rate_weight = latents.rate_weight or 0.0
    return attach(
        module,
        method,
        rate_weight=rate_weight,
        budget=budget,
        num_steps=num_steps,
        warm_up=warm_up,
        seed=latents.seed,
        names=dict.fromkeys(names),
    )


def check_keys(module: nn.Module, tensors: Mapping[str, Tensor | Factored]) -> None:
    """Check that a module takes exactly these tensors.

    Raises:
        InvalidArgument: it does not; the first names are named.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [name for name in tensors if name not in own]
    if missing or unexpected:
        parts = [
            f"{what} {', '.join(map(repr, names[:5]))}{' and more' if len(names) > 5 else ''}"
            for what, names in (("lacks", missing), ("has besides", unexpected))
            if names
        ]
        raise InvalidArgument(f"the file does not fit into=: compared with the module it {' and '.join(parts)}.")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} in the file and {tuple(own[name].shape)} in into="
            raise InvalidArgument(f"tensor {name!r} has the shape {shapes}.")
