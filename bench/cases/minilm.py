"""all-MiniLM-L6-v2 (22.7 M float32 weights) to a byte budget, and losslessly; judged by its embeddings."""

import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import Options
from .comparison import beside_rows, bit_exact, fewbits_row, rival_rows
from .inputs import load_fewbits, minilm_folder, need, safetensors_metadata
from .row import Figure, Measured, Row

takes_rivals = True

BUDGET = 8_670_000  # bytes; NNCodec's point on this model
LOSSLESS_BOUND = 74_400_000  # bytes
# At most, where there is a bound: of the checkpoint, and of the module, tried on random tokens.
BARE_DRIFT = {
    "4.5MB": None,
    "5.8MB": 0.20,
    "7.2MB": None,
    "10MB": None,
    "11.38MB": 0.0085,
    "11.4MB": None,
    "13MB": None,
}
PROBED_DRIFT = {
    "4.5MB": None,
    "5.8MB": 0.11,
    "7MB": None,
    "8.67MB": 0.021,
    "10MB": None,
    "11.38MB": 0.0055,
    "13MB": None,
}
SAME_DRIFT = 0.05
# Bytes of NNCodec's best setting at that drift, between its rows; and of gguf's smallest file, whose drift is less.
NNCODEC_SIZE, GGUF_SIZE = 8_850_000, 12_895_136
COMMAND_SECONDS = 0.5
COMMAND_RUNS = 7


def rows(options: Options) -> Iterator[Row]:
    """Measure the original, fewbits at three budgets and losslessly, `info` and `verify`, the module, the rivals."""
    need("transformers", "scipy", "safetensors", "torch")
    from .sentence_embedding import SentenceEmbedding

    folder = minilm_folder()
    checkpoint = folder / "model.safetensors"
    model = SentenceEmbedding(folder)
    yield Row("original", {"size": checkpoint.stat().st_size, **model.original_quality()})
    if not options.rivals_only:
        with tempfile.TemporaryDirectory() as scratch:
            yield from _fewbits_rows(options, checkpoint, model, Path(scratch))
    rival = rival_rows(options.rivals, model.tensors, model.quality)
    yield from beside_rows(rival, checkpoint, model.tensors, model.quality, options.seed)


def _fewbits_rows(options: Options, checkpoint: Path, model, scratch: Path) -> Iterator[Row]:
    path = scratch / "minilm.fewbits"
    asked = (
        Figure("size", "<=", BUDGET),
        Figure("size", ">=", 995 * BUDGET // 1000),
        Figure("drift", "<=", 0.030),
        Figure("spearman", ">=", 0.860),
    )
    common = {"source": checkpoint, "tensors": model.tensors, "quality": model.quality, "seed": options.seed}
    row = fewbits_row("fewbits 8.67MB", path=path, budget="8.67MB", asked=asked, **common)
    curves: dict[str, list[tuple[float, float]]] = {
        "bare": [(row.measured["size"], row.measured["drift"])],
        "module": [],
    }
    yield row
    for verb in ("info", "verify"):
        yield _command_row(verb, path)
    yield _lossless_row(checkpoint, model, scratch)
    for budget, drift in BARE_DRIFT.items():
        asked = () if drift is None else (Figure("drift", "<=", drift),)
        row = fewbits_row(f"fewbits {budget}", path=scratch / "other.fewbits", budget=budget, asked=asked, **common)
        curves["bare"].append((row.measured["size"], row.measured["drift"]))
        yield row
    common["source"] = model.fresh_module()
    for budget, drift in PROBED_DRIFT.items():
        row = fewbits_row(
            f"fewbits module {budget}",
            path=scratch / "other.fewbits",
            budget=budget,
            inputs="synthetic",
            asked=() if drift is None else (Figure("drift", "<=", drift),),
            **common,
        )
        curves["module"].append((row.measured["size"], row.measured["drift"]))
        yield row
    yield _bytes_row(curves)


def _bytes_row(curves: dict[str, list[tuple[float, float]]]) -> Row:
    """Bytes at one drift, between the files measured: linear in the logarithm of the drift."""
    measured: dict[str, Measured] = {}
    for name, curve in curves.items():
        sizes, drifts = zip(*sorted(curve), strict=True)
        logarithms = [math.log(drift) for drift in drifts]
        at = float(np.interp(-math.log(SAME_DRIFT), [-each for each in logarithms], sizes))
        measured |= {
            f"{name}_size": round(at),
            f"{name}_to_nncodec": at / NNCODEC_SIZE,
            f"{name}_to_gguf": at / GGUF_SIZE,
        }
    asked = (
        Figure("bare_to_nncodec", "<=", 0.90),
        Figure("module_to_nncodec", "<=", 0.80),
        Figure("bare_to_gguf", "<=", 0.65),
    )
    return Row(f"fewbits, bytes at drift {SAME_DRIFT}", measured, asked, {"drift": SAME_DRIFT})


def _lossless_row(checkpoint: Path, model, scratch: Path) -> Row:
    fewbits = load_fewbits("compress", "load", "decompress")
    path, back = scratch / "lossless.fewbits", scratch / "back.safetensors"
    start = time.perf_counter()
    fewbits.compress(checkpoint, path, lossless=True)
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    decoded = {name: tensor.numpy() for name, tensor in fewbits.load(path).items()}
    decode_seconds = time.perf_counter() - start
    fewbits.decompress(path, back)
    measured: dict[str, Measured] = {
        "size": path.stat().st_size,
        "bit_exact": bit_exact(model.tensors, decoded),
        "metadata_kept": safetensors_metadata(back) == safetensors_metadata(checkpoint),
        "same_safetensors_bytes": back.read_bytes() == checkpoint.read_bytes(),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    asked = (
        Figure("size", "<=", LOSSLESS_BOUND),
        Figure("bit_exact", "is", True),
        Figure("metadata_kept", "is", True),
    )
    return Row("fewbits lossless", measured, asked, {"lossless": True})


def _command_row(verb: str, path: Path) -> Row:
    """Time `fewbits info` or `verify` as a process, from start to end.

    The smallest of several runs is the figure: on a shared machine the others measure its neighbours.
    """
    command = ["-m", "fewbits", verb, str(path)]
    seconds = []
    for _ in range(COMMAND_RUNS):
        start = time.perf_counter()
        _run(command)
        seconds.append(time.perf_counter() - start)
    imports = _run(["-X", "importtime", *command])
    measured: dict[str, Measured] = {
        "wall_seconds": min(seconds),
        "median_seconds": statistics.median(seconds),
        "torch_imported": bool(re.search(r"\|\s+torch\s*$", imports, re.MULTILINE)),
    }
    asked = (Figure("wall_seconds", "<=", COMMAND_SECONDS), Figure("torch_imported", "is", False))
    return Row(f"fewbits {verb}", measured, asked, {"runs": COMMAND_RUNS})


def _run(arguments: list[str]) -> str:
    """Run this Python with arguments; return what it wrote to standard error."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=os.environ | _found())
    if done.returncode != 0:
        raise RuntimeError(f"fewbits {arguments[-2]} ended with exit code {done.returncode}.")
    return done.stderr


def _found() -> dict[str, str]:
    """Let a child process import the same fewbits, installed or not."""
    source = str(Path(load_fewbits().__file__).parent.parent)
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([source, known] if known else [source])}
