"""`fewbits report`: what a file holds and, beside its original, what it lost. `file_report_page` shows it."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewbits.archive import Archive
from fewbits.budget import rate_at
from fewbits.container.inspect import Info, TensorInfo, info
from fewbits.encode import executor_for, survey
from fewbits.errors import InvalidArgument
from fewbits.job import Job
from fewbits.method import Source
from fewbits.methods.ecsq import Ecsq
from fewbits.outcome import report_of
from fewbits.progress import Progress
from fewbits.sources import Checkpoint, read_checkpoint

BINS = 121  # of a histogram, an odd number: the middle one is around 0
MOST_HISTOGRAMS = 12  # that a page lets one choose from: the tensors asked for, and those with most bytes
CURVE_SHARES = (0.5, 0.7, 1.0, 1.4, 2.0)  # of the file's size, at which the original is compressed anew
_CURVE_OF_LOSSLESS = (1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4)  # of the tensors' size
_REACH = 4.0  # standard deviations of the values that a histogram shows
_PIECE = 1 << 22  # elements that are compared at a time


@dataclass(frozen=True, kw_only=True)
class TensorLine:
    """One tensor: size in bits (an estimate where it shares a payload), error ‖W − Ŵ‖ / ‖W‖ as measured or recorded.

    error_share: of the squared error of all tensors, None without an original.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_elements: int
    method: str
    bits: float
    relative_error: float | None
    error_share: float | None
    note: str


class Histogram(NamedTuple):
    """How many values of a tensor lie in each of BINS equal bins, -reach to reach; before: None without an original."""

    name: str
    reach: float
    before: list[int] | None
    after: list[int]


class CurvePoint(NamedTuple):
    """A file of the original by `ecsq`: its bytes, and its relative error over all."""

    size: int
    relative_error: float


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What there is to say of a file; what takes the original is None or empty without one.

    tensors: the worst first. overall_error: ‖W − Ŵ‖ / ‖W‖ over all floating point tensors.
    """

    path: str
    against: str | None
    info: Info
    source_size: int | None
    overall_error: float | None
    tensors: tuple[TensorLine, ...]
    histograms: tuple[Histogram, ...]
    curve: tuple[CurvePoint, ...]

    @property
    def command(self) -> str | None:
        """The command that makes a file of this size of the original; None for a method that trains."""
        methods = {method.id for method in self.info.methods}
        if not methods <= {"lossless", "ecsq", "qswd", "blockwise"}:
            return None
        is_exact = methods <= {"lossless", "blockwise"} and self.info.rate_weight is None and not self.info.bare
        asked = "--lossless" if is_exact or methods == {"lossless"} else f"--budget {self.info.size}"
        method = " --method qswd" if "qswd" in methods else ""
        return (
            f"fewbits compress {self.against or 'ORIGINAL'} --out {self.path} {asked}{method} --seed {self.info.seed}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as a dict of JSON values; an infinite error becomes None."""
        values: dict[str, Any] = asdict(self) | {"info": self.info.to_json(), "command": self.command}
        values["histograms"] = [each._asdict() for each in self.histograms]
        values["curve"] = [each._asdict() for each in self.curve]
        for tensor in values["tensors"]:
            if tensor["relative_error"] is not None and not math.isfinite(tensor["relative_error"]):
                tensor["relative_error"] = None
        return values


def report_on(
    path: str | os.PathLike[str],
    *,
    against: str | os.PathLike[str] | None = None,
    tensors: Sequence[str] = (),
    progress: Progress | None = None,
) -> FileReport:
    """Read a file and, if given, its original; measure what was lost.

    Args:
        path: of the file, which is not a bare one.
        against: the checkpoint that the file was made from.
        tensors: names of those to draw histograms of, before those with most bytes.
        progress: called with what is being done, and how many of how many parts are done.

    Raises:
        InvalidArgument: the file is bare or has no such tensor, or the original does not have its tensors.
        Corrupt, Incompatible, Truncated, TooLarge: as for `fewbits.open`.
    """
    found = info(path)
    if found.bare:
        raise InvalidArgument("a bare file does not name its tensors: there is nothing to report on.")
    by_name = {tensor.name: tensor for tensor in found.tensors if tensor.alias_of is None}
    for name in tensors:
        if name not in by_name:
            raise InvalidArgument(f"the file has no tensor named {name!r} of its own.")
    original = None if against is None else read_checkpoint(Path(against))
    if original is not None:
        _check_alike(by_name, original)
    drawn = _drawn(by_name, tensors)
    errors: dict[str, tuple[float, float]] = {}
    histograms: dict[str, Histogram] = {}
    with Archive(path) as archive:
        for done, name in enumerate(by_name, 1):
            if original is not None or name in drawn:
                after, before = archive[name], None if original is None else original.tensors[name]
                if before is not None and after.is_floating_point():
                    errors[name] = _squared_error(before, after)
                if name in drawn:
                    histograms[name] = _histogram(name, before, after)
            if progress is not None:
                progress("compare", done, len(by_name))
    total_error, total_energy = (sum(each[i] for each in errors.values()) for i in (0, 1))
    lines = [_line(tensor, errors.get(tensor.name), total_error) for tensor in by_name.values()]
    return FileReport(
        path=os.fspath(path),
        against=None if against is None else os.fspath(against),
        info=found,
        source_size=None if original is None else original.num_bytes,
        overall_error=math.sqrt(total_error / total_energy) if total_energy else (None if original is None else 0.0),
        tensors=tuple(sorted(lines, key=_badness, reverse=True)),
        histograms=tuple(histograms[name] for name in drawn),
        curve=() if original is None else _curve(original, found, progress),
    )


