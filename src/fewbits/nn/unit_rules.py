"""What the layers and operations of a module do to hidden units.

Each rule holds for one operation and says that permuting the units of what goes in permutes those of what comes out,
and nothing else. Where no rule applies, the units that go in are frozen for good, and so are a layer's tensors.
Nothing is guessed from sizes: these are only checked.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fewbits.nn.trace import own_type
from fewbits.nn.unit_sets import KEEP, KEEP_ZERO, RECTIFY, SHIFT, Effect, Found, Place, UnitSets, Value

# Layers by type, functions by themselves, methods by name. Slopes may be negative: such functions only keep 0.
_ELEMENTWISE: dict[object, Effect] = {
    **dict.fromkeys((nn.ReLU, nn.ReLU6, functional.relu, functional.relu6, torch.relu, "relu", "relu_"), RECTIFY),
    **dict.fromkeys((functional.relu_, torch.relu_), RECTIFY),
    **dict.fromkeys((nn.Identity, nn.Dropout, functional.dropout, torch.dropout), KEEP),
    **dict.fromkeys(("contiguous", "clone", "detach", "float", "half", "double", "bfloat16", "to"), KEEP),
    **dict.fromkeys((nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish), KEEP_ZERO),
    **dict.fromkeys((functional.leaky_relu, functional.elu, functional.celu, functional.selu), KEEP_ZERO),
    **dict.fromkeys((functional.gelu, functional.silu, functional.mish, functional.hardswish), KEEP_ZERO),
    **dict.fromkeys((nn.Tanh, functional.tanh, torch.tanh, "tanh", nn.Softsign, functional.softsign), KEEP_ZERO),
    **dict.fromkeys((torch.abs, "abs", torch.neg, "neg", operator.neg, torch.square, "square"), KEEP_ZERO),
    **dict.fromkeys((nn.Sigmoid, functional.sigmoid, torch.sigmoid, "sigmoid", nn.Hardsigmoid), SHIFT),
    **dict.fromkeys((functional.hardsigmoid, nn.Softplus, functional.softplus, torch.exp, "exp"), SHIFT),
}
# What works on the last axes of each unit by itself: how many axes, and the effect. A divisor may be negative.
_POOLING: dict[object, tuple[int, Effect]] = {
    **dict.fromkeys((nn.MaxPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d), (1, KEEP)),
    **dict.fromkeys((functional.max_pool1d, functional.adaptive_max_pool1d), (1, KEEP)),
    **dict.fromkeys((functional.adaptive_avg_pool1d, torch.max_pool1d), (1, KEEP)),
    **dict.fromkeys((nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Dropout2d), (2, KEEP)),
    **dict.fromkeys((functional.max_pool2d, functional.adaptive_max_pool2d, torch.max_pool2d), (2, KEEP)),
    **dict.fromkeys((functional.adaptive_avg_pool2d, functional.dropout2d), (2, KEEP)),
    **dict.fromkeys((nn.MaxPool3d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool3d), (3, KEEP)),
    **dict.fromkeys((functional.max_pool3d, functional.adaptive_max_pool3d, torch.max_pool3d), (3, KEEP)),
    **dict.fromkeys((functional.adaptive_avg_pool3d,), (3, KEEP)),
    **dict.fromkeys((nn.AvgPool1d, functional.avg_pool1d), (1, KEEP_ZERO)),
    **dict.fromkeys((nn.AvgPool2d, functional.avg_pool2d), (2, KEEP_ZERO)),
    **dict.fromkeys((nn.AvgPool3d, functional.avg_pool3d), (3, KEEP_ZERO)),
}
_CONVOLUTIONS: dict[object, int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_NORMS: dict[object, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}  # ranks
_CLAMPING = (functional.hardtanh, torch.clamp, "clamp", "clamp_")
_FLATTENING = (torch.flatten, "flatten")
_RESHAPING = (torch.reshape, "view", "reshape")
_REDUCING = (torch.mean, "mean", torch.sum, "sum", torch.amax, "amax")
_ADDING = (operator.add, operator.iadd, torch.add, "add", "add_")
_SUBTRACTING = (operator.sub, operator.isub, torch.sub, "sub", "sub_")
_MULTIPLYING = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_DIVIDING = (operator.truediv, operator.itruediv, torch.div, "div", "div_")
_IN_PLACE = (operator.iadd, "add_")


class _Sizes(NamedTuple):
    """The shape of a value; or, not whole, the length of its first axis."""

    batch: str
    whole: bool


class UnitSearch:
    """Collects, over the graphs of one module, which tensors' axes run over which units."""

    def __init__(self, module: nn.Module) -> None:
        """Start with nothing known but the tensors that several layers share, which are left alone."""
        self._module = module
        self._paths = {part: path for path, part in module.named_modules()}  # the first path of each
        self._frozen_axes = {(name, axis) for name in shared_names(module) for axis in (0, 1)}
        self._sets = UnitSets()
        self._values: dict[fx.Node, Value | _Sizes] = {}

    def run(self, graph: fx.Graph, input_ranks: Sequence[int]) -> None:
        """Add what one graph shows. `input_ranks` are the numbers of axes of its inputs, as far as known."""
        ranks = iter(input_ranks)
        self._values = {}
        for node in graph.nodes:
            value: Value | _Sizes | None = None
            if node.op == "placeholder":
                value = Value(node.name, next(ranks, None))
            elif node.op == "get_attr":
                path, _, attribute = str(node.target).rpartition(".")
                self._freeze_tensor(self._module.get_submodule(path), attribute)
            elif node.op == "call_module":
                value = self._layer(node, self._module.get_submodule(str(node.target)))
            elif node.op in ("call_function", "call_method"):
                value = self._operation(node)
            if value is None:
                for argument in node.all_input_nodes:
                    self._sets.freeze(self._values[argument])
                value = Value(node.name)
            self._values[node] = value

    def groups(self) -> tuple[Found, ...]:
        """Return the sets of units that nothing froze."""
        return self._sets.groups(self._frozen_axes)

    def _name(self, layer: nn.Module, attribute: str) -> str:
        path = self._paths[layer]
        return f"{path}.{attribute}" if path else attribute

    def _freeze_tensor(self, layer: nn.Module, attribute: str) -> None:
        self._frozen_axes |= {(self._name(layer, attribute), 0), (self._name(layer, attribute), 1)}

    def _layer(self, node: fx.Node, layer: Any) -> Value | None:
        """The rules for layers."""
        value = self._values[node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else None
        changed = any(vars(layer).get(name) for name in ("_forward_hooks", "_forward_pre_hooks", "forward"))
        kind, result = own_type(layer), None
        if isinstance(value, Value) and len(node.args) == 1 and not node.kwargs and not changed:
            if kind is nn.Linear:
                result = self._linear(node, value, layer)
            elif kind in _CONVOLUTIONS:
                result = self._convolution(value, layer, _CONVOLUTIONS[kind])
            elif kind in _NORMS:
                result = self._norm(value, layer, _NORMS[kind])
            elif kind is nn.Flatten:
                result = _flattened(node, value, layer.start_dim, layer.end_dim)
            elif kind is nn.Hardtanh:
                result = self._sets.after(value, _clamp_effect(layer.min_val, layer.max_val))
            elif not getattr(layer, "return_indices", False):
                result = self._each_unit(value, kind)
        if result is None:
            for part in layer.modules():
                for attribute in _tensors_of(part):
                    self._freeze_tensor(part, attribute)
        return result

    def _linear(self, node: fx.Node, value: Value, layer: Any) -> Value | None:
        if not _has_shape(layer, (layer.out_features, layer.in_features)):
            return None
        self._consume(value, -1, layer, layer.in_features)
        batch = value.batch if (value.rank or 0) >= 2 else node.name
        return Value(batch, value.rank, self._produce(layer, layer.out_features))

    def _convolution(self, value: Value, layer: Any, dims: int) -> Value | None:
        shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
        if value.rank not in (None, dims + 2) or not _has_shape(layer, shape):
            return None
        axis = -1 - dims
        if layer.groups == 1:
            self._consume(value, axis, layer, layer.in_channels)
            return Value(value.batch, dims + 2, self._produce(layer, layer.out_channels), axis)
        depthwise = layer.groups == layer.in_channels == layer.out_channels
        if not depthwise or not self._sets.runs_along(value, axis, layer.in_channels, 1):
            return None
        self._attend(value, layer, ("weight", "bias"), 1)
        # Of a unit that is 0, the bias is left; one below 0 may come out above it.
        return replace(value if value.rectified else self._sets.unrectify(value), rectified=False)

    def _norm(self, value: Value, layer: Any, ranks: tuple[int, ...]) -> Value | None:
        repeat = self._sets.repeat(value, layer.num_features)
        along = value.rank in ranks and self._sets.runs_along(value, 1 - value.rank, layer.num_features, repeat)
        if not along or not layer.eps > 0:  # 0 / 0 in place of a removed unit would reach all that reads it
            return None
        self._attend(value, layer, ("weight", "bias", "running_mean", "running_var"), repeat)
        return self._sets.after(value, SHIFT)

    def _consume(self, value: Value, axis: int, layer: nn.Module, size: int) -> None:
        """A layer's weights read a value along an axis of this size: the one of its units, or both are frozen."""
        repeat = self._sets.repeat(value, size)
        if value.space is None or not self._sets.runs_along(value, axis, size, repeat):
            self._sets.freeze(value)
            self._frozen_axes.add((self._name(layer, "weight"), 1))
            return
        self._sets.place(self._name(layer, "weight"), 1, Place(value.space, repeat, "consumer"))
        if not value.rectified:
            self._sets.unrectify(value)

    def _produce(self, layer: nn.Module, size: int) -> int:
        """The units that a layer makes: the same ones wherever it is called."""
        space = self._sets.made_by(self._name(layer, "weight"), size)
        self._attend(Value("", space=space), layer, ("bias",), 1)
        return space

    def _attend(self, value: Value, layer: nn.Module, attributes: Sequence[str], repeat: int) -> None:
        """Tensors of a layer, those that it has, hold something for each unit of a value."""
        for attribute in attributes:
            if value.space is not None and attribute in _tensors_of(layer):
                self._sets.place(self._name(layer, attribute), 0, Place(value.space, repeat, "vector"))

    def _each_unit(self, value: Value, key: object) -> Value | None:
        """The rules for what treats each unit by itself, and all alike."""
        if key in _ELEMENTWISE:
            return self._sets.after(value, _ELEMENTWISE[key])
        dims, effect = _POOLING.get(key, (0, KEEP))
        apart = dims and (value.space is None or value.axis < -dims)
        return self._sets.after(value, effect) if apart else None

    def _operation(self, node: fx.Node) -> Value | _Sizes | None:
        """The rules for functions and methods."""
        key: Any = node.target
        first = self._values[node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else None
        if isinstance(first, _Sizes):
            return _Sizes(first.batch, False) if first.whole and key is operator.getitem and node.args[1] == 0 else None
        if key in (*_ADDING, *_SUBTRACTING, *_MULTIPLYING, *_DIVIDING):
            return self._binary(node)
        if first is None:
            return None
        if key in _RESHAPING:
            return self._reshaped(node, first)
        if len(node.all_input_nodes) > 1:
            return None
        if key is getattr and node.args[1] in ("shape", "ndim", "dtype", "device"):
            return _Sizes(first.batch, True) if node.args[1] == "shape" else Value(node.name)
        if key == "size":
            bound = _bound(node, "dim")
            return None if bound is None or bound.get("dim") not in (None, 0) else _Sizes(first.batch, not bound)
        if key in _FLATTENING:
            bound = _bound(node, "start_dim", "end_dim")
            return None if bound is None else _flattened(node, first, **({"start_dim": 0, "end_dim": -1} | bound))
        if key in _REDUCING:
            bound = _bound(node, "dim", "keepdim")
            return None if bound is None else _reduced(first, bound.get("dim"), bool(bound.get("keepdim", False)))
        if key in _CLAMPING:
            names = ("min_val", "max_val", "inplace") if key is functional.hardtanh else ("min", "max")
            bound = _bound(node, *names)
            limits = None if bound is None else (bound.get(names[0]), bound.get(names[1]))
            return None if limits is None else self._sets.after(first, _clamp_effect(*limits))
        return None if node.kwargs.get("return_indices") else self._each_unit(first, key)

    def _binary(self, node: fx.Node) -> Value | None:
        """Sums, differences, products and quotients, element by element."""
        if len(node.args) != 2 or node.kwargs:
            return None
        left, right = (self._values[part] if isinstance(part, fx.Node) else part for part in node.args)
        if isinstance(left, Value) and isinstance(right, Value):
            return self._of_two(node, left, right)
        value, number = (left, right) if isinstance(left, Value) else (right, left)
        if not isinstance(value, Value) or not isinstance(number, int | float):
            return None
        scaled = node.target in _MULTIPLYING or (node.target in _DIVIDING and value is left and number != 0)
        return self._sets.after(value, KEEP_ZERO if scaled and math.isfinite(number) else SHIFT)

    def _of_two(self, node: fx.Node, left: Value, right: Value) -> Value | None:
        """Two values over units, broadcast from the last axis on: units meet units if their axes lie alike."""
        sets, key = self._sets, node.target
        if left.space is None or right.space is None or left.axis != right.axis or key in _DIVIDING:
            return None
        if sets.size(left.space) != sets.size(right.space):
            return None
        sets.join(left.space, right.space)
        same = left.rank == right.rank and (left.rank is not None)
        rank = max(left.rank, right.rank) if left.rank is not None and right.rank is not None else None
        batch = left.batch if same and left.batch == right.batch else node.name
        result = Value(batch, rank, left.space, left.axis, left.merged or right.merged)
        if key in _MULTIPLYING:  # 0 times anything is 0; the product of two below 0 is above it
            rectified = left.rectified or right.rectified
            return replace(result, rectified=True) if rectified else sets.unrectify(result)
        rectified = left.rectified and right.rectified
        # What is subtracted may be below 0; in place, what others hold of the memory as 0 is now what was added.
        if not rectified and (key in _SUBTRACTING or key in _IN_PLACE):
            return sets.unrectify(result)
        return replace(result, rectified=rectified)

    def _reshaped(self, node: fx.Node, value: Value) -> Value | None:
        """Reshaping to (batch, -1), which is flattening from axis 1 on."""
        shape = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], tuple | list) else node.args[1:]
        sizes = [self._values[part] if isinstance(part, fx.Node) else part for part in shape]
        if not node.kwargs and len(sizes) == 2 and sizes == [_Sizes(value.batch, False), -1]:
            return _flattened(node, value, 1, -1)
        known = not node.kwargs and all(isinstance(part, int) for part in sizes)
        return Value(node.name, len(sizes) if known else None) if value.space is None else None


