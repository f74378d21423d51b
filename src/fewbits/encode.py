"""Tensors to chunks and back, on one worker or many: the loops that every method shares."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.scratch import Scratch
from fewbits.errors import Corrupt, FewbitsError, InvalidArgument
from fewbits.method import Method, Source, Survey
from fewbits.native import core, num_threads, release_memory
from fewbits.progress import Progress
from fewbits.registry import method_class
from fewbits.tensors import bits_of, empty_tensor, from_bits, spec_of

# Elements encoded, after which memory is given back: arrays are of sizes that seldom come again. Not after fewer: pages
# that are used again need not be had anew.
_MANY = 1 << 22

Unit: TypeAlias = list[tuple[TensorSpec, NDArray[np.unsignedinteger]]]

Result = TypeVar("Result")


@contextmanager
def executor_for(workers: int | Executor | None) -> Generator[Executor | None, None, None]:
    """Give the executor to encode on: None for one worker, a pool for more, or the caller's own.

    With the compiled core the pool is of threads, and as many as `native.num_threads` says unless workers are given.
    Without it one worker is the default, and a pool is of processes, which start fresh interpreters: a script that
    asks for it needs its `if __name__ == "__main__"` guard.

    Raises:
        InvalidArgument: workers is below 1.
    """
    if isinstance(workers, Executor):
        yield workers
        return
    compiled = core() is not None
    if workers is None:
        workers = num_threads() if compiled else 1
    if not isinstance(workers, int) or workers < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"workers must be a whole number of at least 1, or an executor, not {workers!r}.")
    if workers == 1:
        yield None
    elif compiled:
        with ThreadPoolExecutor(workers) as pool:
            yield pool
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool


def survey(method: Method, source: Source, executor: Executor | None, progress: Progress | None = None) -> list[Survey]:
    """Survey a source unit by unit."""
    return list(_over_units(_survey_unit, method, source, (), executor, "survey", progress))


def encode(
    method: Method,
    source: Source,
    *,
    rate_weight: float,
    seed: int = 0,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[Chunk]:
    """Encode a source unit by unit; the chunks do not depend on the executor."""
    encoded = _over_units(_encode_unit, method, source, (rate_weight, seed), executor, "encode", progress)
    return [chunk for chunks in encoded for chunk in chunks]


def _over_units(
    work: Callable[..., Result],
    method: Method,
    source: Source,
    arguments: tuple[Any, ...],
    executor: Executor | None,
    stage: str,
    progress: Progress | None,
) -> Iterator[Result]:
    specs = [spec_of(name, tensor) for name, tensor in source.tensors.items()]
    units = method.units(specs)
    statistics, divisor = dict(source.statistics), source.rate_divisor

    def job(unit: Sequence[TensorSpec]) -> tuple[Any, ...]:
        # Tensors travel as arrays of bits: sending a tensor to another process would move the caller's memory.
        bits = [(spec, bits_of(source.tensors[spec.name])) for spec in unit]
        known = {spec.name: statistics[spec.name] for spec in unit if spec.name in statistics}
        return (method.id, method.config.to_json(), bits, known, divisor, *arguments)

    if executor is None:
        results: Iterable[Result] = (work(*job(unit)) for unit in units)
    else:
        # The largest first, so that no worker is left alone with it at the end; results in plan order.
        order = sorted(range(len(units)), key=lambda i: -sum(spec.num_elements for spec in units[i]))
        futures = {i: executor.submit(work, *job(units[i])) for i in order}
        results = (futures[i].result() for i in range(len(units)))
    for done, result in enumerate(results, 1):
        if progress is not None:
            progress(stage, done, len(units))
        yield result


def _source_of(unit: Unit, statistics: Mapping[str, Any], divisor: int) -> Source:
    # from_bits shares memory with the caller's tensor where it can; methods do not write to their source.
    tensors = {spec.name: from_bits(np.asarray(bits), spec.dtype, spec.shape) for spec, bits in unit}
    return Source(tensors, None, statistics, divisor)


def _method_of(id: str, config: Mapping[str, Any]) -> Method:
    return method_class(id).from_config(config)


def _survey_unit(id: str, config: Mapping[str, Any], unit: Unit, statistics: Mapping[str, Any], divisor: int) -> Survey:
    return _method_of(id, config).survey(_source_of(unit, statistics, divisor))


def _encode_unit(
    id: str,
    config: Mapping[str, Any],
    unit: Unit,
    statistics: Mapping[str, Any],
    divisor: int,
    rate_weight: float,
    seed: int,
) -> list[Chunk]:
    source = _source_of(unit, statistics, divisor)
    chunks = list(_method_of(id, config).encode(source, rate_weight=rate_weight, seed=seed))
    _spent.add(sum(spec.num_elements for spec, _ in unit))
    return chunks


class _Spent:
    """Counts elements encoded, and gives memory back when they are many; used by several threads."""

    def __init__(self) -> None:
        self._num_elements, self._lock = 0, Lock()

    def add(self, num_elements: int) -> None:
        with self._lock:
            self._num_elements += num_elements
            if self._num_elements >= _MANY:
                self._num_elements = 0
                release_memory()


_spent = _Spent()


def decode(chunks: Iterable[Chunk]) -> dict[str, Tensor]:
    """Decode chunks to tensors by name; the tiles of a tensor in any order.

    Of a tensor whose tiles are not all given, the others' elements are not set: they are anything.

    Raises:
        Corrupt, Incompatible: as `decode_parts`.
    """
    return decode_parts([Unread(len(chunk.payload), partial(_same, chunk)) for chunk in chunks])


def _same(chunk: Chunk) -> Chunk:
    return chunk


class Unread(NamedTuple):
    """A part that is to be decoded: bytes of its payload, and what reads it."""

    size: int
    read: Callable[[], Chunk]


def decode_parts(parts: Sequence[Unread], into: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Read parts and decode them to tensors by name; the tiles of a tensor in any order.

    With the compiled core, parts are read, checked and decoded by as many threads as `native.num_threads` says; a
    single one is decoded by all of them.

    Args:
        parts: in the file's order.
        into: by name, tensors to decode into, as for `Method.decode`; new ones are made for the others.

    Raises:
        Corrupt, Incompatible: as the methods say; every other failure of a decoder becomes `Corrupt`. Of several parts
            that fail, the first one's error.
    """
    threads = num_threads() if core() is not None else 1
    targets, scratch = _Targets(into or {}), Scratch()

    def decoded(part: Unread) -> Mapping[str, Tensor]:
        chunk = part.read()
        with scratch.lent():
            return _decode_chunk(chunk, targets.of(chunk), threads if len(parts) == 1 else 1)

    workers = min(threads, len(parts))
    tensors: dict[str, Tensor] = {}
    for found in _from_both_ends(decoded, parts, workers) if workers > 1 else map(decoded, parts):
        tensors |= found
    return tensors | targets.tiled


