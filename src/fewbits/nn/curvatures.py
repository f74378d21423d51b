"""What an error of each weight costs, by gradients: one factor for what its layer reads, one for what it makes.

A backward pass of ⟨v, outputs⟩, v standard normal, gives each sample's gradient g with E[g gᵀ] = Jᵀ J, the Gauss-Newton
curvature of the squared error of outputs. Source: K-FAC, Martens & Grosse 2015 (arXiv:1503.05671).
"""

import math
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from fewbits.errors import InvalidArgument
from fewbits.method import Curvature
from fewbits.nn.blocks import block_by_block
from fewbits.nn.curvature_sums import Call, Probe, Product, Table, Whole
from fewbits.nn.inputs import SOME, Synthetic, called, check_named, evaluating, synthetic_inputs
from fewbits.nn.outputs import Measure, check_measure, floating, full, measure_on, measured
from fewbits.nn.words import use_of_words, word_tables
from fewbits.progress import Progress

_ZIPF = 1.0  # its law's exponent
_WIDEST = 1 << 13  # elements of a row, above which its matrix of inputs would take more than half a gigabyte
_FORWARDS = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Embedding.forward)


def curvatures(
    module: nn.Module,
    inputs: Iterable[Any] | str,
    *,
    measure: Measure = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float | Curvature]:
    """Return what errors of each floating point parameter cost, by its name; of tied ones, by the first.

    The loss is the relative squared error of the module's outputs, the mean over the floating point tensors in them and
    over batches by their samples, indices of dimension 0. A parameter of two dimensions or more has a Curvature, its
    rows flattened. That of the weight of an `nn.Linear`, an `nn.Embedding`, or an `nn.Conv1d` or `nn.Conv2d` without
    groups is by its layers' inputs and outputs; what several of them make it cost is added. Of layers that are no
    tables, with 64 to 8,192 rows, it says how errors of rows meet, along 96 directions. Of others, or where
    something beside such layers uses it, it is by the gradient of a batch, which takes more batches than columns. A
    vector, or a parameter with rows of more than 8,192 elements, has a float: the loss per unit of its relative squared
    error. What no gradient reaches has 0.0.

    What a layer reads at an index of dimension 0 is taken for a sample, also where the module has merged samples with
    time, or time comes first: gradients are added up over the other dimensions, and taken as independent over this.
    Uses of a table's rows are independent. A float is of one draw of v a batch: it takes some dozens of batches.

    The module runs in eval(), forwards and backwards once a batch; afterwards it is as it was, gradients included. One
    in half precision is slow on a CPU that has none: give its copy in float32. Memory: what is returned, and what a
    batch takes: of an `nn.ModuleList` one entry at a time, whose forward is called again on the way back, if that does
    the same; gradients are used as they come, and of weights that only layers use none is made after the first batch.

    Args:
        inputs: batches, read one at a time, each a tensor, a tuple of arguments, or a mapping of keyword arguments.
            "synthetic": texts that the module makes itself, where it is a language model; or some hundreds of random
            ones, where it reads token ids, images or vectors: words of a table of 1,000 and more that nothing else uses
            are then taken to be used by rank, as Zipf's law says.
        measure: what of the module's output matters; by default all of it. "probabilities": the roots of the softmax
            over the last dimension of its `logits`, or of the output itself; their squared error is half the
            divergence, where it is small. It is the default for an output with `logits` (B, K) or (B, T, K), K > 1, and
            for texts that the module made itself.
        seed: of v, and of synthetic inputs.
        progress: called with a stage and how many of how many batches are done; of an unknown number, one is left.

    Raises:
        InvalidArgument: there is no batch, or the module does not take one; its outputs hold no floating point number,
            one that is not finite, or only 0; no gradient reaches them, or one that is not finite reaches a weight; or
            the module reads what no synthetic input stands for.
    """
    check_measure(measure)
    check_named(inputs)
    if isinstance(inputs, str):
        made = synthetic_inputs(module, seed, SOME, progress)
        return synthetic_curvatures(module, made, measure=measure, seed=seed, progress=progress)
    generator, total = torch.Generator().manual_seed(seed), length_hint(inputs)
    done, samples = 0, 0
    with (
        torch.inference_mode(False),
        evaluating(module),
        torch.enable_grad(),
        _watched(module) as weights,
        ExitStack() as blocks,
    ):
        blocks.enter_context(block_by_block(module))
        for done, batch in enumerate(inputs, 1):
            try:
                samples += _add_batch(weights, module, batch, done, measure, generator)
            except CheckpointError as error:
                if done > 1:
                    raise InvalidArgument(f"the module does not compute batch {done} twice alike.") from error
                blocks.close()  # all of the module is held at once
                for weight in weights:
                    weight.forget()
                samples += _add_batch(weights, module, batch, done, measure, generator)
            if progress is not None:
                progress("curvatures", done, max(done, total) if total else done + 1)
    if not done:
        raise InvalidArgument("there is no input to try.")
    return {weight.name: weight.cost(samples) for weight in weights}


