"""What a module computes, as torch.fx graphs, without running it or leaving a trace on it.

torch.fx passes stand-ins through `forward`. Where the stand-ins could take another way than tensors would, or something
happens beside them, there is no graph: a question about their type, a computation with real tensors, an attribute
that is set. Parametrised layers are leaves, so no parametrisation runs.
"""

import inspect
import operator
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def graphs_of(module: nn.Module) -> tuple[fx.Graph, ...] | None:
    """Trace a module in the modes it can be in: as it is, in train() and in eval(). None if it cannot be traced."""
    try:
        if not _takes_one_way(module):
            return None
        return tuple(_graph_of(module, training) for training in (None, True, False))
    except Exception:  # whatever the module's own code raises on stand-ins
        return None


def _takes_one_way(module: nn.Module) -> bool:
    """Whether each call passes the same arguments and runs forward alone, with no hooks that would see stand-ins."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind not in plain or parameter.default is not parameter.empty for parameter in parameters):
        return False
    # The module's own hooks are not traced, nor are those of layers, which are not entered.
    inner = (part for part in module.modules() if part is not module and not _is_layer(part))
    return not any(vars(part).get(hooks) for part in inner for hooks in ("_forward_hooks", "_forward_pre_hooks"))


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is not looked into: those of torch, and parametrised ones, whose weights would be computed."""
    if parametrize.is_parametrized(module):
        return True
    return type(module).__module__.startswith("torch.") and not isinstance(module, _CONTAINERS)


def own_type(module: nn.Module) -> type[nn.Module]:
    """Return a module's class; of a parametrised one, the class that it had before."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


class _Untraceable(Exception):
    """The graph would not tell all that the module computes."""


class _StandIn(fx.Proxy):
    """A stand-in that cannot be asked for its type: code that asks would do something else with a tensor."""

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        asking = sys._getframe(1).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]
        if _is_length(self.node):
            return int  # as it would be; torch asks, too, from the module's own frame
        if not asking.startswith("torch."):
            cast("_Tracer", self.tracer).refuse()
        return _StandIn

    # torch.fx writes x += y as x + y, though others who hold x see the sum.
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


def _is_length(node: fx.Node) -> bool:
    """Whether a node is the length of an axis: x.size(0), x.size()[0] or x.shape[0]."""
    if node.target == "size":
        return len(node.args) + len(node.kwargs) == 2
    if node.target is not operator.getitem or type(node.args[1]) is not int:
        return False
    shape = cast(fx.Node, node.args[0])
    return (shape.target == "size" and len(shape.args) == 1) or (shape.target is getattr and shape.args[1] == "shape")


class _Tracer(fx.Tracer):
    """Traces through all but layers; reads of buffers become nodes."""

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.refused = False  # kept beside the exception, which the module's code may catch

    def refuse(self) -> NoReturn:
        self.refused = True
        raise _Untraceable

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_layer(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _StandIn(node, self)

    def to_bool(self, obj: fx.Proxy) -> NoReturn:
        self.refuse()

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        try:
            return super().iter(obj)  # which can unpack `a, b = x.shape`
        except TraceError:
            self.refuse()


class _NoRealTensors(TorchFunctionMode):
    """Refuses to compute with tensors: the graph would hold the result only, or nothing."""

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(type(part), Tensor) for part in _parts((args, kwargs))):
            self._tracer.refuse()
        return func(*args, **(kwargs or {}))


def _parts(value: Any) -> Iterator[Any]:
    """All that nested lists, tuples and dictionaries hold."""
    kind = type(value)  # not isinstance: stand-ins refuse it
    if issubclass(kind, dict):
        value = list(value.values())
    if issubclass(kind, (list, tuple, dict)):
        for part in value:
            yield from _parts(part)
    else:
        yield value


def _graph_of(module: nn.Module, training: bool | None) -> fx.Graph:
    """Trace in one mode; None for the one that each part is in.

    Raises:
        _Untraceable: the graph would not tell all. Anything else that the module's code raises goes through.
    """
    tracer = _Tracer()
    with torch.random.fork_rng(devices=[]), _put_back(module, tracer):
        if training is not None:
            for part in module.modules():
                vars(part)["training"] = training
        with _NoRealTensors(tracer):
            graph = tracer.trace(module)
    if tracer.refused:
        raise _Untraceable
    return graph


@contextmanager
def _put_back(module: nn.Module, tracer: _Tracer) -> Generator[None]:
    """Put all attributes back as they were; one that was set, but for `training`, makes the tracer refuse."""
    parts = list(module.modules())
    # A module keeps its parameters, buffers and submodules in dictionaries of its own.
    places = [vars(part) for part in parts]
    places += [held for part in places for key, held in part.items() if key in ("_parameters", "_buffers", "_modules")]
    saved = [dict(place) for place in places]
    try:
        yield
    finally:
        for place, before in zip(places, saved, strict=True):
            same = place.keys() == before.keys()
            if not same or any(place[key] is not value for key, value in before.items() if key != "training"):
                tracer.refused = True
            if not same or any(place[key] is not value for key, value in before.items()):
                place.clear()
                place.update(before)
