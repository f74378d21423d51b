"""What one call of `compress` encodes, maybe several times: to a size, to a rate, or as far as a loss allows."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewbits.budget import COARSEST, Trial, meet, rate_at, tolerate
from fewbits.chunk import Chunk
from fewbits.container.format import TensorEntry
from fewbits.container.writer import file_bytes
from fewbits.encode import decode, encode, survey
from fewbits.errors import InvalidArgument
from fewbits.method import Method, Source
from fewbits.methods.blockwise import Blockwise
from fewbits.outcome import lossy_rate, report_of
from fewbits.progress import Progress
from fewbits.sources import Checkpoint

_FIRST_BITS = 3.0  # a weight: where a search for a loss begins


class Encoded(NamedTuple):
    """A source's chunks, and the file they make."""

    chunks: list[Chunk]
    data: bytes

    def tensors(self, entries: Sequence[TensorEntry]) -> dict[str, Tensor]:
        """Return the tensors that a file's reader gets, by all their names."""
        return _named(decode(self.chunks), _names(entries))

    def some_tensors(self, entries: Sequence[TensorEntry]) -> Iterator[dict[str, Tensor]]:
        """Give the same, those of a part or of a tensor's tiles at a time: all of them may be as large as a model."""
        names, together = _names(entries), dict[str, list[Chunk]]()
        for chunk in self.chunks:
            together.setdefault(chunk.tensors[0].name, []).append(chunk)
        for chunks in together.values():
            yield _named(decode(chunks), names)


class Job(NamedTuple):
    """What one call of `compress` encodes, maybe several times, and how."""

    checkpoint: Checkpoint
    source: Source
    method: Method  # where something may be lost
    seed: int
    bare: bool
    executor: Executor | None
    progress: Progress | None

    def encoded(self, method: Method, rate_weight: float | None) -> Encoded:
        """Encode at a rate weight (None where it has no effect), and put the file together."""
        chunks = encode(
            method,
            self.source,
            rate_weight=rate_weight or 0.0,
            seed=self.seed,
            executor=self.executor,
            progress=self.progress,
        )
        return self.file_of(chunks, rate_weight)

    def file_of(self, chunks: list[Chunk], rate_weight: float | None) -> Encoded:
        """Put a file together."""
        data = file_bytes(
            chunks=chunks,
            tensors=self.checkpoint.entries,
            seed=self.seed,
            rate_weight=rate_weight,
            metadata=None if self.bare else self.checkpoint.metadata,
            bare=self.bare,
        )
        return Encoded(chunks, data)

    def size_of(self, encoded: Encoded, *, per_weight: bool) -> float:
        """Return the bytes of a file or, with `per_weight`, payload bits a lossily coded weight."""
        return lossy_rate(encoded.chunks) if per_weight else len(encoded.data)

    def within(self, target: float, *, per_weight: bool) -> Trial[Encoded]:
        """Find the best file of at most `target` bytes or, with `per_weight`, payload bits a lossily coded weight."""
        method = self.method
        surveys = survey(method, self.source, self.executor, self.progress)

        def expected(rate_weight: float) -> float:
            return sum(each.bits(rate_weight) for each in surveys)

        def measured(rate_weight: float) -> tuple[float, Encoded]:
            encoded = self.encoded(method, rate_weight)
            return self.size_of(encoded, per_weight=per_weight), encoded

        if not per_weight:
            return meet(target, lambda rate: expected(rate) / 8, measured)
        exact = expected(COARSEST)  # of what is kept exactly, which a rate does not count
        weights = self.source.rate_divisor
        return meet(target, lambda rate: (expected(rate) - exact) / weights, measured, "bits a weight")

    def tolerated(self, loss_of: Callable[[Encoded], float], most: float) -> Trial[Encoded]:
        """Find the smallest file whose loss is at most that; where no lossy one is, the one that loses nothing."""
        surveys = survey(self.method, self.source, self.executor, self.progress)
        exact, weights = sum(each.bits(COARSEST) for each in surveys), self.source.rate_divisor

        def measured(rate_weight: float) -> tuple[float, Encoded]:
            encoded = self.encoded(self.method, rate_weight)
            return loss_of(encoded), encoded

        first = rate_at(_FIRST_BITS, lambda rate: (sum(each.bits(rate) for each in surveys) - exact) / weights)
        found = tolerate(most, measured, first)
        return found if found is not None else Trial(0.0, 0.0, self.encoded(Blockwise(), None))

    def worst_error(self, encoded: Encoded) -> float:
        """Return the greatest relative error of a tensor."""
        return report_of("", 0, self.checkpoint, encoded.chunks, None, 0.0).worst_error


def _names(entries: Sequence[TensorEntry]) -> dict[str, list[str]]:
    """All names of each tensor that is stored."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        stored = entry if entry.target is None else entries[entry.target]
        names.setdefault(stored.spec.name, []).append(entry.spec.name)
    return names


def _named(stored: Mapping[str, Tensor], names: Mapping[str, list[str]]) -> dict[str, Tensor]:
    return {name: tensor for source, tensor in stored.items() for name in names[source]}


class Evaluation:
    """A user's score of a source as a file's reader gets it, beside that of the source itself.

    original: the source's score. num_calls: how often a score was asked for.
    """

    def __init__(self, job: Job, score: Callable[[Any], float]) -> None:
        """Score the source: a copy of it where it is a module, or else its tensors by name.

        Raises:
            InvalidArgument: the score is no finite number.
        """
        self._job, self._score = job, score
        module = job.checkpoint.module
        self._copy = None if module is None else copy.deepcopy(module)
        self.num_calls = 0
        self.original = self._asked(dict(job.checkpoint.tensors) if self._copy is None else self._copy)
        if not math.isfinite(self.original):
            raise InvalidArgument(f"evaluate must return a finite number; of the source it is {self.original}.")

    def loss(self, encoded: Encoded) -> float:
        """Return by how much the score is below the source's; infinite where it is no number."""
        tensors = encoded.tensors(self._job.checkpoint.entries)
        if self._copy is None:
            score = self._asked(tensors)
        else:
            self._copy.load_state_dict(tensors)
            score = self._asked(self._copy)
        return math.inf if math.isnan(score) else self.original - score

    def note(self, loss: float) -> str:
        """Return what a report says of the file with this loss."""
        score = self.original - loss
        return f"the score is {score:.6g}, the source's {self.original:.6g}; it was asked for {self.num_calls} times"

    def _asked(self, what: Any) -> float:
        self.num_calls += 1
        with torch.no_grad():
            score = self._score(what)
        try:
            return float(score)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidArgument(f"evaluate must return a number, not {type(score).__name__}.") from error
