"""Put a representation behind a module's weights, so that an ordinary training loop trains its latents.

Surprises first. `attach` changes the module in place: each represented parameter becomes a parametrisation
(`torch.nn.utils.parametrize`), the latents become parameters of the module, and an optimizer made before holds none of
them. While the module runs, all its weights are of one draw, made just before its forward; a weight read at any other
time comes from a draw of its own. Buffers and parameters that are not represented stay as they are, and are coded
without loss.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.method import Source, TrainableMethod
from fewbits.nn.attached import ATTRIBUTE, Attached, Place, ties_of
from fewbits.nn.rate_control import Budget, RateControl

_FIRST_WEIGHT = 5.0  # of the rate, where a budget is to find it: from where MNIST's networks are not far


def attach(
    module: nn.Module,
    method: TrainableMethod,
    *,
    rate_weight: float | None = None,
    budget: int | None = None,
    num_steps: int | None = None,
    warm_up: int = 0,
    seed: int = 0,
    names: Iterable[str] | None = None,
) -> Attached:
    """Represent a module's parameters by a method's latents, in place; the training loop stays as it is.

    Make the optimizer after this, from `module.parameters()`, and add `rate_loss()` to the loss. In eval() the module
    computes with exactly what a file would decode to.

    Args:
        module: shared parameters are represented once and stay shared.
        method: how the weights are made cheap.
        rate_weight: what one bit per represented weight is worth in the loss; with a budget, at first.
        budget: bytes of the parts of a file to steer to instead, from a little above: `Attached.refine` then makes
            them fit. It needs num_steps. A method that knows its size before training (`miracle`) keeps to it at once.
        num_steps: training steps, calls of `rate_loss`, that the run will have.
        warm_up: training steps in which the weight rises from 0.
        seed: the file's seed.
        names: the parameters to represent; by default all of floating point that require gradients. The others stay
            as they are.

    Raises:
        InvalidArgument: there is no such parameter, none to represent, something is attached already, or a number is
            out of its range.
    """
    control = _control(rate_weight, budget, num_steps, warm_up, type(method))
    if any(ATTRIBUTE in part.__dict__ for part in module.modules()):
        raise InvalidArgument("a method is attached to this module, or to a part of it, already: detach it first.")
    parameters = dict(module.named_parameters(remove_duplicate=False))
    ties = ties_of(parameters)
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
    for name in tensors:
        if "parametrizations." in name:
            raise InvalidArgument(f"parameter {name!r} is behind a parametrization already: remove that first.")
    if not tensors:
        raise InvalidArgument("the module has no parameter to represent: none of floating point requires gradients.")
    places: dict[tuple[int, str], Place] = {}
    for name in parameters:
        first = ties.get(name, name)
        path, _, attribute = name.rpartition(".")
        owner = module.get_submodule(path)
        if first in tensors:
            places.setdefault((id(owner), attribute), Place(owner, attribute, first))
    detached = {name: value.detach() for name, value in tensors.items()}
    source = Source(detached, module)
    planned = None if budget is None else method.rate_weight_within(source, budget)
    if planned is not None:
        control = RateControl(planned, 0, None)
    representation = method.represent(source, rate_weight=control.rate_weight, seed=seed)
    if budget is not None and budget < representation.least_bytes():
        raise InvalidArgument(f"a budget of {budget} bytes is too small: this takes {representation.least_bytes()}.")
    attached = Attached(module, representation.train(module.training), places.values(), control, seed)
    if control.budget is not None:
        control.start_from(attached.num_bytes())
    return attached


def _control(
    rate_weight: float | None, budget: int | None, num_steps: int | None, warm_up: int, method: type[TrainableMethod]
) -> RateControl:
    """What a bit is worth, as `attach` was asked."""
    if budget is None:
        if rate_weight is None:
            raise InvalidArgument("attach needs a rate_weight or a budget.")
        return RateControl(rate_weight, warm_up, None)
    if method.rate_weight_within is not TrainableMethod.rate_weight_within:
        num_steps = 1  # nothing is steered
    if num_steps is None:
        raise InvalidArgument("a budget needs num_steps, the training steps in which it is to be reached.")
    return RateControl(_FIRST_WEIGHT if rate_weight is None else rate_weight, warm_up, Budget(budget, num_steps))


def attached_of(module: nn.Module) -> Attached | None:
    """Return what `attach` has put behind a module's weights; None if there is nothing.

    Raises:
        InvalidArgument: a method is attached to a part of the module only.
    """
    attached = module.__dict__.get(ATTRIBUTE)
    if attached is None and any(ATTRIBUTE in part.__dict__ for part in module.modules()):
        raise InvalidArgument("a method is attached to a part of this module: save that part, or attach to the whole.")
    return attached