def shared_names(module: nn.Module) -> set[str]:
    """Return the plain names of tensors that another layer holds too, or whose memory another tensor overlaps."""
    names: dict[int, set[str]] = {}
    spans: list[tuple[int, int, str]] = []
    for path, part in module.named_modules():
        # What is behind a parametrised tensor goes by the tensor's name.
        layer, _, behind = f".{path}".partition(".parametrizations.")
        for attribute, tensor in _held(part).items():
            plain = f"{layer}.{behind.partition('.')[0] or attribute}".lstrip(".")
            names.setdefault(id(tensor), set()).add(plain)
            if tensor.layout == torch.strided and not tensor.is_meta and tensor.numel():
                reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
                spans.append((tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size(), plain))
    shared = {name for several in names.values() if len(several) > 1 for name in several}
    last, owner = 0, ""
    for start, stop, name in sorted(spans):
        if start < last and name != owner:
            shared |= {name, owner}
        if stop > last:
            last, owner = stop, name
    return shared


def _held(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module itself, by attribute."""
    parameters = layer.named_parameters(recurse=False, remove_duplicate=False)
    return dict(parameters) | dict(layer.named_buffers(recurse=False, remove_duplicate=False))


def _tensors_of(layer: Any) -> set[str]:
    """The attributes of a layer that are tensors, parametrised ones included."""
    behind = set(layer.parametrizations) if parametrize.is_parametrized(layer) else set[str]()
    return set(_held(layer)) | behind


def _has_shape(layer: Any, shape: tuple[int, ...]) -> bool:
    """Whether a layer's weight has the shape that the layer states, as far as it can be told without computing it."""
    held = _held(layer).get("weight")
    return tuple(held.shape) == shape if held is not None else "weight" in _tensors_of(layer)


def _bound(node: fx.Node, *names: str) -> dict[str, Any] | None:
    """The arguments of a call after its first, by name; None if it has others."""
    if len(node.args) - 1 > len(names) or not set(node.kwargs) <= set(names):
        return None
    return dict(zip(names, node.args[1:], strict=False)) | node.kwargs


def _clamp_effect(least: Any, most: Any) -> Effect:
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low <= 0 <= high:
        return SHIFT
    return RECTIFY if low == 0 else KEEP


def _flattened(node: fx.Node, value: Value, start_dim: Any, end_dim: Any) -> Value | None:
    """The value with axes from start to end made one. Its units may be the first of these, or none of them."""
    if not isinstance(start_dim, int) or not isinstance(end_dim, int):
        return None
    if value.rank is None:
        if value.space is not None or end_dim != -1 or start_dim < 0:
            return None
        return Value(value.batch if start_dim else node.name, start_dim + 1)
    start, end = (dim % value.rank if -value.rank <= dim < value.rank else -1 for dim in (start_dim, end_dim))
    if not 0 <= start <= end:
        return None
    rank, position = value.rank - (end - start), value.rank + value.axis
    result = replace(value, batch=value.batch if start or start == end else node.name, rank=rank)
    if value.space is None or start == end:
        return result
    if start < position <= end:
        return None
    moved = position - (end - start) if end < position else position
    return replace(result, axis=moved - rank, merged=value.merged or start == position)


def _reduced(value: Value, dims: Any, keepdim: bool) -> Value | None:
    """The value after a mean, a sum or a maximum over axes that are neither the batch's nor the units'."""
    dims = [dims] if isinstance(dims, int) else dims
    if value.rank is None or value.space is None or not isinstance(dims, list | tuple) or not dims:
        return None
    gone = {dim % value.rank for dim in dims if isinstance(dim, int) and -value.rank <= dim < value.rank}
    position = value.rank + value.axis
    if len(gone) != len(dims) or gone & {0, position}:
        return None
    if keepdim:
        return value
    rank = value.rank - len(gone)
    return replace(value, rank=rank, axis=position - sum(dim < position for dim in gone) - rank)
