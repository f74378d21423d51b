"""Loading and compressing whole models: seconds beside safetensors, torch.load and zipnn, and peak memory.

`load_minilm` has the rows of all-MiniLM-L6-v2; here are those of 500 MB of float32 weights.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Measured, Row
from .timing import Action, Times, interleaved, unmeasured

takes_rivals = False

SHAPE = (4096, 3072)  # 50 MB: more than the C library keeps for later, so that every load gets fresh memory
WEIGHTS = 10 * SHAPE[0] * SHAPE[1]  # 503 MB of float32
BITS = 2.0
REPEATS = 9
RATIO_BOUND = 0.5  # of the time of safetensors and a copy
SCALING_BOUND = 1.7  # two threads over one
MEMORY_BOUNDS = {"compress": 3.0, "load": 1.5}  # times the float32 size


def rows(options: Options) -> Iterator[Row]:
    """Measure the 500 MB, then MiniLM."""
    need("torch", "safetensors")
    load_fewbits("compress", "load")
    from .load_minilm import minilm_rows

    with tempfile.TemporaryDirectory() as scratch:
        yield from _large_rows(options, Path(scratch))
        yield from minilm_rows(options, Path(scratch))


def _large_rows(options: Options, scratch: Path) -> Iterator[Row]:
    num_tensors = max(1, round((options.num_symbols or WEIGHTS) / (SHAPE[0] * SHAPE[1])))
    source, target = scratch / "large.safetensors", scratch / "large.fewbits"
    _write_weights(source, scratch / "large.pt", num_tensors, options.seed)
    size = 4 * num_tensors * SHAPE[0] * SHAPE[1]
    arguments = {"bits": BITS, "seed": options.seed}
    yield memory_row("compress", f"{size // 10**6} MB", size, str(source), str(target), json.dumps(arguments))
    yield memory_row("load", f"{size // 10**6} MB", size, str(target))
    yield from _seconds_rows(scratch, size)
    yield _scaling_row(target, size)


def _write_weights(source: Path, torch_file: Path, num_tensors: int, seed: int) -> None:
    """Write float32 tensors, Gaussian and Laplace in turns, each of its own scale, as safetensors and as .pt."""
    import torch
    from safetensors.torch import save_file

    generator = np.random.default_rng([seed, 1000])
    tensors: dict[str, torch.Tensor] = {}
    for number in range(num_tensors):
        scale = np.float32(0.02 * 2.0 ** generator.uniform(-1, 1))
        values = generator.standard_normal(SHAPE, np.float32)
        if number % 2:  # of the same energy
            values = np.sign(values) * generator.standard_exponential(SHAPE, np.float32) * np.float32(0.5**0.5)
        tensors[f"layers.{number}.weight"] = torch.from_numpy(values * scale)
    save_file(tensors, source)
    torch.save(tensors, torch_file)


def _seconds_rows(scratch: Path, size: int) -> Iterator[Row]:
    """From files in the page cache to tensors in fresh memory, on one thread, in turns."""
    import torch
    from safetensors.torch import load_file

    import fewbits

    target = scratch / "large.fewbits"
    chunks, warm = _read_chunks(target)
    expected = {name: tensor.clone() for name, tensor in fewbits.load(target).items()}

    def safetensors_and_copy(_: None) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in load_file(scratch / "large.safetensors").items()}

    def same(decoded: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(decoded[name], tensor) for name, tensor in expected.items())

    actions = {
        "safetensors + copy": Action(safetensors_and_copy, units=size),
        "fewbits load": Action(lambda _: fewbits.load(target), after=same, units=size),
        "torch.load": Action(lambda _: torch.load(scratch / "large.pt", weights_only=True), units=size),
        "fewbits decode alone": Action(
            lambda _: _decode(chunks, warm), lambda: _spoil(warm), lambda _: same(warm), units=size
        ),
        # What any way of loading takes at least: fresh memory, written to once.
        "fill": Action(
            lambda _: {name: torch.empty_like(tensor).fill_(1.0) for name, tensor in expected.items()}, units=size
        ),
        "copy": Action(lambda _: {name: tensor.clone() for name, tensor in expected.items()}, units=size),
    }
    with threads(1):
        times = interleaved(actions, REPEATS)
    for name, each in times.items():
        measured: dict[str, Measured] = {
            "seconds": each.seconds("wall"),
            "cpu_seconds": each.seconds(),
            "gigabytes_per_second": each.rate("wall") / 1e9,
            **_of_others(each, times),
        }
        asked: tuple[Figure, ...] = ()
        if name == "fewbits load":
            asked = (Figure("of_safetensors_and_copy", "<=", RATIO_BOUND), Figure("decoded_exactly", "is", True))
        if name.startswith("fewbits"):
            measured["decoded_exactly"] = each.right
        settings = {"bytes": size, "file_bytes": target.stat().st_size, "bits": BITS, "threads": 1, "repeats": REPEATS}
        yield Row(f"{name} {size // 10**6} MB", measured, asked, settings, _versions(name))


def _of_others(each: Times, times: dict[str, Times]) -> dict[str, Measured]:
    """How much of the others' wall time this one takes: of medians, and the median of the rounds."""
    other, torch_load = times["safetensors + copy"], times["torch.load"]
    return {
        "of_safetensors_and_copy": 1 / each.over(other, "wall"),
        "of_safetensors_and_copy_pairwise": 1 / each.over_pairwise(other, "wall"),
        "of_torch_load": 1 / each.over(torch_load, "wall"),
        "of_torch_load_pairwise": 1 / each.over_pairwise(torch_load, "wall"),
    }


