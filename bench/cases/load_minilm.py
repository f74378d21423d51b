"""The rows of the case `load` on all-MiniLM-L6-v2: compress and load a budget, and lossless coding beside zipnn."""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import Options
from .inputs import minilm_folder
from .load import memory_row, threads
from .row import Absent, Figure, Measured, Row
from .timing import Action, Times, interleaved, timed, unmeasured

BUDGET = "8.67MB"
COMPRESS_SECONDS, LOAD_SECONDS = 5.0, 0.2
THREADS = 2  # the cores that the figures are for
REPEATS = 5
LOSSLESS_REPEATS = 7
RIVAL = "zipnn"
DTYPES = {"F32": "float32", "I64": "int64"}  # of MiniLM's tensors, as safetensors and torch spell them


def minilm_rows(options: Options, scratch: Path) -> Iterator[Row]:
    """Measure seconds, memory, and lossless coding; nothing where the model is absent."""
    try:
        checkpoint = minilm_folder() / "model.safetensors"
    except Absent as absent:
        print(f"load: no rows of MiniLM: {absent}", file=sys.stderr)
        return
    target = scratch / "minilm.fewbits"
    yield from _budget_rows(options, checkpoint, target)
    size = _float32_size(checkpoint)
    arguments = json.dumps({"budget": BUDGET, "seed": options.seed})
    yield memory_row("compress", "minilm", size, str(checkpoint), str(target), arguments)
    yield memory_row("load", "minilm", size, str(target))
    yield from _lossless_rows(checkpoint)


def _budget_rows(options: Options, checkpoint: Path, target: Path) -> Iterator[Row]:
    """Whole calls, from file to file and from file to tensors, in a process that has imported everything."""
    import fewbits

    def compress() -> Any:
        return fewbits.compress(checkpoint, target, budget=BUDGET, seed=options.seed)

    with threads(THREADS):
        for verb, run, bound in (
            ("compress", compress, COMPRESS_SECONDS),
            ("load", lambda: fewbits.load(target), LOAD_SECONDS),
        ):
            timed(run)
            taken = [timed(run)[1] for _ in range(REPEATS)]
            measured: dict[str, Measured] = {
                "seconds": statistics.median(each.wall for each in taken),
                "least_seconds": min(each.wall for each in taken),
                "cpu_seconds": statistics.median(each.cpu for each in taken),
                "file_bytes": target.stat().st_size,
            }
            settings = {"budget": BUDGET, "threads": THREADS, "repeats": REPEATS}
            yield Row(f"fewbits {verb} minilm {BUDGET}", measured, (Figure("seconds", "<=", bound),), settings)


def _float32_size(checkpoint: Path) -> int:
    """Return the bytes that the tensors take as float32."""
    from safetensors.torch import load_file

    return 4 * sum(tensor.numel() for tensor in load_file(checkpoint).values())


def _lossless_rows(checkpoint: Path) -> Iterator[Row]:
    """fewbits and zipnn in turns, one thread, all in memory: a safetensors file's bytes in, and out again.

    Of fewbits also the coding alone, from tensors to a file's bytes and back: where weights are already tensors, or
    are to be, the safetensors form is of no use to it.
    """
    data = checkpoint.read_bytes()
    files: dict[str, Any] = {}
    programs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "fewbits": (lambda copy: _encode(_tensors_of(copy)), lambda file: _safetensors_of(file, data)),
        "fewbits, tensors": (lambda tensors: _encode(tensors), _decode),
    }
    from rivals import installed, missing

    reason = missing(RIVAL)
    if reason is None:
        programs = {RIVAL: _zipnn()} | programs
    tensors = _tensors_of(bytearray(data))
    inputs: dict[str, Callable[[], Any]] = {
        RIVAL: lambda: bytearray(data),  # it reorders its input in place
        "fewbits": lambda: bytearray(data),
        "fewbits, tensors": lambda: tensors,
    }
    right: dict[str, Callable[[Any], bool]] = {
        RIVAL: lambda decoded: decoded == data,
        "fewbits": lambda decoded: decoded == data,
        "fewbits, tensors": lambda decoded: _same(decoded, tensors),
    }

    def keep(name: str) -> Callable[[Any], bool]:
        return lambda file: files.update({name: file}) is None

    encoders = {name: Action(each[0], inputs[name], keep(name), len(data)) for name, each in programs.items()}
    with threads(1):
        encoded = interleaved(encoders, LOSSLESS_REPEATS)
        decoders = {
            name: Action(each[1], _copies(files[name], name), right[name], len(data)) for name, each in programs.items()
        }
        decoded = interleaved(decoders, LOSSLESS_REPEATS)
    for verb, times in (("encode", encoded), ("decode", decoded)):
        for name, each in times.items():
            versions = installed(RIVAL) if name == RIVAL else {}
            yield from _lossless_row(name, verb, each, times.get(RIVAL), len(files[name]), versions, reason)