def _badness(line: TensorLine) -> tuple[float, float, float]:
    """By what tensors are sorted: their part of the error where it is known, else their own error; then their bytes."""
    return line.error_share or 0.0, line.relative_error or 0.0, line.bits


def _check_alike(tensors: Mapping[str, TensorInfo], original: Checkpoint) -> None:
    """Check that an original has a file's tensors."""
    specs = {entry.spec.name: entry.spec for entry in original.entries}
    for name, tensor in tensors.items():
        if name not in specs:
            raise InvalidArgument(f"the original has no tensor named {name!r}: the file was made from another.")
        if (specs[name].dtype, specs[name].shape) != (tensor.dtype, tensor.shape):
            raise InvalidArgument(f"tensor {name!r} has another dtype or shape in the original.")


def _drawn(tensors: Mapping[str, TensorInfo], asked: Sequence[str]) -> list[str]:
    """The names of the tensors that have a histogram."""
    floating = [tensor for tensor in tensors.values() if tensor.dtype.startswith(("float", "bfloat")) and _bits(tensor)]
    largest = [tensor.name for tensor in sorted(floating, key=_bits, reverse=True)]
    return list(dict.fromkeys([*asked, *largest]))[: max(MOST_HISTOGRAMS, len(asked))]


def _bits(tensor: TensorInfo) -> float:
    return 8.0 * tensor.size if tensor.size is not None else float(tensor.bits or 0)


def _line(tensor: TensorInfo, error: tuple[float, float] | None, total: float) -> TensorLine:
    relative, share = tensor.relative_error, None
    if error is not None:
        relative = math.sqrt(error[0] / error[1]) if error[1] > 0 else (math.inf if error[0] > 0 else 0.0)
        share = error[0] / total if total > 0 else 0.0
    return TensorLine(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tensor.shape,
        num_elements=math.prod(tensor.shape),
        method=tensor.method or "",
        bits=_bits(tensor),
        relative_error=relative,
        error_share=share,
        note=tensor.note,
    )


def _squared_error(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Squared error and energy of the finite values."""
    error = energy = 0.0
    pieces = zip(before.detach().reshape(-1).split(_PIECE), after.reshape(-1).split(_PIECE), strict=True)
    for one, other in pieces:
        wide = one.double()
        kept = wide.isfinite()
        error += float((other.double() - wide)[kept].square().sum())
        energy += float(wide[kept].square().sum())
    return error, energy


def _histogram(name: str, before: Tensor | None, after: Tensor) -> Histogram:
    shown = [each.detach().reshape(-1).float() for each in (before, after) if each is not None]
    finite = [each[each.isfinite()] for each in shown]
    reach = _REACH * max(float(each.square().mean().sqrt()) if each.numel() else 0.0 for each in finite) or 1.0
    counts = [torch.histc(each, BINS, -reach, reach).long().tolist() for each in finite]
    return Histogram(name, reach, None if before is None else counts[0], counts[-1])


def _curve(original: Checkpoint, found: Info, progress: Progress | None) -> tuple[CurvePoint, ...]:
    """Files of the original by `ecsq` at sizes around the file's own, really encoded."""
    method = Ecsq()
    source = Source(original.stored)
    lossy = any(method.id != "lossless" for method in found.methods)
    sizes = (
        [share * found.size for share in CURVE_SHARES]
        if lossy
        else [share * original.num_bytes for share in _CURVE_OF_LOSSLESS]
    )
    points: list[CurvePoint] = []
    with executor_for(None) as executor:
        surveys = survey(method, source, executor, None)
        job = Job(original, source, method, found.seed, False, executor, None)
        for done, size in enumerate(sizes, 1):
            rate_weight = rate_at(size, lambda rate: sum(each.bits(rate) for each in surveys) / 8)
            encoded = job.encoded(method, rate_weight)
            measured = report_of("", len(encoded.data), original, encoded.chunks, rate_weight, 0.0)
            points.append(CurvePoint(len(encoded.data), measured.overall_error))
            if progress is not None:
                progress("curve", done, len(sizes))
    return tuple(sorted(set(points)))
