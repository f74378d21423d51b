"""What a method brings to the law suite: one file `<id>_inputs.py` beside this one, whose INPUTS is a `LawInputs`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

from torch import Tensor, nn

from fewbits.chunk import Chunk
from fewbits.method import Method, MethodConfig, Source
from fewbits.registry import METHODS, method_class
from fewbits.tensors import LOSSY_DTYPES, dtype_name
from tests.laws.sources import TILE

IDS = tuple(METHODS)
SEED = 11


@dataclass(frozen=True)
class LawInputs:
    """Inputs of the laws for one method.

    configs: settings to run every law with, the default first. sources: what to encode, by name; `network` and `tiled`
    among them. rate_weights: from a fine to a coarse one. without_core: settings where the default ones would take
    minutes without the compiled core. used: settings in place of the default ones, where these code nothing. is_lossy:
    whether a tensor may come back changed, by its dtype unless said. statistics: what is known of tensors, of each
    whatever others there are.
    """

    configs: tuple[MethodConfig, ...]
    sources: Mapping[str, Callable[[], Mapping[str, Tensor]]]
    rate_weights: tuple[float, ...]
    without_core: MethodConfig | None = None
    used: MethodConfig | None = None
    is_lossy: Callable[[Tensor], bool] = lambda tensor: dtype_name(tensor.dtype) in LOSSY_DTYPES
    statistics: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] = lambda tensors: {}


def inputs_of(id: str) -> LawInputs:
    """The inputs of a method; a method without them has no business in the registry."""
    return import_module(f"tests.laws.{id}_inputs").INPUTS


def method_of(id: str, config: MethodConfig | None = None) -> Method:
    """Build a method, by default with its default settings."""
    return method_class(id)(config or inputs_of(id).used)


def source_of(
    id: str, tensors: Mapping[str, Tensor], module: nn.Module | None = None, num_weights: int | None = None
) -> Source:
    """Tensors, and what a method is told of them."""
    return Source(tensors, module, inputs_of(id).statistics(tensors), num_weights)


def chunks_of(method: Method, tensors: Mapping[str, Tensor], rate_weight: float) -> list[Chunk]:
    """Encode with the seed that all laws use."""
    return list(method.encode(source_of(method.id, tensors), rate_weight=rate_weight, seed=SEED))


@cache
def coded(id: str, name: str, rate_weight: float) -> tuple[Chunk, ...]:
    """A source encoded with the default settings; tests share the chunks, which cannot be changed."""
    tensors = inputs_of(id).sources[name]()
    if name != "tiled":
        return tuple(chunks_of(method_of(id), tensors, rate_weight))
    with mock.patch("fewbits.plan.TILE", TILE), mock.patch("fewbits.plan.NETWORK", TILE):
        return tuple(chunks_of(method_of(id), tensors, rate_weight))


CASES = [(id, source) for id in IDS for source in inputs_of(id).sources]
