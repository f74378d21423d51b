"""What an error of each weight costs, by trying it: noise on one tensor at a time, and what the module makes of it.

With these, one rate weight for all tensors puts bits where outputs feel them. Source: noise probing as in the
linearity theorem's use by Malinovskii et al. 2024 (HIGGS, arXiv:2411.17525), whose loss is a language model's.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument
from fewbits.nn.inputs import called, check_named, evaluating, synthetic_inputs
from fewbits.nn.outputs import floating
from fewbits.nn.words import use_of_words, word_tables
from fewbits.progress import Progress
from fewbits.quantize.rounding import sensitivity_by_size
from fewbits.tensors import lossy_weights, spec_of

NOISE = 0.15  # relative error that is tried: small enough to be felt in proportion, large enough to be felt
_LEAST_SHARE = 0.5  # of what a tensor's size says: docs/decisions/0015
_ZIPF = 0.7  # of the use of words; the law's is 1, but not every vocabulary is sorted
_UNFELT = 1e-9  # of the greatest: below is rounding
Outputs = list[list[Tensor]]  # by batch


def sensitivities(
    module: nn.Module,
    inputs: Iterable[Any] | str,
    *,
    measure: Callable[[Any], Tensor] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float | Tensor]:
    """Return, by name, the loss that a weight adds per unit of its relative squared error: `compress(statistics=)`.

    The loss is the relative squared error of the module's outputs, the mean of all floating point tensors in them, in
    units in which the geometric mean of all weights is what their sizes say. Weights are tensors of two dimensions or
    more; what others cost hardly counts, and is said by their sizes. None counts for less than half of what its size
    says: errors of a few bits a weight are larger than what is tried, and felt where small ones are not.

    A table of words (an `nn.Embedding` of 1,000 rows or more that nothing else uses) has one for each row, (R,)
    float64, whose mean is the table's: vocabularies are mostly sorted by how frequent words are, so that the r-th, from
    1 on, is taken to be used as r^-0.7. A table that also makes the outputs is a weight like others.

    The module runs in eval(), once a weight and batch; afterwards it is as it was.

    Args:
        inputs: batches, each a tensor, a tuple of arguments, or a mapping of keyword arguments; a few dozen examples
            do. "synthetic": texts that the module makes itself, where it is a language model; or random ones, where it
            reads token ids, images or vectors.
        measure: what of the module's output matters; by default all of it.
        seed: of the noise, and of synthetic inputs.
        progress: called with a stage and how many of how many weights are done.

    Raises:
        InvalidArgument: there is no batch; the outputs hold no floating point number, or one that is not finite; or the
            module reads what no synthetic input stands for.
    """
    check_named(inputs)
    if isinstance(inputs, str):
        inputs = synthetic_inputs(module, seed).batches
    batches = list(inputs)
    if not batches:
        raise InvalidArgument("there is no input to try.")
    with evaluating(module):
        clean = _outputs(module, batches, measure)
        if not any(map(len, clean)) or not all(bool(each.isfinite().all()) for batch in clean for each in batch):
            raise InvalidArgument("the module's outputs must be floating point tensors, and finite.")
        tensors = list(_tried(module))
        generator, found = torch.Generator().manual_seed(seed), dict[str, float]()
        for done, (name, tensor, energy) in enumerate(tensors, 1):
            held = tensor.clone()
            amplitude = NOISE * math.sqrt(3 * energy / tensor.numel())
            noise = (2 * torch.rand(tensor.shape, generator=generator) - 1) * amplitude
            try:
                tensor.add_(noise.to(tensor.device, tensor.dtype))
                relative = float((tensor - held).double().square().sum()) / energy
                found[name] = _loss(clean, _outputs(module, batches, measure)) / max(relative, 1e-300)
            finally:
                tensor.copy_(held)
            if progress is not None:
                progress("sensitivities", done, len(tensors))
    beside = _beside_sizes(found, {name: tensor.numel() for name, tensor, _ in tensors})
    words = word_tables(module)
    return {
        name: value * use_of_words(words[name], _ZIPF) if name in words else value for name, value in beside.items()
    }


def _tried(module: nn.Module) -> Iterator[tuple[str, Tensor, float]]:
    """The weights that are coded lossily, each once, with what their error is measured against."""
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or tensor.ndim < 2 or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        value = tensor.detach()
        weights, _ = lossy_weights(spec_of(name, value), value)
        energy = 0.0 if weights is None else weights.energy_at_stake()
        if energy > 0:
            yield name, value, energy


def _outputs(module: nn.Module, batches: Sequence[Any], measure: Callable[[Any], Tensor] | None) -> Outputs:
    return [
        [each.detach().double() for each in floating(measure(output) if measure is not None else output)]
        for output in (called(module, batch) for batch in batches)
    ]


def _loss(clean: Outputs, noisy: Outputs) -> float:
    """The mean relative squared error of outputs; 1 where they are no numbers any more."""
    losses: list[float] = []
    for before, after in zip(clean, noisy, strict=True):
        for one, other in zip(before, after, strict=True):
            energy = float(one.square().sum())
            if energy:
                loss = float((other - one).square().sum()) / energy
                losses.append(min(loss, 1.0) if math.isfinite(loss) else 1.0)
    return sum(losses) / max(len(losses), 1)


def _beside_sizes(found: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, float]:
    """Scale what was measured so that its geometric mean is that of what sizes say, of which a share is the least."""
    said = {name: sensitivity_by_size(size) for name, size in sizes.items()}
    greatest = max(found.values(), default=0.0)
    felt = [name for name, value in found.items() if value > _UNFELT * greatest]
    if not felt:
        return {}
    scale = math.exp(sum(math.log(said[name] / found[name]) for name in felt) / len(felt))
    return {name: max(scale * value, _LEAST_SHARE * said[name]) for name, value in found.items()}
