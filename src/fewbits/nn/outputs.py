"""What of a module's output matters."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.inputs import Synthetic, called

Measure: TypeAlias = Callable[[Any], Tensor] | str | None
Loss: TypeAlias = Callable[[Any, Any], Tensor]  # of an output and a target, ()


def check_measure(measure: Measure) -> None:
    """Check that a measure is known.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(measure, str) and measure != "probabilities":
        raise InvalidArgument(f'what is measured is a function, or "probabilities", not {measure!r}.')


def measure_on(made: Synthetic, measure: Measure) -> Measure:
    """Return what of outputs matters: what a language model gives are logits, whatever they are called."""
    return "probabilities" if measure is None and made.are_sampled else measure


def measured(output: Any, measure: Measure) -> list[Tensor]:
    """Return the tensors that matter: what a function makes of an output, or all its floating point tensors.

    "probabilities" are the roots of the softmax over the last dimension of its `logits`, or of the output itself, in
    float32; they are the default for an output with `logits` (B, K) or (B, T, K), K > 1.

    Raises:
        InvalidArgument: there is nothing to make probabilities of.
    """
    if callable(measure):
        return list(floating(measure(output)))
    logits: Any = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if measure is not None and logits is None:
        logits = output
    if isinstance(logits, Tensor) and logits.is_floating_point():
        wanted = measure is not None or (logits.ndim in (2, 3) and logits.shape[-1] > 1)
        return [_RootsOfProbabilities.apply(logits)] if wanted else list(floating(output))
    if measure is not None:
        raise InvalidArgument("the module's output is no floating point tensor and has no logits: no probabilities.")
    return list(floating(output))


def error_of(module: nn.Module, values: Mapping[str, Tensor], batch: Any, measure: Measure) -> Tensor:
    """Return the relative squared error of a module's outputs, () float32, with these values in place of its own.

    The mean over what is measured. No gradient reaches what the module makes by itself; it is not changed.

    Args:
        values: parameters and buffers by name, of the module's shapes, dtypes and devices.
    """
    with torch.no_grad():
        before = measured(called(module, batch), measure)
    errors: list[Tensor] = []
    for one, other in zip(measured(output_with(module, values, batch), measure), before, strict=True):
        energy = full(other).square().sum()
        errors.append((full(one) - full(other)).square().sum() / torch.where(energy > 0, energy, 1))
    return torch.stack(errors).mean()


def output_with(module: nn.Module, values: Mapping[str, Tensor], batch: Any) -> Any:
    """Return what a module makes of a batch with these values in place of its own; it is not changed."""

    def changed(*arguments: Any, **named: Any) -> Any:
        return torch.func.functional_call(module, dict(values), arguments, named)

    return called(changed, batch)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers, by the first of their names."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def full(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _RootsOfProbabilities(torch.autograd.Function):
    """The roots of the softmax over the last dimension of logits, in float32 at least, of which there may be many: for
    the way back nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        roots = full(logits).log_softmax(-1).div_(2).exp_()
        ctx.save_for_backward(roots)
        ctx.dtype = logits.dtype
        return roots

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (roots,), (gradient,) = ctx.saved_tensors, gradients
        shared = torch.einsum("...k,...k->...", gradient, roots)[..., None]
        return torch.addcmul(gradient, roots, shared, value=-1).mul_(roots).div_(2).to(ctx.dtype)


def floating(output: Any) -> Iterator[Tensor]:
    """Give the floating point tensors of an output that have elements, however they are nested."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, Mapping | list | tuple):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from floating(value)
