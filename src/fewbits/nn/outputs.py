"""What of a module's output matters."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fewbits.errors import InvalidArgument

Measure: TypeAlias = Callable[[Any], Tensor] | str | None


def check_measure(measure: Measure) -> None:
    """Check that a measure is known.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(measure, str) and measure != "probabilities":
        raise InvalidArgument(f'what is measured is a function, or "probabilities", not {measure!r}.')


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


class _RootsOfProbabilities(torch.autograd.Function):
    """The roots of the softmax over the last dimension of logits, in float32 at least, of which there may be many: for
    the way back nothing else is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        roots = wide.log_softmax(-1).div_(2).exp_()
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
