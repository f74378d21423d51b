"""all-MiniLM-L6-v2 with a thousand sentences to look at: drift by size, and what each part of the method gives."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options, peak_memory
from .inputs import load_fewbits, minilm_folder, need
from .row import Figure, Measured, Row

takes_rivals = False  # those of `minilm` stand beside these rows: the same model, sentences and measure

SENTENCES = 1024  # of STS-B's train split, none of them in dev
# Greatest drift asked of a size.
SIZES: dict[str, dict[str, float | None]] = {
    "calibrated": {
        "4.6MB": None,
        "4.95MB": 0.05,
        "5.1MB": 0.05,
        "5.8MB": None,
        "7.15MB": 0.0118,
        "7.35MB": 0.0118,
        "8.67MB": None,
        "11.38MB": None,
    },
    "synthetic": {"5.8MB": None, "7MB": 0.05, "8.67MB": None, "9.4MB": 0.0118, "11.38MB": None},
}
WHOLE = "7.35MB"  # of the row in one call
ABLATED = ("5.1MB", "7.35MB")
# From weighted rounding to the whole: each line is what it says, with all else as above it.
ABLATION = {
    "weighted rounding, one model": {
        "feedback": False,
        "column_models": False,
        "trellis": False,
        "row_feedback": False,
    },
    "weighted rounding, models by column and row": {"feedback": False, "trellis": False, "row_feedback": False},
    "GPTQ, one model": {"column_steps": False, "column_models": False, "trellis": False, "row_feedback": False},
    "GPTQ, models by column and row": {"column_steps": False, "trellis": False, "row_feedback": False},
    "steps by column, one model": {"column_models": False, "trellis": False, "row_feedback": False},
    "steps by column, models by column and row": {"trellis": False, "row_feedback": False},
    "all, but rows alike": {"row_weights": False},
    "all, but no feedback between rows": {"row_feedback": False},
    "all": {},
}
LOADED, LOADS, LOAD_RATIO = "7.15MB", 21, 1.3  # the size of two files, how often each is loaded, their times
OUT_OF_DOMAIN = 1.6  # times the drift in the domain, at most
SECONDS, MEMORY = 90.0, 3.0  # with all that inputs take; at its peak, times the model's size, above what is loaded


def rows(options: Options) -> Iterator[Row]:
    """Measure calibrated files, synthetic ones, each part of the method by itself, time and memory."""
    need("transformers", "scipy", "safetensors", "torch")
    from .sentence_embedding import SentenceEmbedding

    folder = minilm_folder()
    model = SentenceEmbedding(folder, elsewhere=True)
    yield Row("original", {"size": (folder / "model.safetensors").stat().st_size, **model.original_quality()})
    fewbits = load_fewbits("compress", "curvatures", "Sic", "SicConfig")
    batches = model.training_batches(SENTENCES)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "minilm.fewbits"
        for kind, sizes in SIZES.items():
            if options.wants(kind):
                yield from _curve(kind, sizes, model, path, options.seed, batches if kind == "calibrated" else kind)
        if options.wants("load"):
            yield _load_row(model, Path(scratch), options.seed)
        if options.wants("ablation"):
            costs = fewbits.curvatures(model.fresh_module(), batches, measure=model.embedding_of, seed=options.seed)
            for budget, (name, settings) in itertools.product(ABLATED, ABLATION.items()):
                method = fewbits.Sic(fewbits.SicConfig(**settings))
                given = {"statistics": costs, "method": method}
                yield _row(f"{name}, {budget}", model, path, budget, options.seed, (), settings, given)


def _curve(kind: str, sizes: dict[str, float | None], model: Any, path: Path, seed: int, inputs: Any) -> Iterator[Row]:
    """Files of several sizes: one of them in one call, of which time and memory are measured; the others after it."""
    fewbits = load_fewbits("curvatures")
    measure = model.embedding_of if kind == "calibrated" else None
    settings = {"inputs": kind if kind == "synthetic" else f"{SENTENCES} sentences of STS-B train"}
    whole = (Figure("encode_seconds", "<=", SECONDS), Figure("times_float32_size", "<=", MEMORY))
    given = {"inputs": inputs, "measure": measure}
    yield _row(f"{kind}, one call", model, path, WHOLE, seed, whole, settings, given)
    costs = fewbits.curvatures(model.fresh_module(), inputs, measure=measure, seed=seed)
    for budget, drift in sizes.items():
        asked = () if drift is None else (Figure("drift", "<=", drift),)
        if kind == "calibrated":
            asked = (*asked, Figure("drift_ratio", "<=", OUT_OF_DOMAIN))
        yield _row(f"{kind} {budget}", model, path, budget, seed, asked, settings, {"statistics": costs})


def _load_row(model: Any, scratch: Path, seed: int) -> Row:
    """Loading a file of `sic` and one of `ecsq`, of the same size, in turns."""
    fewbits = load_fewbits("compress", "load")
    seconds: dict[str, list[float]] = {"sic": [], "ecsq": []}
    for method in seconds:
        path = scratch / f"{method}.fewbits"
        fewbits.compress(model.fresh_module(), path, budget=LOADED, seed=seed, inputs="synthetic", method=method)
    for _ in range(LOADS):
        for method, taken in seconds.items():
            start = time.perf_counter()
            fewbits.load(scratch / f"{method}.fewbits")
            taken.append(time.perf_counter() - start)
    medians = {method: statistics.median(taken) for method, taken in seconds.items()}
    measured: dict[str, Measured] = {
        "sic_seconds": medians["sic"],
        "ecsq_seconds": medians["ecsq"],
        "ratio": medians["sic"] / medians["ecsq"],
    }
    asked = (Figure("ratio", "<=", LOAD_RATIO),)
    return Row(f"load, {LOADED}, beside ecsq", measured, asked, {"loads": LOADS})


def _row(
    name: str,
    model: Any,
    path: Path,
    budget: str,
    seed: int,
    asked: tuple[Figure, ...],
    settings: dict[str, Any],
    given: dict[str, Any],
) -> Row:
    """Compress the module, and measure what its file decodes to, in the domain and elsewhere."""
    fewbits = load_fewbits("compress", "load")
    module = model.fresh_module()
    for value in module.parameters():
        value.detach().sum()  # a file that is mapped is loaded by reading it
    before, _ = peak_memory.mark()
    start = time.perf_counter()
    report = fewbits.compress(module, path, budget=budget, seed=seed, **given)
    encode_seconds = time.perf_counter() - start
    above = peak_memory.peak() - before
    start = time.perf_counter()
    decoded = {key: tensor.numpy() for key, tensor in fewbits.load(path).items()}
    decode_seconds = time.perf_counter() - start
    measured: dict[str, Measured] = {
        "size": path.stat().st_size,
        "relative_error": report.overall_error,
        **model.quality(decoded),
        "estimated_bits": report.estimated_bits,
        "actual_bits": report.actual_bits,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "times_float32_size": above / sum(tensor.nbytes for tensor in model.tensors.values()),
        "note": "; ".join(report.notes),
    }
    measured["drift_ratio"] = float(measured["drift_elsewhere"]) / max(float(measured["drift"]), 1e-9)
    return Row(name, measured, asked, {"budget": budget, "seed": seed, **settings})
