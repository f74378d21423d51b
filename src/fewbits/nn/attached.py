"""A representation behind the weights of a module: draws, the rate, refining, and what a file will hold of it."""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fewbits.chunk import Chunk
from fewbits.errors import InvalidArgument
from fewbits.method import Method, Reconstruction, Representation, Source
from fewbits.nn.latent_tensor import LatentTensor
from fewbits.nn.rate_control import RateControl
from fewbits.nn.refine import Refined, refine
from fewbits.nn.units import unit_groups
from fewbits.registry import method_class

ATTRIBUTE = "_fewbits_attached"


class Place(NamedTuple):
    """Where a represented parameter is used: a module's attribute, and the tensor's name in the source."""

    owner: nn.Module
    attribute: str
    name: str


class Finished(NamedTuple):
    """A module's tensors as its file decodes to them, in state_dict's order, and the parts of that file."""

    tensors: dict[str, Tensor]
    chunks: list[Chunk]


class _Represented(nn.Module):
    """The parametrisation of one place: looks the value up in the current draw."""

    def __init__(
        self, attached: "Attached", name: str, representation: Representation | None, control: RateControl | None
    ) -> None:
        super().__init__()
        self._attached, self._name = attached, name
        # The first one carries the representation as a submodule, so that the module's parameters(), to() and
        # state_dict() reach the latents. The module itself may be a Sequential, which would run it as a layer.
        if representation is not None:
            self.representation, self.control = representation, control

    def forward(self, original: Tensor) -> Tensor:
        return self._attached.value(self._name)


