"""`compress(…, tune=)`: calibrated files whose levels are trained on inputs, kept where outputs are better for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewbits.budget import Trial
from fewbits.calibration import Calibration
from fewbits.chunk import Chunk
from fewbits.encode import decode
from fewbits.errors import InvalidArgument
from fewbits.job import Encoded, Job
from fewbits.method import Method
from fewbits.methods.sic import Sic
from fewbits.methods.sic.latents import MatrixLatents
from fewbits.methods.sic.payload import written_of
from fewbits.nn.inputs import evaluating
from fewbits.nn.outputs import Loss, own_tensors
from fewbits.nn.tuning import Task, tune

LEAST_BATCHES = 8
_HELD_OUT = 8  # one batch of so many is not trained on, but compared on
_ROOM = 0.995  # of the target that levels begin at: training moves their bits by some tenths of a per cent
_SHARE = 0.75  # of what a bit is worth: levels that are settled already move less


def check_tuned(steps: int, method: Method, inputs: Iterable[Any] | str | None) -> list[Any] | str:
    """Check, before anything is tried, that levels can be trained; return the inputs, held.

    Raises:
        InvalidArgument: there is no number of steps, the method is another one, or inputs are missing or too few.
    """
    if not isinstance(steps, int) or steps < 1 or isinstance(steps, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"tune must be a number of steps, not {steps!r}.")
    if inputs is None:
        raise InvalidArgument("tune= needs a module, and inputs= to train its levels on.")
    if not isinstance(method, Sic):
        raise InvalidArgument(f"tune= trains the levels of 'sic', not of {method.id!r}.")
    if isinstance(inputs, str):
        return inputs
    batches = list(inputs)
    if len(batches) < LEAST_BATCHES:
        raise InvalidArgument(f"tune= takes at least {LEAST_BATCHES} batches of inputs, not {len(batches)}.")
    return batches


def tuned(
    job: Job,
    calibration: Calibration,
    batches: Sequence[Any],
    steps: int,
    target: float,
    *,
    per_weight: bool,
    loss: Loss | None = None,
) -> tuple[Trial[Encoded], str]:
    """Return the better of two files of at most a target, as `Job.within`: with trained levels, or as `sic` makes it.

    Returns:
        The file, and what a report says of it.

    Raises:
        InvalidArgument: levels cannot be trained.
    """
    method = job.method
    assert isinstance(method, Sic)
    plain = job.within(target, per_weight=per_weight)
    scalar = Sic(replace(method.settings, trellis=False))
    start = job._replace(method=scalar).within(_ROOM * target, per_weight=per_weight)
    own = [chunk for chunk in start.result.chunks if chunk.method == Sic.id]
    if not own:
        return plain, "no tensor has levels to train"
    others = [chunk for chunk in start.result.chunks if chunk.method != Sic.id]
    device = {name: value.device for name, value in own_tensors(calibration.module).items()}
    fixed = {name: value.to(device[name]) for name, value in decode(others).items() if name in device}
    task = Task(calibration.module, batches[_HELD_OUT - 1 :: _HELD_OUT], calibration.measure, fixed, loss)
    latents = {id(chunk): _latents(chunk, job.checkpoint.stored, device) for chunk in own}
    by_name: dict[str, list[MatrixLatents]] = {}
    for parts in latents.values():
        for part in parts:
            by_name.setdefault(part.spec.name, []).append(part)
    for parts in by_name.values():
        parts.sort(key=lambda part: part.span or (0, 0))
    training = task._replace(batches=[batch for i, batch in enumerate(batches) if i % _HELD_OUT != _HELD_OUT - 1])
    slope = _SHARE * start.rate_weight / job.source.rate_divisor
    tune(training, by_name, slope=slope, steps=steps, seed=job.seed, progress=job.progress)
    chunks: list[Chunk] = []
    for chunk in start.result.chunks:
        found = [part.finished() for part in latents.get(id(chunk), ())]
        whole = [each for each in found if each is not None]
        if len(whole) < len(found):
            return plain, "trained levels were beyond a tensor's dtype"
        chunks.append(scalar.chunk_of(list(chunk.tensors), whole, chunk.seed, chunk.span) if found else chunk)
    result = job.file_of(chunks, start.rate_weight)
    size = job.size_of(result, per_weight=per_weight)
    before, after = _error(task, plain.result), _error(task, result)
    what = "the relative squared error of outputs is" if loss is None else "the loss is"
    said = f"levels were trained for {steps} steps: {what} {after:.3g} on other batches"
    if size > target or not after <= before:
        why = "the file was too large" if size > target else "which is no gain"
        return plain, f"{said}, {before:.3g} without; {why}: they are not kept"
    return Trial(start.rate_weight, size, result), f"{said}, {before:.3g} without"


def _latents(chunk: Chunk, tensors: Mapping[str, Tensor], device: Mapping[str, torch.device]) -> list[MatrixLatents]:
    parts: list[MatrixLatents] = []
    for spec, written in zip(chunk.tensors, written_of(chunk), strict=True):
        weights = tensors[spec.name].detach().reshape(-1)[slice(*(chunk.span or (0, spec.num_elements)))]
        parts.append(MatrixLatents(spec, chunk.span, written, weights.to(device[spec.name])))
    return parts


@torch.no_grad()
def _error(task: Task, encoded: Encoded) -> float:
    """The error or loss of outputs with a file's tensors, the mean over batches."""
    own = own_tensors(task.module)
    values = {name: value.to(own[name]) for name, value in decode(encoded.chunks).items() if name in own}
    with evaluating(task.module):
        errors = [float(task.cost(values, batch)) for batch in task.batches]
    return sum(errors) / len(errors)