def _copies(file: Any, name: str) -> Callable[[], Any]:
    return (lambda: bytearray(file)) if name == RIVAL else (lambda: file)


def _lossless_row(
    name: str,
    verb: str,
    each: Times,
    rival: Times | None,
    size: int,
    versions: dict[str, str],
    reason: str | None,
) -> Iterator[Row]:
    measured: dict[str, Measured] = {
        "size": size,
        "seconds": each.seconds("wall"),
        "cpu_seconds": each.seconds(),
        "gigabytes_per_second": each.rate() / 1e9,
    }
    asked: tuple[Figure, ...] = ()
    if name != RIVAL and rival is not None:
        measured["times_zipnn"] = each.over(rival)
        measured["times_zipnn_pairwise"] = each.over_pairwise(rival)
        measured["times_zipnn_wall"] = each.over(rival, "wall")
        asked = (Figure("times_zipnn", ">=", 1.0),) if name == "fewbits" else ()
    if verb == "decode":
        measured["bit_exact"] = each.right
        asked += (Figure("bit_exact", "is", True),)
    title = f"{name} {verb} minilm lossless"
    yield Row(title, measured, asked, {"threads": 1, "repeats": LOSSLESS_REPEATS}, versions)
    if name == "fewbits" and rival is None:
        yield unmeasured(Row(f"{title} against zipnn", {}, (Figure("times_zipnn", ">=", 1.0),)), reason or "")


def _zipnn() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """ZipNN on a file's bytes, float32, one thread."""
    from zipnn import ZipNN

    program = ZipNN(bytearray_dtype="float32", input_format="byte", threads=1)
    return program.compress, program.decompress


def _layout_of(data: bytes | bytearray) -> tuple[int, dict[str, Any]]:
    """Return where a safetensors file's tensors start, and its header without metadata, in the order of memory."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return start, dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))


def _tensors_of(data: bytearray) -> dict[str, Any]:
    """Return a safetensors file's tensors, as views of its bytes."""
    import torch

    return _views(torch.frombuffer(data, dtype=torch.uint8), *_layout_of(data))


def _views(octets: Any, start: int, header: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors that lie in the octets (N,) uint8 of a safetensors file; its data start at `start`."""
    import torch

    tensors: dict[str, Any] = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        part = octets[start + first : start + last]
        tensors[name] = part.view(getattr(torch, DTYPES[entry["dtype"]])).reshape(entry["shape"])
    return tensors


def _encode(tensors: dict[str, Any]) -> bytes:
    """Return the bytes of a lossless file."""
    from fewbits import Lossless
    from fewbits.container.writer import file_bytes
    from fewbits.encode import encode
    from fewbits.method import Source
    from fewbits.sources import read_checkpoint

    checkpoint = read_checkpoint(tensors)
    chunks = encode(Lossless(), Source(checkpoint.stored, None, {}), rate_weight=0.0)
    return file_bytes(chunks=chunks, tensors=checkpoint.entries, seed=0, rate_weight=None, metadata=None)


def _decode(file: bytes) -> dict[str, Any]:
    """Return the tensors in the bytes of a file, every check made."""
    from fewbits.archive import Archive

    with Archive(file) as archive:
        return archive.read_all()


def _safetensors_of(file: bytes, like: bytes) -> Any:
    """Return a file's tensors in the safetensors form, as octets, with the header of `like`, which they came from."""
    import torch

    from fewbits.archive import Archive
    from fewbits.tensors import empty_tensor

    start, header = _layout_of(like)
    octets = empty_tensor((start + max(entry["data_offsets"][1] for entry in header.values()),), "uint8")
    octets[:start] = torch.frombuffer(bytearray(like[:start]), dtype=torch.uint8)
    with Archive(file) as archive:
        archive.read_into(_views(octets, start, header))
    return octets.numpy().data


def _same(decoded: dict[str, Any], tensors: dict[str, Any]) -> bool:
    """Whether all bits are the same."""
    from fewbits.tensors import bits_of

    return decoded.keys() == tensors.keys() and all(
        (decoded[name].dtype, decoded[name].shape) == (tensor.dtype, tensor.shape)
        and bool((bits_of(decoded[name]) == bits_of(tensor)).all())
        for name, tensor in tensors.items()
    )
