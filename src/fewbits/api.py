"""The doors: compress, decompress, save, load, open. Checks, files and the budget live here, once."""

import io
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fewbits.archive import Archive, read_latents, read_tensors
from fewbits.budget import Trial, parse_size
from fewbits.calibration import Calibration, has_curvatures, is_worth_curvatures, known
from fewbits.container.atomic import check_target, write_atomic
from fewbits.container.format import TensorEntry
from fewbits.container.inspect import info, verify
from fewbits.container.writer import file_bytes
from fewbits.encode import executor_for
from fewbits.errors import InvalidArgument
from fewbits.job import Evaluation, Job
from fewbits.method import Curvature, Method, Source
from fewbits.methods.blockwise import Blockwise
from fewbits.methods.ecsq import Ecsq
from fewbits.methods.sic import Sic
from fewbits.native import check_environment, release_memory
from fewbits.nn.attach import attach, attached_of
from fewbits.nn.inputs import MANY, SOME
from fewbits.nn.outputs import Loss, Measure
from fewbits.outcome import report_of
from fewbits.progress import Progress
from fewbits.receive import attach_again, check_keys, load_with_factors
from fewbits.registry import method_class
from fewbits.report import Report
from fewbits.sources import Checkpoint, SourceLike, entries_of, read_checkpoint
from fewbits.tuned import check_tuned, tuned

UNTRAINED = ("ecsq", "qswd", "sic")  # methods that need no training loop, by their ids

__all__ = ["attach", "compress", "decompress", "info", "load", "open", "parse_size", "save", "verify"]


