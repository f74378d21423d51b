"""Levels trained against what the module made of its inputs before: what errors do together, and to data as it is.

What is made small is the relative squared error of outputs plus what bits are worth, as in `fewbits.nn.curvatures`; no
labels are needed. Or, in place of the error, a loss of the caller's. Rounding passes gradients on as if it were not
there.

Left alone, latents gather at the edges of their cells and jump to and fro, the more the longer they are trained. Each
is drawn to the middle of its cell, at first hardly, at last more than it is moved.

Source: straight-through estimation, Bengio et al. 2013 (arXiv:1308.3432); differs: latents start at the weights within
the cells that error feedback has found, and levels are priced by their own models. Oscillations: Nagel et al. 2022
(arXiv:2203.11086); differs: what they add to the loss is apart from its gradient here, as weight decay is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.inputs import Labelled, evaluating
from fewbits.nn.outputs import Loss, Measure, error_of, output_with
from fewbits.progress import Progress

_RATE = 4e-3  # of learning, in steps of quantisation
_DECAYS = (0.9, 0.99)
_WARM_UP, _LAST = 10, 0.01  # steps in which the rate of learning rises; its share at the end of half a cosine
_DRAWN, _MOST_DRAWN = 1.5, 3e-3  # of a latent's way to the middle of its cell: at most in all steps, and in one
_REFIT = 50  # steps from one fit of models to the next
_PULL, _MOST_PULL = 8.0, 2.0  # of what a bit is worth, by how far the levels' bits are off what they were
_WEIGHED = 8  # batches at most by which a loss is told in the unit of errors


class Latents(Protocol):
    """Latents of a tensor, or of a part of it."""

    latents: nn.Parameter  # in steps: a level is the whole number that is nearest

    def __call__(self) -> Tensor:
        """Return the values (N,) of the rounded latents."""
        ...

    def bits(self) -> Tensor:
        """Return what they cost in bits, () float32, with a gradient."""
        ...

    def refit(self) -> float:
        """Make prices anew; return what the levels cost in bits."""
        ...


class Task(NamedTuple):
    """What levels are trained for: a module's outputs on batches.

    fixed: tensors by name in place of the module's, where they are not trained. loss: if not the error of outputs.
    """

    module: nn.Module
    batches: Sequence[Any]
    measure: Measure
    fixed: Mapping[str, Tensor]
    loss: Loss | None = None

    def cost(self, values: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Return the error or loss, () float32, of a batch with these values.

        Raises:
            InvalidArgument: the loss is no single floating point number.
        """
        if self.loss is None:
            return error_of(self.module, values, batch, self.measure)
        target = batch.target if isinstance(batch, Labelled) else batch
        found = self.loss(output_with(self.module, values, batch), target)
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument("loss= must return a floating point tensor of one element.")
        return found.float().reshape(())


def tune(
    task: Task,
    trained: Mapping[str, Sequence[Latents]],
    *,
    slope: float,
    steps: int,
    seed: int,
    progress: Progress | None,
) -> None:
    """Train latents, in place, for so many steps of a batch each, to about as many bits as they have at first.

    Args:
        trained: by tensor name, the latents of its parts in order.
        slope: what a bit is worth, in relative squared error of outputs.

    Raises:
        InvalidArgument: outputs do not depend on the latents, or training diverges.
    """
    parts = [part for each in trained.values() for part in each]
    optimizer = torch.optim.Adam([part.latents for part in parts], _RATE, _DECAYS, fused=False, foreach=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    generator = torch.Generator().manual_seed(seed)
    wanted, pull, order = sum(part.refit() for part in parts), 1.0, list[int]()
    with torch.inference_mode(False), evaluating(task.module):
        slope *= _in_errors(task, trained)
        for step in range(steps):
            order = order or torch.randperm(len(task.batches), generator=generator).tolist()
            batch = task.batches[order.pop()]
            with torch.enable_grad():
                cost = task.cost({**task.fixed, **_values(task, trained)}, batch)
                loss = cost + pull * slope * torch.stack([part.bits() for part in parts]).sum()
                if not cost.requires_grad or not bool(loss.isfinite()):
                    raise InvalidArgument("levels cannot be trained: outputs do not depend on them, or diverge.")
                optimizer.zero_grad()
                loss.backward(inputs=[part.latents for part in parts])
            optimizer.step()
            schedule.step()
            draw = min(_DRAWN / steps, _MOST_DRAWN) * (1 - _share(step, steps))
            with torch.no_grad():
                for part in parts:
                    part.latents.lerp_(part.latents.round(), draw)
            if step % _REFIT == _REFIT - 1:
                share = sum(part.refit() for part in parts) / wanted
                pull *= min(max(share**_PULL, 1 / _MOST_PULL), _MOST_PULL)
            if progress is not None:
                progress("tune", step + 1, steps)


def _values(task: Task, trained: Mapping[str, Sequence[Latents]]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for name, parts in trained.items():
        own = task.module.get_parameter(name)
        values[name] = torch.cat([part() for part in parts]).reshape(own.shape).to(own.dtype)
    return values


def _in_errors(task: Task, trained: Mapping[str, Sequence[Latents]]) -> float:
    """How many of a loss are worth one of an error: as many times longer its gradients are, at first."""
    if task.loss is None:
        return 1.0
    squares = [0.0, 0.0]
    latents = [part.latents for parts in trained.values() for part in parts]
    for batch in task.batches[:_WEIGHED]:
        for i, each in enumerate((task, task._replace(loss=None))):
            with torch.enable_grad():
                cost = each.cost({**task.fixed, **_values(task, trained)}, batch)
                found = torch.autograd.grad(cost, latents, materialize_grads=True) if cost.requires_grad else ()
            squares[i] += sum(float(gradient.double().square().sum()) for gradient in found)
    return math.sqrt(squares[0] / squares[1]) if all(squares) and all(map(math.isfinite, squares)) else 1.0


def _share(step: int, steps: int) -> float:
    """The rate of learning in a step, as a share of the greatest."""
    return min((step + 1) / _WARM_UP, max((1 + math.cos(math.pi * step / steps)) / 2, _LAST))
