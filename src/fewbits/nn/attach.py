"""Put a representation behind a module's weights, so that an ordinary training loop trains its latents.

Surprises first. `attach` changes the module in place: each represented parameter becomes a parametrisation
(`torch.nn.utils.parametrize`), the latents become parameters of the module, and an optimizer made before holds none of
them. While the module runs, all its weights are of one draw, made just before its forward; a weight read at any other
time comes from a draw of its own. Buffers and parameters that are not represented stay as they are, and are coded
without loss.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.chunk import Chunk
from fewbits.errors import InvalidArgument
from fewbits.method import Method, Reconstruction, Representation, Source, TrainableMethod
from fewbits.registry import method_class

_ATTRIBUTE = "_fewbits_attached"


class _Place(NamedTuple):
    """Where a represented parameter is used: a module's attribute, and the tensor's name in the source."""

    owner: nn.Module
    attribute: str
    name: str


class _Represented(nn.Module):
    """The parametrisation of one place: looks the value up in the current draw."""

    def __init__(self, attached: "Attached", name: str, representation: Representation | None) -> None:
        super().__init__()
        self._attached, self._name = attached, name
        # The first one carries the representation as a submodule, so that the module's parameters(), to() and
        # state_dict() reach the latents. The module itself may be a Sequential, which would run it as a layer.
        if representation is not None:
            self.representation = representation

    def forward(self, original: Tensor) -> Tensor:
        return self._attached.value(self._name)


class Attached:
    """A representation behind the weights of a module.

    `representation` holds the latents; `ties` gives, for each further name of a shared tensor, the first one.
    """

    def __init__(self, module: nn.Module, representation: Representation, places: Iterable[_Place], seed: int) -> None:
        """Put the representation in place; see `attach`."""
        self.representation = representation
        self._module, self._seed = module, seed
        self._draw: Reconstruction | None = None  # while the module's forward runs
        self._last_bits: Tensor | None = None
        self._without_gradient = False
        state = _plain_tensors(module)
        self._names, self.ties = tuple(state), _ties(state)
        self._places = tuple(places)
        # What detach puts back: the parameters' order in their modules, and whether they were trained.
        self._orders = {
            place.owner: [name for name, _ in place.owner.named_parameters(recurse=False)] for place in self._places
        }
        self._trained = [getattr(owner, attribute).requires_grad for owner, attribute, _ in self._places]
        carried: Representation | None = representation
        for owner, attribute, name in self._places:
            parametrize.register_parametrization(owner, attribute, _Represented(self, name, carried), unsafe=True)
            carried = None
        for owner, attribute, _ in self._places:
            original = _original(owner, attribute)
            original.requires_grad_(False)
            # Its memory is let go, not overwritten: whoever else holds the tensor's values keeps them.
            original.data = original.data.new_empty(0)
        self._hooks = (
            module.register_forward_pre_hook(self._before_forward),
            module.register_forward_hook(self._after_forward, always_call=True),
        )
        setattr(module, _ATTRIBUTE, self)

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts between forwards: the graph of a draw can neither be copied nor sent.
        return self.__dict__ | {"_draw": None, "_last_bits": None}

    def _before_forward(self, module: nn.Module, arguments: Any) -> None:
        self.representation.train(module.training)  # whatever its carrier's mode: part of a module may be set to eval
        draw: Reconstruction = self.representation()
        self._draw, self._last_bits = draw, draw.bits
        self._without_gradient = module.training and not torch.is_grad_enabled()

    def _after_forward(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._draw = None

    def value(self, name: str) -> Tensor:
        """Return a represented tensor's value: that of the current draw, or of a new one between forwards."""
        if self._draw is not None:
            return self._draw.values[name]
        self.representation.train(self._module.training)
        return self.representation().values[name]

    def bits(self) -> Tensor:
        """Return the expected bits () of the last forward: relaxed in train(), those of the parts of a file in eval().

        What is not represented (buffers, frozen parameters) is not counted.

        Raises:
            InvalidArgument: the module has not run yet.
        """
        if self._last_bits is None:
            raise InvalidArgument("the rate is that of the last forward: run the attached module first.")
        return self._last_bits

    def rate_loss(self) -> Tensor:
        """Return rate_weight × bits ÷ number of represented weights, (), of the last forward: add it to the loss.

        Raises:
            InvalidArgument: the module has not run yet, or it ran in train() without gradients.
        """
        bits = self.bits()
        if self._without_gradient and torch.is_grad_enabled():
            raise InvalidArgument("the last forward ran under no_grad, so its rate has no gradient: run it again.")
        return self.representation.rate_weight * bits / self.representation.num_weights

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        """Check that an optimizer trains the latents: one made before `attach` holds none of them.

        Raises:
            InvalidArgument: it holds no parameter of the representation.
        """
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not any(id(parameter) in held for parameter in self.representation.parameters()):
            raise InvalidArgument(
                "the optimizer holds none of the latents: make it from the module's parameters() after attach."
            )

    def plain_state(self) -> dict[str, Tensor]:
        """Return the module's ordinary state_dict, in its order: represented tensors as decoding will give them.

        Tied names share one tensor; nothing is copied beyond the decoded values.
        """
        decoded = _decoded_values(self.representation)
        represented = {first: decoded[first] for first in self._represented()}
        live = {
            name: _find(self._module, name).detach() for name in self._names if self._first(name) not in represented
        }
        return {name: represented[self._first(name)] if name not in live else live[name] for name in self._names}

    def chunks(self) -> Iterator[Chunk]:
        """Yield the finished parts of everything in `plain_state`, ties once.

        The latents are committed in a copy, so that training may go on.
        """
        yield from copy.deepcopy(self.representation).eval().chunks()
        represented = self._represented()
        exact = {
            name: tensor
            for name, tensor in self.plain_state().items()
            if name not in self.ties and name not in represented
        }
        if exact:
            lossless: Method = method_class("lossless")()
            yield from lossless.encode(Source(exact), rate_weight=0.0, seed=self._seed)

    def detach(self) -> None:
        """Put plain parameters back, each the module's original object, with the values that decoding would give."""
        self._draw = Reconstruction(_decoded_values(self.representation), torch.zeros(()))
        for (owner, attribute, _), trained in zip(self._places, self._trained, strict=True):
            original = _original(owner, attribute)
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)
            original.requires_grad_(trained)
        for owner, order in self._orders.items():
            for attribute in order:
                parameter = getattr(owner, attribute)
                delattr(owner, attribute)
                owner.register_parameter(attribute, parameter)
        self._draw = None
        for hook in self._hooks:
            hook.remove()
        delattr(self._module, _ATTRIBUTE)

    def _represented(self) -> frozenset[str]:
        return frozenset(place.name for place in self._places)

    def _first(self, name: str) -> str:
        return self.ties.get(name, name)