def compress(
    source: SourceLike,
    path: str | os.PathLike[str],
    *,
    budget: int | str | None = None,
    bits: float | None = None,
    lossless: bool = False,
    max_error: float | None = None,
    evaluate: Callable[[Any], float] | None = None,
    tolerance: float = 0.005,
    method: Method | str | None = None,
    workers: int | Executor | None = None,
    seed: int = 0,
    bare: bool = False,
    statistics: Mapping[str, float | Tensor | Curvature] | None = None,
    inputs: Iterable[Any] | str | None = "auto",
    measure: Measure = None,
    tune: int = 0,
    loss: Loss | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write a checkpoint as a `.fewbits` file, and say what it cost.

    Give one of budget, bits, lossless, max_error and evaluate.

    Args:
        source: a state dict, a module, a .safetensors file, a folder with its index, or a .pt file (read with
            weights_only=True). Not modified.
        path: the file to write, whole or not at all.
        budget: bytes of the whole file at most, or text such as "8.6MB" (10^6).
        bits: payload bits a lossily coded weight at most.
        lossless: keep every bit.
        max_error: the smallest file in which no tensor's relative error ‖W − Ŵ‖ / ‖W‖ is above this.
        evaluate: the smallest file with which this score, the greater the better, is at most `tolerance` below the
            source's. It is called some ten times: on a copy of a module, or else on a state dict, as the file would
            be read.
        tolerance: of evaluate, in the score's own units.
        method: how weights are made cheap: "ecsq", "sic", "qswd", or a method with its own config; by default "sic"
            where there are curvatures, batches of inputs, or synthetic ones of tokens, else "ecsq".
        workers: threads, by default one a processor, or an executor of your own; the file does not depend on it.
            Without the compiled core they are processes, by default one; these start fresh interpreters, so that a
            script that asks for more needs its `if __name__ == "__main__"` guard.
        seed: of everything random; stored in the file.
        bare: write the bare profile: no names, shapes or records; loading needs the module.
        statistics: by tensor name, the loss added per unit of relative squared error, where it is known: a number, or
            a tensor (R,), one for each row, of its squared error relative to the whole tensor's energy; for a method
            that takes them, the covariance of a layer's inputs, (n, n) (`fewbits.input_covariances`), or what
            `fewbits.curvatures` says.
        inputs: batches that the source, a module, is tried with, each a tensor, a tuple of arguments or a mapping of
            keyword arguments; or "synthetic". What errors cost is measured (`fewbits.curvatures`, or for a method that
            takes none `fewbits.sensitivities`), where statistics do not say it. "auto": "synthetic", where the source
            is a module that takes such, something may be lost, and no statistics are given. None: nothing is tried.
        measure: what of the module's output matters, with inputs: a function of it, or "probabilities"; by default all
            of it, or of a language model or classifier with `logits` the probabilities.
        tune: with `sic` and a budget or bits, steps of training of levels against the module's own outputs, a batch
            each: for small networks, at few bits. Inputs are then held, eight batches at least. It is kept where it
            makes outputs better.
        loss: with `tune`, what is trained for instead: a function of the module's output and the batch, or the target
            of a batch that is `fewbits.Labelled`; it gives the loss, () floating point.
        metadata: text to keep in the file, beside what the source has of its own.
        progress: called with a stage and how many of how many units are done.

    Raises:
        InvalidArgument: the source or the target is not usable, or the budget cannot be met.
        OSError: the system failed to write.
    """
    start = time.monotonic()
    check_environment()
    _check_one_target(budget, bits, lossless, max_error, evaluate, tolerance)
    is_automatic = isinstance(inputs, str) and inputs == "auto"
    if is_automatic:
        inputs = "synthetic" if isinstance(source, nn.Module) and not lossless and statistics is None else None
    lossy = _method_of(method, lossless, is_worth_curvatures(source, inputs, statistics))
    if not isinstance(seed, int) or not 0 <= seed < 1 << 64:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"the seed must be a whole number from 0 to 2^64 - 1, not {seed!r}.")
    check_target(path)
    checkpoint = read_checkpoint(source)
    if metadata:
        checkpoint = replace(checkpoint, metadata={**(checkpoint.metadata or {}), **metadata})
    if bare:
        checkpoint = _without_copies(checkpoint)
    if loss is not None and not tune:
        raise InvalidArgument("loss= is what tune= trains for: say how many steps.")
    if tune:
        if budget is None and bits is None:
            raise InvalidArgument("tune= goes with budget= or bits=: training keeps to a size.")
        inputs = check_tuned(tune, lossy, inputs)
    calibration: Calibration | None = None
    notes, aside = list[str](), ""
    if inputs is not None:
        tried, amount = None if lossless else lossy, MANY if tune else SOME
        try:
            calibration = Calibration.on(checkpoint, inputs, measure, tried, seed, progress, amount)
            statistics = calibration.statistics | dict(statistics or {})
        except InvalidArgument as error:
            if not is_automatic or measure is not None or tune or method == Sic.id or isinstance(method, Sic):
                raise
            aside = f"the module was tried on no inputs: {error}"
            lossy = _method_of(method, lossless, calibrated=False)
        else:
            aside = calibration.said()
    elif measure is not None:
        raise InvalidArgument("measure= says what matters of outputs, and there are no inputs=.")
    elif lossy.id == Sic.id and not has_curvatures(statistics):
        raise InvalidArgument("'sic' must know what errors cost: give inputs=, or curvatures as statistics=.")
    given = Source(checkpoint.stored, checkpoint.module, known(statistics or {}, checkpoint, lossy))
    with executor_for(workers) as executor:
        job = Job(checkpoint, given, lossy, seed, bare, executor, progress)
        target = parse_size(budget) if budget is not None else bits
        if tune and target is not None and calibration is not None:
            batches = inputs if calibration.made is None else calibration.made.batches
            trial, note = tuned(
                job, calibration, list(batches or ()), tune, target, per_weight=budget is None, loss=loss
            )
            notes.append(note)
        elif budget is not None:
            trial = job.within(parse_size(budget), per_weight=False)
        elif bits is not None:
            trial = job.within(bits, per_weight=True)
        elif max_error is not None:
            trial = job.tolerated(job.worst_error, max_error)
        elif evaluate is not None:
            evaluation = Evaluation(job, evaluate)
            trial = job.tolerated(evaluation.loss, tolerance)
            notes.append(evaluation.note(trial.size))
        else:
            trial = Trial(0.0, 0.0, job.encoded(Blockwise(), None))
    encoded, rate_weight = trial.result, trial.rate_weight or None
    # Before the file is written: whatever a stranger's module says of its copy, nothing is left behind.
    if calibration is not None:
        release_memory()
        expected = calibration.expected(encoded.some_tensors(checkpoint.entries))
        del job, given, statistics  # and with them curvatures, which may be as large as the module
        release_memory()
        if loss is None and (note := calibration.note(encoded.tensors(checkpoint.entries), expected)):
            notes.append(note)
    if is_automatic and aside:
        notes.append(aside)
    size = write_atomic(path, [encoded.data])
    seconds = time.monotonic() - start
    report = report_of(os.fspath(path), size, checkpoint, encoded.chunks, rate_weight, seconds)
    return replace(report, notes=tuple(notes))


def _method_of(method: Method | str | None, lossless: bool, calibrated: bool) -> Method:
    """The method that a call of `compress` asks for.

    Raises:
        InvalidArgument: there is no such method that takes a checkpoint as it is, or nothing may be lost.
    """
    if method is None:
        return Sic() if calibrated and not lossless else Ecsq()
    if lossless:
        raise InvalidArgument("lossless=True keeps every bit, whatever the method: leave method= out.")
    if isinstance(method, Method):
        return method
    if method not in UNTRAINED:
        raise InvalidArgument(f"method must be one of {', '.join(UNTRAINED)} or a method object, not {method!r}.")
    return method_class(method)()


def _check_one_target(
    budget: int | str | None,
    bits: float | None,
    lossless: bool,
    max_error: float | None,
    evaluate: Callable[[Any], float] | None,
    tolerance: float,
) -> None:
    """Check how small a file is asked for.

    Raises:
        InvalidArgument: none, or more than one, of the five is given, or a number is out of range.
    """
    given = [budget is not None, bits is not None, bool(lossless), max_error is not None, evaluate is not None]
    if sum(given) != 1:
        raise InvalidArgument("say how small: give one of budget=, bits=, lossless=True, max_error= and evaluate=.")
    if budget is not None:
        parse_size(budget)
    for name, value in (("bits", bits), ("max_error", max_error)):
        if value is not None and (not isinstance(value, int | float) or not 0 < value < math.inf):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{name} must be a finite number above 0, not {value!r}.")
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"tolerance must be a finite number of at least 0, not {tolerance!r}.")


def _without_copies(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with equal copies stored apart: the bare profile knows ties only."""
    entries = entries_of(checkpoint.tensors, copies=False)
    return Checkpoint(checkpoint.tensors, entries, checkpoint.metadata, checkpoint.num_bytes, checkpoint.module)


def save(module: nn.Module, path: str | os.PathLike[str], *, bare: bool = False, keep_units: bool = False) -> Report:
    """Write a module whose training was attached to a method (`attach`), its latents as they are now.

    Args:
        bare: leave out names, shapes and records; loading needs the module.
        keep_units: write hidden units in the module's own order. Else they are written in an order that codes shorter,
            dead ones emptied: the loaded module computes the same, to float tolerance, with its units permuted.

    Raises:
        InvalidArgument: nothing is attached to the module, or the target is not usable.
        OSError: the system failed to write.
    """
    start = time.monotonic()
    check_target(path)
    attached = attached_of(module)
    if attached is None:
        raise InvalidArgument("nothing is attached to this module; use compress, or attach a method first.")
    tensors, chunks = attached.finished(keep_units=keep_units)
    entries = entries_of(tensors, copies=False)
    num_bytes = sum(entry.spec.num_bytes for entry in entries if entry.target is None)
    checkpoint = Checkpoint(tensors, entries, None, num_bytes, module)
    rate_weight = attached.control.rate_weight
    data = file_bytes(
        chunks=chunks, tensors=entries, seed=chunks[0].seed, rate_weight=rate_weight, metadata=None, bare=bare
    )
    size = write_atomic(path, [data])
    return report_of(os.fspath(path), size, checkpoint, chunks, rate_weight, time.monotonic() - start)


def load(
    path: str | os.PathLike[str],
    *,
    into: nn.Module | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    limit: int | None = None,
    keep_latents: bool = False,
    keep_factors: bool = False,
    rate_weight: float | None = None,
    budget: int | None = None,
    num_steps: int | None = None,
    warm_up: int = 0,
) -> Any:
    """Decode a file: return its state dict, or `into` with its tensors filled.

    Args:
        path: the file; damage is refused.
        into: the module to fill, in place; it keeps its own dtypes and devices. Left untouched on any error.
        device: where the returned tensors go; with `into`, where the module goes.
        dtype: what floating point tensors are converted to; likewise.
        limit: bytes that all decoded tensors may take; by default 2^30, or 1024 times the file's size if that is more.
        keep_latents: attach the file's latents to `into`, and return what `attach` returns: training goes on through
            the stored decoders, and saving it untouched gives the same bytes.
        keep_factors: of `qswd`, leave weights as factors: with `into`, its Linear, Conv2d and Embedding layers are
            replaced, in place, by ones that compute from factors (`fewbits.nn.factored`); without, their values in the
            state dict are `Factored`. Parts that hold a shared weight are decoded as always.
        rate_weight, budget, num_steps, warm_up: as for `attach`, with keep_latents; the rate weight by default the one
            that the file records, or else 0, or with a budget what `attach` starts from.

    Raises:
        Corrupt, Truncated, Incompatible, TooLarge: as the file is.
        InvalidArgument: the path cannot be read, `into` has other names or shapes, or there are no latents to keep.
    """
    check_environment()
    if keep_latents:
        if into is None:
            raise InvalidArgument("keep_latents needs into=, the module that the latents are attached to.")
        latents = read_latents(path, into, limit=limit)
        load(path, into=into, device=device, dtype=dtype, limit=limit)
        return attach_again(into, latents, rate_weight, budget, num_steps, warm_up)
    if keep_factors:
        return load_with_factors(path, into, device, dtype, limit)
    tensors = read_tensors(path, into=into, limit=limit)
    if into is not None:
        check_keys(into, tensors)
        into.load_state_dict(tensors, strict=True)
        return into.to(device=device, dtype=dtype) if device is not None or dtype is not None else into
    moved: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in moved:  # ties stay ties
            floating = tensor.dtype.is_floating_point
            moved[id(tensor)] = tensor.to(device=device, dtype=dtype if floating else None)
    return {name: moved[id(tensor)] for name, tensor in tensors.items()}


def open(path: str | os.PathLike[str], *, limit: int | None = None) -> Archive:
    """Open a file to read tensors one by one; each is read, checked and decoded alone when asked for.

    >>> with fewbits.open("model.fewbits") as file:  # doctest: +SKIP
    ...     file["encoder.weight"]

    Raises:
        Corrupt, Truncated, Incompatible, TooLarge, InvalidArgument: as for `load`.
    """
    check_environment()
    return Archive(path, limit=limit)


def decompress(path: str | os.PathLike[str], out: str | os.PathLike[str], *, limit: int | None = None) -> None:
    """Decode a file to a .safetensors or a .pt file, with the source's metadata.

    Ties are kept in a .pt file; safetensors has none, so each name gets a copy.

    Raises:
        InvalidArgument: `out` ends otherwise, is not writable, or safetensors cannot hold a dtype.
        Corrupt, Truncated, Incompatible, TooLarge: as for `load`.
        OSError: the system failed to write.
    """
    suffix = os.path.splitext(os.fspath(out))[1]
    if suffix not in (".safetensors", ".pt"):
        raise InvalidArgument(f"{os.fspath(out)!r} must end in .safetensors or .pt.")
    check_target(out)
    with open(path, limit=limit) as archive:
        entries, metadata = archive.entries, archive.metadata
        if suffix == ".safetensors":
            _check_safetensors(entries)
        tensors = archive.read_all()
    if suffix == ".safetensors":
        seen: set[int] = set()
        apart: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            apart[name] = tensor.clone() if id(tensor) in seen else tensor
            seen.add(id(tensor))
        write_atomic(out, [safetensors.torch.save(apart, dict(metadata) if metadata else None)])
    else:
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        write_atomic(out, [buffer.getvalue()])


def _check_safetensors(entries: tuple[TensorEntry, ...]) -> None:
    """Check that safetensors can hold all dtypes.

    Raises:
        InvalidArgument: it cannot; the tensor is named.
    """
    refused: set[str] = set()
    for dtype in {entry.spec.dtype for entry in entries}:
        try:
            safetensors.torch.save({"x": torch.empty(0, dtype=getattr(torch, dtype))})
        except (KeyError, ValueError, TypeError, RuntimeError, safetensors.SafetensorError):
            refused.add(dtype)
    for entry in entries:
        if entry.spec.dtype in refused:
            what = f"tensor {entry.spec.name!r} has the dtype {entry.spec.dtype}"
            raise InvalidArgument(f"{what}, which safetensors cannot hold; write a .pt file.")
