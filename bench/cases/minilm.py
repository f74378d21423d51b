"""all-MiniLM-L6-v2 (22.7 M float32 weights) to a byte budget, and losslessly; judged by its embeddings."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import Options
from .comparison import bit_exact, fewbits_row, rival_rows
from .inputs import load_fewbits, minilm_folder, need, safetensors_metadata
from .row import Figure, Measured, Row

takes_rivals = True

BUDGET = 8_670_000  # bytes; NNCodec's point on this model
LOSSLESS_BOUND = 74_400_000  # bytes
PROBED_DRIFT = {"5.8MB": 0.11, "8.67MB": 0.021, "11.38MB": 0.0055}  # at most, of the module, tried on random tokens
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
    yield from rival_rows(options.rivals, model.tensors, model.quality)


def _fewbits_rows(options: Options, checkpoint: Path, model, scratch: Path) -> Iterator[Row]:
    path = scratch / "minilm.fewbits"
    asked = (
        Figure("size", "<=", BUDGET),
        Figure("size", ">=", 995 * BUDGET // 1000),
        Figure("drift", "<=", 0.08),
        Figure("spearman", ">=", 0.860),
    )
    common = {"source": checkpoint, "tensors": model.tensors, "quality": model.quality, "seed": options.seed}
    yield fewbits_row("fewbits 8.67MB", path=path, budget="8.67MB", asked=asked, **common)
    for verb in ("info", "verify"):
        yield _command_row(verb, path)
    yield _lossless_row(checkpoint, model, scratch)
    for budget in ("5.8MB", "11.4MB"):
        yield fewbits_row(f"fewbits {budget}", path=scratch / "other.fewbits", budget=budget, **common)
    common["source"] = model.fresh_module()
    for budget, drift in PROBED_DRIFT.items():
        yield fewbits_row(
            f"fewbits module {budget}",
            path=scratch / "other.fewbits",
            budget=budget,
            inputs="synthetic",
            asked=(Figure("drift", "<=", drift),),
            **common,
        )


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