def _from_both_ends(work: Callable[[Unread], Result], parts: Sequence[Unread], num_threads: int) -> list[Result]:
    """Work on parts, half of the threads on the largest ones, the others on the smallest; return what comes of them.

    Small parts are mostly work of the interpreter, which one thread does at a time; large ones are work of the core's.
    """
    left = deque(sorted(range(len(parts)), key=lambda number: -parts[number].size))
    done: dict[int, Result] = {}
    failed: dict[int, Exception] = {}

    def run(take: Callable[[], int]) -> None:
        with suppress(IndexError):  # from taking: none is left
            while True:
                number = take()
                if failed and number > min(failed):
                    continue
                try:
                    done[number] = work(parts[number])
                except Exception as error:
                    failed[number] = error

    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for future in [pool.submit(run, left.pop if k % 2 else left.popleft) for k in range(num_threads)]:
                future.result()
        finally:
            left.clear()  # where this thread was interrupted, there is more
    if failed:
        raise failed[min(failed)]
    return [done[number] for number in range(len(parts))]


class _Targets:
    """Where parts are decoded to: a tensor that comes in tiles is made when its first tile does. For many threads."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.tiled: dict[str, Tensor] = {}
        self._given = given
        self._lock = Lock()

    def of(self, chunk: Chunk) -> Mapping[str, Tensor]:
        """The tensors given, or where a tile's elements go."""
        if chunk.span is None:
            return self._given
        spec = chunk.tensors[0]
        with self._lock:
            if spec.name not in self.tiled:
                given = self._given.get(spec.name)
                self.tiled[spec.name] = empty_tensor(spec.shape, spec.dtype) if given is None else given
        return {spec.name: self.tiled[spec.name].view(-1)[chunk.span[0] : chunk.span[1]]}


def _decode_chunk(chunk: Chunk, into: Mapping[str, Tensor], num_threads: int) -> Mapping[str, Tensor]:
    method = method_class(chunk.method).from_config({})
    try:
        return method.decode(chunk, into=into, num_threads=num_threads)
    except FewbitsError as error:
        names = ", ".join(repr(spec.name) for spec in chunk.tensors[:1])
        if "tensor" in str(error):
            raise
        raise type(error)(f"tensor {names}: {error}") from error
    except (ValueError, IndexError, OverflowError, MemoryError, RuntimeError) as error:
        # A payload whose CRC is right and whose contents are not: whatever the decoder stumbled over, it is damage.
        raise Corrupt(f"tensor {chunk.tensors[0].name!r} has a payload that cannot be decoded.") from error