def attach(
    module: nn.Module,
    method: TrainableMethod,
    *,
    rate_weight: float,
    seed: int = 0,
    names: Iterable[str] | None = None,
) -> Attached:
    """Represent a module's parameters by a method's latents, in place; the training loop stays as it is.

    Make the optimizer after this, from `module.parameters()`, and add `rate_loss()` to the loss. In eval() the module
    computes with exactly what a file would decode to.

    Args:
        module: shared parameters are represented once and stay shared.
        method: how the weights are made cheap.
        rate_weight: what one bit per represented weight is worth in the loss.
        seed: the file's seed.
        names: the parameters to represent; by default all of floating point that require gradients. The others stay
            as they are.

    Raises:
        InvalidArgument: there is no such parameter, none to represent, or something is attached already.
    """
    if any(_ATTRIBUTE in part.__dict__ for part in module.modules()):
        raise InvalidArgument("a method is attached to this module, or to a part of it, already: detach it first.")
    parameters = dict(module.named_parameters(remove_duplicate=False))
    ties = _ties(parameters)
    if names is None:
        chosen = {name for name, value in parameters.items() if value.requires_grad and value.is_floating_point()}
    else:
        chosen = set(names)
        unknown = sorted(chosen - set(parameters))
        if unknown:
            raise InvalidArgument(f"the module has no parameter named {unknown[0]!r}.")
        fixed = sorted(name for name in chosen if not parameters[name].is_floating_point())
        if fixed:
            raise InvalidArgument(f"parameter {fixed[0]!r} is not of floating point and cannot be represented.")
    chosen = {ties.get(name, name) for name in chosen}
    tensors: Mapping[str, Tensor] = {name: value for name, value in parameters.items() if name in chosen}
    if not tensors:
        raise InvalidArgument("the module has no parameter to represent: none of floating point requires gradients.")
    places: dict[tuple[int, str], _Place] = {}
    for name in parameters:
        first = ties.get(name, name)
        path, _, attribute = name.rpartition(".")
        owner = module.get_submodule(path)
        if first in tensors:
            places.setdefault((id(owner), attribute), _Place(owner, attribute, first))
    detached = {name: value.detach() for name, value in tensors.items()}
    representation = method.represent(Source(detached, module), rate_weight=rate_weight, seed=seed)
    return Attached(module, representation.train(module.training), places.values(), seed)


def attached_of(module: nn.Module) -> Attached | None:
    """Return what `attach` has put behind a module's weights; None if there is nothing.

    Raises:
        InvalidArgument: a method is attached to a part of the module only.
    """
    attached = module.__dict__.get(_ATTRIBUTE)
    if attached is None and any(_ATTRIBUTE in part.__dict__ for part in module.modules()):
        raise InvalidArgument("a method is attached to a part of this module: save that part, or attach to the whole.")
    return attached


@torch.no_grad()
def _decoded_values(representation: Representation) -> Mapping[str, Tensor]:
    """What decoding would give now; leaves the mode of the representation as it was."""
    training = representation.training
    try:
        return representation.eval()().values
    finally:
        representation.train(training)


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The live tensors of an ordinary module's state_dict.

    Raises:
        InvalidArgument: an entry is neither a parameter nor a buffer.
    """
    live = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    names = [name for name, value in module.state_dict().items() if isinstance(value, Tensor)]
    strange = [name for name in names if name not in live]
    if strange:
        raise InvalidArgument(f"the module's state {strange[0]!r} is neither a parameter nor a buffer.")
    return {name: live[name] for name in names}


def _find(module: nn.Module, name: str) -> Tensor:
    """The live tensor of a state_dict name."""
    path, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(path), attribute)


def _original(owner: nn.Module, attribute: str) -> Tensor:
    parametrizations: Any = owner.parametrizations
    return parametrizations[attribute].original


def _ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are the very memory of an earlier one, each with the earlier name."""
    first: dict[object, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        key: object = name  # what has no memory shares none
        if tensor.numel() and tensor.layout == torch.strided and not tensor.is_meta:
            memory = tensor.untyped_storage().data_ptr()
            key = (memory, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key in first:
            ties[name] = first[key]
        else:
            first[key] = name
    return ties
