"""What errors of tensors cost, measured on inputs or said by the caller, as methods take it."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewbits.chunk import TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.method import Curvature, Method
from fewbits.native import release_memory
from fewbits.nn.curvatures import curvatures, synthetic_curvatures
from fewbits.nn.inputs import SOME, Amount, Synthetic, check_named, evaluating, reads_tokens, synthetic_inputs
from fewbits.nn.outputs import Measure, error_of, full, measure_on, own_tensors
from fewbits.nn.sensitivities import sensitivities
from fewbits.progress import Progress
from fewbits.sources import Checkpoint
from fewbits.tensors import spec_of

_KEPT = 4  # batches that outputs are compared on
_ALARM = 2.0  # times the error that is expected
_MOST_COUPLED = 1.001  # sum of squares of a row's couplings, rounded
_EXPECTED = 0.5  # greatest error that curvatures are said to foretell

Statistics = dict[str, float | Tensor | Curvature]


@dataclass
class Calibration:
    """What was found out by trying a module on inputs.

    statistics: by tensor name, as `compress` takes them. kept: the first batches. made: all, where nobody gave any.
    """

    module: nn.Module
    measure: Measure
    statistics: Statistics = field(default_factory=Statistics)
    kept: list[Any] = field(default_factory=list[Any])
    made: Synthetic | None = None

    @classmethod
    def on(
        cls,
        checkpoint: Checkpoint,
        inputs: Iterable[Any] | str,
        measure: Measure,
        method: Method | None,
        seed: int,
        progress: Progress | None,
        amount: Amount = SOME,
    ) -> "Calibration":
        """Try a checkpoint's module on inputs, or an amount of synthetic ones, for a method; None loses nothing.

        Raises:
            InvalidArgument: there is no module, or nothing may be lost; or as `curvatures` or, for a method that takes
                none, `sensitivities`.
        """
        if method is None:
            raise InvalidArgument("lossless=True keeps every bit, whatever comes in: leave inputs= out.")
        module = checkpoint.module
        if module is None:
            raise InvalidArgument("inputs= are for a module, and the source is none.")
        check_named(inputs)
        if not method.takes_curvatures:
            if isinstance(measure, str):
                raise InvalidArgument(f"{method.id!r} takes no curvatures: measure= must be a function for it.")
            found = sensitivities(module, inputs, measure=measure, seed=seed, progress=progress)
            return cls(module, measure, _stored(found, checkpoint))
        if isinstance(inputs, str):
            made = synthetic_inputs(module, seed, amount, progress)
            costs = synthetic_curvatures(module, made, measure=measure, seed=seed, progress=progress)
            release_memory()
            return cls(module, measure_on(made, measure), _stored(costs, checkpoint), made.batches[:_KEPT], made)
        kept: list[Any] = []
        costs = curvatures(module, _Kept(inputs, kept), measure=measure, seed=seed, progress=progress)
        release_memory()
        return cls(module, measure, _stored(costs, checkpoint), kept)

    def expected(self, tensors: Iterable[Mapping[str, Tensor]]) -> float | None:
        """Return the error of outputs that curvatures foretell, if there are any; they are let go.

        Args:
            tensors: by name, as a file's reader gets them, some at a time.
        """
        own, total = dict(self.module.named_parameters()), None
        if has_curvatures(self.statistics):
            total = sum(_expected(own, some, self.statistics) for some in tensors)
        self.statistics.clear()
        return total

    def said(self) -> str:
        """Return what a report says of inputs that nobody asked for."""
        if self.made is not None and self.made.are_sampled:
            return "what errors cost is known from text that the module made itself: with inputs= it may be better"
        return "what errors cost is known from random inputs: with inputs= of the module's own it would be better"

    def note(self, tensors: Mapping[str, Tensor], expected: float | None) -> str | None:
        """Return what a report says of these tensors: the error of outputs that is expected, and that there is."""
        if not self.kept or expected is None:
            return None
        found = self._loss(tensors)
        note = f"relative squared error of outputs: {expected:.3g} expected, {found:.3g} on the first inputs"
        if found > _ALARM * expected and expected < _EXPECTED:
            note += "; that is more than it should be: more inputs, or such as the module is used on, may help"
        return note

    def _loss(self, tensors: Mapping[str, Tensor]) -> float:
        """The relative squared error of outputs, the mean over what was kept."""
        own = own_tensors(self.module)
        values = {name: value.to(own[name]) for name, value in tensors.items() if name in own}
        with evaluating(self.module):
            losses = [float(error_of(self.module, values, batch, self.measure)) for batch in self.kept]
        return sum(losses) / len(losses)


def _stored(costs: Mapping[str, float | Tensor | Curvature], checkpoint: Checkpoint) -> Statistics:
    """Those of what a checkpoint has: a module's state may be another one than its parameters."""
    return {name: value for name, value in costs.items() if name in checkpoint.tensors}