def synthetic_curvatures(
    module: nn.Module, made: Synthetic, *, measure: Measure, seed: int, progress: Progress | None
) -> dict[str, float | Curvature]:
    """Return curvatures by inputs that nobody gave.

    Random tokens are all as frequent: rows of tables of words are weighted by their rank.

    Raises:
        InvalidArgument: as `curvatures`.
    """
    found = curvatures(module, made.batches, measure=measure_on(made, measure), seed=seed, progress=progress)
    if made.are_sampled:
        return found
    for name, count in word_tables(module).items():
        value = found.get(name)
        if isinstance(value, Curvature):
            outputs = value.outputs * use_of_words(count, _ZIPF).numpy()
            found[name] = value._replace(outputs=outputs / outputs.sum())
    return found


@dataclass
class _Batch:
    """A batch on its way through the module, and back: its samples, what gradients are to be scaled by, and where they
    end beside parameters."""

    samples: int = 0
    scale: float = 1.0
    is_back: bool = False
    ends: list[Tensor] = field(default_factory=list[Tensor])


@dataclass
class _Weight:
    """A parameter, and what is summed over samples of it, as gradients come.

    batch: the present one.
    roles: sums by the kind of layer; or of all of its gradient, where not all of it is made by calls.
    by_layers: whether its gradient is all made by calls; None until it has one. Once it is, no more is made of it.
    probe: the gradient that the calls of a batch make, where it is not known yet whether that is all.
    squares: of its gradient, the sum over elements and batches, where it is not by layers.
    """

    name: str
    value: Tensor
    batch: _Batch = field(default_factory=_Batch)
    roles: dict[type, Product | Table | Whole] = field(default_factory=dict[type, Product | Table | Whole])
    by_layers: bool | None = None
    probe: Probe | None = None
    squares: float = 0.0

    def begin(self, batch: _Batch) -> None:
        """Get ready for a batch."""
        self.batch, self.probe = batch, None
        self.value.requires_grad_(not self.by_layers)

    def forget(self) -> None:
        """Begin anew."""
        self.roles.clear()
        self.by_layers, self.squares = None, 0.0

    def note(
        self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        """The forward hook of its layers: wait for the gradient at what it made."""
        if self.by_layers is False or not output.numel() or not torch.is_grad_enabled():
            return None
        made = output
        if not output.requires_grad:  # nothing before it has a gradient, and by now its weight has none
            end = output.detach().requires_grad_()
            self.batch.ends.append(end)
            made = end.clone()  # which the module may change in place
        if self.batch.is_back:  # a block that is computed again
            return made
        read: Tensor = arguments[0] if arguments else next(iter(named.values()))
        held = [Call(layer, read.detach())]
        made.register_hook(lambda gradient: self._arrive(held, gradient))
        return made

    def _arrive(self, held: list[Call], gradient: Tensor | None) -> None:
        """Add a call, and forget what it read: the hook lives as long as the graph."""
        call = held.pop()
        if gradient is not None:
            self._add(call, gradient)

    def _add(self, call: Call, gradient: Tensor) -> None:
        """Add a call, its gradient still to be scaled."""
        kind = Table if isinstance(call.layer, nn.Embedding) else Product
        role = self.roles.get(kind)
        if role is None or isinstance(role, Whole):
            self.roles[kind] = role = kind(full(self.value.detach()).flatten(1))
        if self.by_layers is None and self.probe is None:
            self.probe = Probe(full(self.value.detach()).flatten(1))
        role.add(call, gradient, self.batch.scale, self.batch.samples, self.probe)

    def take(self, value: Tensor) -> None:
        """The hook of its own gradient, all of it: add it, unless calls make all of it."""
        gradient, value.grad = value.grad, None
        if gradient is not None:
            self._add_whole(gradient)

    def _add_whole(self, gradient: Tensor) -> None:
        gradient = full(gradient.to_dense()).mul_(self.batch.scale)  # tables may have sparse ones
        norm = float(torch.linalg.vector_norm(gradient))
        if self.by_layers is None and norm != 0:
            self.by_layers = self.probe is not None and self.probe.is_all_of(gradient.flatten(1))
        self.probe = None
        if self.by_layers is False:
            if gradient.ndim < 2 or gradient[0].numel() > _WIDEST:
                self.roles.clear()
                self.squares += norm * norm
                return
            role = self.roles.get(Whole)
            if not isinstance(role, Whole):
                self.roles.clear()
                self.roles[Whole] = role = Whole(gradient.flatten(1))
            role.add(gradient.flatten(1))

    def cost(self, samples: int) -> float | Curvature:
        """Return what an error costs, of sums over so many samples.

        Raises:
            InvalidArgument: gradients, or what a layer reads, are not finite.
        """
        sums = [each for role in self.roles.values() for each in vars(role).values()]
        if not math.isfinite(self.squares) or not all(bool(each.isfinite().all()) for each in sums):
            raise InvalidArgument(f"gradients of {self.name!r}, or what its layer reads, are not finite.")
        if self.by_layers is False and not self.roles:
            energy = float(torch.linalg.vector_norm(full(self.value.detach()))) ** 2
            return self.squares / samples / self.value.numel() * energy
        parts = [role.factors(samples) for role in self.roles.values() if bool(role.inputs.any())]
        if len(parts) < 2:
            return parts[0] if parts else 0.0
        outputs = np.sum([float(np.trace(part.inputs)) * part.outputs for part in parts], axis=0)
        return Curvature(np.sum([part.inputs for part in parts], axis=0), outputs / outputs.sum())


@contextmanager
def _watched(module: nn.Module) -> Generator[list[_Weight]]:
    """Let gradients reach all parameters, and note the calls of layers; undone afterwards."""
    weights = {id(each): _Weight(name, each) for name, each in module.named_parameters() if each.is_floating_point()}
    before = [(weight.value, weight.value.requires_grad, weight.value.grad) for weight in weights.values()]
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for weight in weights.values():
            weight.value.requires_grad_(True).grad = None
            handles.append(weight.value.register_post_accumulate_grad_hook(weight.take))
        for layer in module.modules():
            weight = weights.get(id(dict(layer.named_parameters(recurse=False)).get("weight")))
            # A layer that computes something else has a forward of its own.
            is_known = type(layer).forward in _FORWARDS and getattr(layer, "groups", 1) == 1
            if weight is not None and is_known and weight.value.flatten(1).shape[1] <= _WIDEST:
                handles.append(layer.register_forward_hook(weight.note, with_kwargs=True))
        yield list(weights.values())
    finally:
        for handle in handles:
            handle.remove()
        for value, flag, gradient in before:
            value.requires_grad_(flag).grad = gradient


def _add_batch(
    weights: list[_Weight],
    module: nn.Module,
    batch: Any,
    number: int,
    measure: Measure,
    generator: torch.Generator,
) -> int:
    """Run a batch through a module and back; return its number of samples.

    Raises:
        CheckpointError: a block is not twice alike.
    """
    current = _Batch()
    for weight in weights:
        weight.begin(current)
    _differentiate(weights, _output(module, batch, number), measure, generator, current)
    return current.samples


def _output(module: nn.Module, batch: Any, number: int) -> Any:
    try:
        return called(module, batch)
    except Exception as error:  # whatever a stranger's module says of a batch that is none
        raise InvalidArgument(f"the module does not take batch {number}: {type(error).__name__}.") from error


def _differentiate(
    weights: list[_Weight], output: Any, measure: Measure, generator: torch.Generator, batch: _Batch
) -> None:
    """Differentiate ⟨v, outputs⟩, each divided by the root of its energy a sample: gradients go where they are waited
    for."""
    outputs = measured(output, measure)
    batch.samples = next((len(each) for each in (*floating(output), *outputs) if each.ndim), 1)
    del output  # of which nothing else is needed while gradients are made
    norms = [float(torch.linalg.vector_norm(full(each.detach()))) for each in outputs]
    if not any(norms) or not all(map(math.isfinite, norms)):
        raise InvalidArgument("the module's outputs must be floating point tensors, finite, and not all 0.")
    felt = [(each, norm) for each, norm in zip(outputs, norms, strict=True) if norm and each.requires_grad]
    if not felt:
        raise InvalidArgument("no gradient reaches the module's outputs: they must not be detached.")
    # NUMERICS: gradients start at size 1 and are scaled in float32; smaller ones would vanish in half precision.
    least = min(norm for _, norm in felt)
    batch.scale = math.sqrt(batch.samples / len(felt)) / least
    outputs.clear()
    products: list[Tensor] = []
    while felt:  # of outputs, too, nothing else is needed
        each, norm = felt.pop()
        seeds = torch.randn(each.shape, generator=generator).mul_(least / norm).to(each.device, each.dtype)
        products.append((each * seeds).sum())
        del each, seeds
    ends = [*(weight.value for weight in weights if weight.value.requires_grad), *batch.ends]
    batch.is_back = True
    try:
        torch.autograd.backward(products, inputs=ends)
    except CheckpointError:
        raise
    except RuntimeError as error:
        raise InvalidArgument(f"the module cannot be differentiated: {type(error).__name__}.") from error