def _versions(name: str) -> dict[str, str]:
    import rivals

    return rivals.installed("safetensors") if name.startswith("safetensors") else {}


def _read_chunks(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """Return a file's parts as they are in memory, and tensors to decode them into."""
    import torch

    from fewbits.container.reader import Reader

    with Reader(path) as reader:
        chunks = [reader.read_chunk(part) for part in range(len(reader.parts))]
        specs = [entry.spec for entry in reader.header.tensors]
    return chunks, {spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs}


def _decode(chunks: list[Any], into: dict[str, Any]) -> None:
    """Decode parts that are in memory into tensors that were written to before: no file, no check, no page faults."""
    from fewbits.registry import method_class

    for chunk in chunks:
        start, stop = chunk.span or (0, None)
        parts = {spec.name: into[spec.name].view(-1)[start:stop] for spec in chunk.tensors}
        method_class(chunk.method).from_config({}).decode(chunk, into=parts, num_threads=1)


def _spoil(tensors: dict[str, Any]) -> None:
    for tensor in tensors.values():
        tensor.fill_(-1.0)


def _scaling_row(target: Path, size: int) -> Row:
    """Loading with two threads over one, and a plain copy of as many bytes with two threads over one."""
    import fewbits

    original = np.random.default_rng(0).integers(0, 256, size, np.uint8)

    def copy(num_threads: int) -> Callable[[None], np.ndarray]:
        def run(_: None) -> np.ndarray:
            into = np.empty_like(original)
            parts = zip(np.array_split(into, num_threads), np.array_split(original, num_threads), strict=True)
            list(pool.map(lambda part: np.copyto(*part), parts))
            return into

        return run

    def load(num_threads: int) -> Callable[[None], dict[str, Any]]:
        def run(_: None) -> dict[str, Any]:
            with threads(num_threads):
                return fewbits.load(target)

        return run

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: None, range(2)))  # its threads exist from now on
        actions = {f"copy {n}": Action(copy(n), units=size) for n in (1, 2)}
        actions |= {f"load {n}": Action(load(n), units=size) for n in (1, 2)}
        times = interleaved(actions, REPEATS)
    measured: dict[str, Measured] = {
        "times_one_thread": times["load 2"].over(times["load 1"], "wall"),
        "times_one_thread_pairwise": times["load 2"].over_pairwise(times["load 1"], "wall"),
        "copy_times_one_thread": times["copy 2"].over(times["copy 1"], "wall"),
        "copy_times_one_thread_pairwise": times["copy 2"].over_pairwise(times["copy 1"], "wall"),
        "seconds_one_thread": times["load 1"].seconds("wall"),
        "seconds_two_threads": times["load 2"].seconds("wall"),
    }
    asked = (Figure("times_one_thread", ">=", SCALING_BOUND),)
    row = Row(f"fewbits load {size // 10**6} MB, 2 threads", measured, asked, {"bytes": size, "repeats": REPEATS})
    if row.missed and times["copy 2"].over(times["copy 1"], "wall") < SCALING_BOUND:
        reason = f"here a plain copy does not get {SCALING_BOUND} times faster with two threads either"
        without = unmeasured(row, reason)
        return type(without)(row.name, {**measured, **without.measured}, asked, row.settings)
    return row


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let fewbits and torch use so many threads."""
    import torch

    before, known = os.environ.get("FEWBITS_THREADS"), torch.get_num_threads()
    os.environ["FEWBITS_THREADS"] = str(number)
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(known)
        if before is None:
            del os.environ["FEWBITS_THREADS"]
        else:
            os.environ["FEWBITS_THREADS"] = before


def memory_row(verb: str, what: str, size: int, *arguments: str) -> Row:
    """Peak memory of one call above what imports take, in a process of its own.

    size: bytes of the tensors as float32.
    """
    from . import peak_memory

    asked = (Figure("times_float32_size", "<=", MEMORY_BOUNDS[verb]),)
    row = Row(f"fewbits {verb} {what}, peak memory", {}, asked, {"float32_bytes": size})
    reason = peak_memory.available()
    if reason is not None:
        if verb == "compress":
            load_fewbits("compress").compress(arguments[0], arguments[1], **json.loads(arguments[2]))
        return unmeasured(row, reason)
    taken = peak_memory.peak_of(verb, *arguments)
    measured: dict[str, Measured] = {
        "peak_above_import": taken["above"],
        "times_float32_size": taken["above"] / size,
        "import_fewbits": taken["import_bytes"],
        "with_torch": taken["torch_bytes"],
        "peak_cleared_after_import": taken["exact"],
    }
    return Row(row.name, measured, asked, row.settings)