class Attached:
    """A representation behind the weights of a module.

    `representation` holds the latents; `ties` gives, for each further name of a shared tensor, the first one.
    """

    def __init__(
        self,
        module: nn.Module,
        representation: Representation,
        places: Iterable[Place],
        control: RateControl,
        seed: int,
    ) -> None:
        """Put the representation in place; see `attach`."""
        self.representation, self.control = representation, control
        self._module, self._seed = module, seed
        self._draw: Reconstruction | None = None  # while the module's forward runs
        self._last_bits: Tensor | None = None
        self._without_gradient = False
        self._relaxed = False  # draws may be differentiated though the module is in eval()
        self._groups = unit_groups(module)
        state = _plain_tensors(module)
        self._names, self.ties = tuple(state), ties_of(state)
        self._places = tuple(places)
        # What detach puts back: the parameters' order in their modules, and whether they were trained.
        self._orders = {
            place.owner: [name for name, _ in place.owner.named_parameters(recurse=False)] for place in self._places
        }
        self._trained = [getattr(owner, attribute).requires_grad for owner, attribute, _ in self._places]
        carried: tuple[Representation, RateControl] | tuple[None, None] = (representation, control)
        for owner, attribute, name in self._places:
            parametrize.register_parametrization(owner, attribute, _Represented(self, name, *carried), unsafe=True)
            carried = (None, None)
        for owner, attribute, _ in self._places:
            original = _original(owner, attribute)
            original.requires_grad_(False)
            # Its memory is let go, not overwritten: whoever else holds the tensor's values keeps them.
            original.data = original.data.new_empty(0)
        self._hooks = (
            module.register_forward_pre_hook(self._before_forward),
            module.register_forward_hook(self._after_forward, always_call=True),
        )
        setattr(module, ATTRIBUTE, self)

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts between forwards: the graph of a draw can neither be copied nor sent.
        return self.__dict__ | {"_draw": None, "_last_bits": None}

    def _before_forward(self, module: nn.Module, arguments: Any) -> None:
        # Whatever its carrier's mode: part of a module may be set to eval.
        mode = module.training or self._relaxed
        if self.representation.training != mode:
            self.representation.train(mode)
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

        In train() this also counts a training step: for the warm-up or the budget, the latents' average, the adaptive
        rate. So call it once for each forward.

        Raises:
            InvalidArgument: the module has not run yet, or it ran in train() without gradients.
        """
        bits = self.bits()
        if self._without_gradient and torch.is_grad_enabled():
            raise InvalidArgument("the last forward ran under no_grad, so its rate has no gradient: run it again.")
        weight = self.control.weight()
        if bits.device.type == "cpu" and not math.isfinite(bits.detach()):  # elsewhere it would have to be waited for
            self._refuse_numbers()
        if self._module.training and torch.is_grad_enabled():
            self.representation.update()
            if self.control.advance():
                self.control.steer(self.num_bytes())
        return weight * bits / self.representation.num_weights

    def _refuse_numbers(self) -> None:
        """Say which parameter training has left without a value.

        Raises:
            InvalidArgument: always.
        """
        for name, parameter in self.representation.named_parameters():
            if not bool(parameter.detach().isfinite().all()):
                raise InvalidArgument(
                    f"training has diverged: {self.representation.owner_of(name)!r} has {name.rpartition('.')[2]} that"
                    " are not numbers."
                )
        raise InvalidArgument("training has diverged: the rate is not a number.")

    def state_dict(self) -> dict[str, Any]:
        """Return the latents, what is learned with them, and where warm-up or budget are: to resume a run from."""
        return {"representation": self.representation.state_dict(), "control": self.control.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of the same module and method.

        Raises:
            InvalidArgument: it is damaged, or of another module or method; nothing has been changed then.
        """
        parts = {"representation": self.representation, "control": self.control}
        if set(state) != set(parts):
            raise InvalidArgument(f"a run's state has {', '.join(parts)}; this one has {', '.join(map(str, state))}.")
        for name, part in parts.items():
            _check_state(name, part.state_dict(), state[name])
        for name, part in parts.items():
            part.load_state_dict(state[name])

    @torch.no_grad()
    def num_bytes(self) -> int:
        """Return the bytes of all parts that a file would have now; really encoded, not estimated."""
        return sum(len(chunk.payload) for chunk in self.finished().chunks)

    def refine(
        self,
        batches: Sequence[Any],
        loss: Callable[[Any], Tensor],
        *,
        batch_size: int,
        budget: int | None = None,
    ) -> Refined:
        """Trade training loss for bits once more, at the end: move single levels one towards 0 where that pays.

        The latents are rounded in place, and training is over: `save` next.

        Args:
            batches: of training data, of one size, gone through again and again: some thousand examples are plenty.
            loss: mean task loss of a batch, () tensor, computed with the attached module.
            batch_size: examples in a batch.
            budget: bytes of a file's parts that the result must fit in; what fits already is left as it is.

        Raises:
            InvalidArgument: there are no batches, or the method's latents are not levels.
        """
        representation = self.representation
        latents = [one for one in representation.modules() if isinstance(one, LatentTensor) and one.is_trained]
        if not batches or not latents:
            raise InvalidArgument("refining needs batches of training data, and a method with latents that are levels.")
        training, representation_training = self._module.training, representation.training
        self._module.eval()
        for one in latents:
            one.settle()

        def batch_loss(batch: Any) -> Tensor:
            self._relaxed = True
            try:
                return loss(batch)
            finally:
                self._relaxed = False

        @torch.no_grad()
        def mean_loss() -> float:
            return sum(float(loss(batch)) for batch in batches) / len(batches)

        try:
            nats_per_bit = self.control.rate_weight / representation.num_weights
            tied = [functools.partial(batch_loss, batch) for batch in batches]
            return refine(latents, tied, mean_loss, self.num_bytes, nats_per_bit, batch_size, budget)
        finally:
            self._module.train(training)
            representation.train(representation_training)

    def parameter_groups(
        self, latents: float = 2e-2, decoders: float = 4e-3, densities: float = 1e-3, rest: float = 1e-3
    ) -> list[dict[str, Any]]:
        """Return parameter groups for Adam, each with its learning rate; no weight decay for what is represented.

        Args:
            latents: in steps of the quantiser: a latent has to cross a bin to change anything.
            decoders: steps and bases.
            densities: learned entropy models.
            rest: the module's trained parameters that are not represented.
        """
        rates = {"latents": latents, "decoders": decoders, "densities": densities, "rest": rest}
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        own = {id(parameter): name for name, parameter in self.representation.named_parameters()}
        for parameter in self._module.parameters():
            if parameter.requires_grad:
                name = own.get(id(parameter))
                groups["rest" if name is None else self.representation.parameter_kind(name)].append(parameter)
        return [
            {"name": name, "params": held, "lr": rates[name]} | ({} if name == "rest" else {"weight_decay": 0.0})
            for name, held in groups.items()
            if held
        ]

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

    def finished(self, *, keep_units: bool = False) -> Finished:
        """Return everything as a file will have it; the latents are committed in a copy, so that training may go on.

        Args:
            keep_units: leave hidden units as they are; else they come in an order that codes shorter, dead ones
                emptied, for the same function (`Representation.tidy`).
        """
        representation = copy.deepcopy(self.representation).eval()
        represented = self._represented()
        others: Mapping[str, Tensor] = {
            name: _find(self._module, name).detach()
            for name in self._names
            if name not in self.ties and name not in represented
        }
        if not keep_units:
            others = representation.tidy(self._groups, others)
        chunks = list(representation.chunks())
        if others:
            lossless: Method = method_class("lossless")()
            chunks += lossless.encode(Source(others), rate_weight=0.0, seed=self._seed)
        values = {**_decoded_values(representation), **others}
        return Finished({name: values[self._first(name)] for name in self._names}, chunks)

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
        delattr(self._module, ATTRIBUTE)

    def _represented(self) -> frozenset[str]:
        return frozenset(place.name for place in self._places)

    def _first(self, name: str) -> str:
        return self.ties.get(name, name)


def _check_state(what: str, own: Mapping[str, Any], given: Any) -> None:
    """Check that a state dict is one of a module, with numbers in it."""
    if not isinstance(given, Mapping) or set(given) != set(own):
        raise InvalidArgument(f"the state of the {what} is not one of this module and method.")
    for name, value in own.items():
        found = given[name]
        if not isinstance(found, Tensor) or found.shape != value.shape or found.dtype != value.dtype:
            raise InvalidArgument(f"the state of the {what} has another {name!r}.")
        if found.is_floating_point() and bool(found.isnan().any()):
            raise InvalidArgument(f"the state of the {what} has {name!r} that are not numbers.")


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


def ties_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
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