class _Kept(Iterable[Any]):
    """Batches of which the first are kept; as long as they are."""

    def __init__(self, batches: Iterable[Any], kept: list[Any]) -> None:
        self._batches, self._kept = batches, kept

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._batches)
        for batch in itertools.islice(batches, _KEPT):
            self._kept.append(batch)
            yield batch
        yield from batches

    def __length_hint__(self) -> int:
        return len(self._batches) if hasattr(self._batches, "__len__") else 0  # pyright: ignore


def _expected(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], statistics: Statistics) -> float:
    """The cost of these tensors' errors together, beside a module's own, as far as it is known."""
    total = 0.0
    for name, tensor in tensors.items():
        value = statistics.get(name)
        if value is None or isinstance(value, Tensor) or name not in own:
            continue
        before, after = own[name].detach().cpu(), tensor.detach().cpu()
        if isinstance(value, Curvature):
            total += value.cost(before, after)
        else:
            energy = float(torch.linalg.vector_norm(full(before))) ** 2
            error = float(torch.linalg.vector_norm(full(after).sub(before)))
            total += value * error**2 / energy if energy else 0.0
    return total


def is_worth_curvatures(source: Any, inputs: Iterable[Any] | str | None, statistics: Mapping[str, Any] | None) -> bool:
    """Tell whether what errors cost is known, or found out, well enough to move them by it.

    Random tokens are read much as others are. Noise in place of images is not: what a convolution reads of it has other
    directions, and errors moved out of them hurt (docs/methods/sic.md).
    """
    if has_curvatures(statistics):
        return True
    if isinstance(inputs, str):
        return isinstance(source, nn.Module) and reads_tokens(source)
    return inputs is not None


def has_curvatures(statistics: Mapping[str, Any] | None) -> bool:
    """Tell whether one of the statistics is a curvature."""
    return any(isinstance(value, Curvature) for value in (statistics or {}).values())


def known(
    statistics: Mapping[str, float | Tensor | Curvature], checkpoint: Checkpoint, method: Method
) -> dict[str, Any]:
    """Return statistics as workers take them, covariances as arrays.

    Raises:
        InvalidArgument: a name is not the source's, sensitivities are not those of its rows, or the method has no use
            for a covariance or curvature.
    """
    unknown = sorted(set(statistics) - set(checkpoint.tensors))
    if unknown:
        raise InvalidArgument(f"statistics are given for {unknown[0]!r}, which the source does not have.")
    for name, value in statistics.items():
        spec = spec_of(name, checkpoint.tensors[name])
        rows = spec.num_rows
        if isinstance(value, Curvature):
            _check_curvature(value, spec, method)
        elif isinstance(value, Tensor) and value.ndim == 1 and not _are_of_rows(value, rows):
            raise InvalidArgument(f"sensitivities of the rows of {name!r} must be {rows} finite numbers above 0.")
    matrices = sorted(name for name, value in statistics.items() if isinstance(value, Tensor) and value.ndim != 1)
    if matrices and not method.takes_covariances:
        raise InvalidArgument(f"a covariance is given for {matrices[0]!r}, which {method.id!r} has no use for.")
    return {name: _as_sent(value, method) for name, value in statistics.items()}


def _are_of_rows(sensitivities: Tensor, rows: int) -> bool:
    return sensitivities.shape == (rows,) and bool((sensitivities > 0).all() and sensitivities.isfinite().all())


def _check_curvature(value: Curvature, spec: TensorSpec, method: Method) -> None:
    """Check that a curvature is one of a tensor, and of use.

    Raises:
        InvalidArgument: it is not.
    """
    if not method.takes_curvatures:
        raise InvalidArgument(f"a curvature is given for {spec.name!r}, which {method.id!r} has no use for.")
    rows, columns = spec.num_rows, spec.num_elements // max(1, spec.num_rows)
    fits = value.inputs.shape == (columns, columns) and value.outputs.shape == (rows,)
    if not fits or not np.isfinite(value.inputs).all() or not np.isfinite(value.outputs).all():
        raise InvalidArgument(f"a curvature of {spec.name!r} must be finite, of {columns} columns and {rows} rows.")
    if value.couplings is not None:
        fits = value.couplings.ndim == 2 and len(value.couplings) == rows
        if not fits or not (np.square(value.couplings, dtype=np.float64).sum(1) < _MOST_COUPLED).all():
            raise InvalidArgument(f"couplings of {spec.name!r} must be of {rows} rows, squares adding up to 1 at most.")
    if not (np.diag(value.inputs) > 0).all() or not (value.outputs > 0).all():
        raise InvalidArgument(f"a curvature of {spec.name!r} must be above 0 for each column and row.")


def _as_sent(value: float | Tensor | Curvature, method: Method) -> float | NDArray[np.float64] | Curvature:
    """A statistic for workers, which may be processes: sending a tensor to one would move the caller's memory."""
    if not isinstance(value, Tensor):
        return value
    array = value.detach().cpu().double().numpy().copy()
    return array if array.ndim != 1 or method.takes_row_sensitivities else float(array.mean())
