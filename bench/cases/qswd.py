"""QSWD's rows: a fine-tuned ResNet-20 beside SVD, k-means, `epr` and `ecsq` at equal bytes; MiniLM as it is."""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import Options
from . import recipe_runs as runs_of
from .comparison import relative_error
from .inputs import data_file, data_loaders, load_fewbits, minilm_folder, need
from .row import Absent, Figure, Measured, Row

takes_rivals = False

RUNS = "FEWBITS_QSWD_RUNS"
BASELINE = runs_of.RECIPES / "artifacts" / "qswd_resnet20_baseline.fewbits"
PARTS = ("validation", "test", "test1k")
NUM_WEIGHTS = 269_722  # of ResNet-20
MORE_BYTES = 1.01  # of the whole file, that a row may take above what its bits are
MINILM_BUDGETS = ("5.8MB", "8.67MB")
CALIBRATION = 512  # sentences


def rows(options: Options) -> Iterator[Row]:
    """Train what the folder that FEWBITS_QSWD_RUNS names has not, and score everything; then MiniLM, if it is here."""
    need("torch", "fewbits", "PIL")
    data = data_file("cifar10/train_labels.npy").parents[1]
    yield Row("resnet20_baseline", _errors(BASELINE, data), settings={"network": BASELINE.name})
    rows_of = runs_of.module_of("qswd.rows")
    with runs_of.folder(RUNS) as runs:
        for word, (bits, *_) in rows_of.SIZES.items():
            if options.wants(word):
                yield from _trained_rows(word, bits, rows_of.FAMILIES, data, runs)
    for word, (bits, *_) in rows_of.SIZES.items():
        for family in ("ecsq", *rows_of.FAMILIES[:-1]):
            if options.wants(f"untrained_{family}"):
                yield _untrained(family, word, int(bits * NUM_WEIGHTS / 8), data, options.seed)
    if options.wants("minilm"):
        yield from _minilm(options)


def _trained_rows(word: str, bits: float, families: tuple[str, ...], data: Path, runs: Path) -> Iterator[Row]:
    """What is fine-tuned at one size."""
    found = {family: _trained(f"{family}_{word}", data, runs) for family in families}
    most = int(MORE_BYTES * bits * NUM_WEIGHTS / 8)
    for family, measured in found.items():
        asked = [Figure("size", "<=", most)]
        if family == "sparse":
            asked += [Figure("test_error", "<=", found[other]["test_error"]) for other in ("vq", "svd")]
        settings = {
            "row": f"{family}_{word}",
            "bits": bits,
            "epochs": runs_of.settings_of("qswd", f"{family}_{word}").epochs,
        }
        yield Row(f"fewbits resnet20_{family}_{word} chosen", measured, tuple(asked), settings)


def _trained(name: str, data: Path, runs: Path) -> dict[str, Measured]:
    """What a run's file measures; it is trained if the folder has not got it."""
    file = runs / f"{name}.fewbits"
    if not file.with_suffix(".json").exists():
        words = ["--data", data, "--network", BASELINE, "--out", file, "--resume", runs / "checkpoints"]
        runs_of.recipe("qswd/train.py", name, *words)
    told = runs_of.told(file)
    return {
        **_errors(file, data),
        "started_bytes": told["started_bytes"],
        "estimate_off_bytes": abs(told["estimated_bits"] - told["actual_bits"]) / 8,
        "training_seconds": told["training_seconds"],
    }


def _errors(file: Path, data: Path) -> dict[str, Measured]:
    """Bytes and errors of a file, by recipes/evaluate.py."""
    found = json.loads(runs_of.recipe("evaluate.py", file, "--data", data, "--json"))
    return {"size": found["bytes"], **{f"{part}_error": found[f"{part}_error_percent"] for part in PARTS}}


def _untrained(family: str, word: str, budget: int, data: Path, seed: int) -> Row:
    """The baseline compressed to as many bytes, without a training step."""
    fewbits = load_fewbits("compress", "load", "Qswd", "QswdConfig")
    network = fewbits.load(BASELINE, into=runs_of.module_of("models").ResNet20())
    method: Any = "ecsq" if family == "ecsq" else fewbits.Qswd(fewbits.QswdConfig(family=family))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "resnet20.fewbits"
        start = time.perf_counter()
        fewbits.compress(network, file, budget=budget, method=method, seed=seed, bare=True, inputs=None)
        seconds = time.perf_counter() - start
        measured = {**_errors(file, data), "encode_seconds": round(seconds, 2)}
    return Row(f"untrained resnet20_{family}_{word}", measured, settings={"budget": budget, "method": family})


def _minilm(options: Options) -> Iterator[Row]:
    """MiniLM's drift, as a checkpoint and with covariances of what its layers read, beside `ecsq`."""
    need("transformers", "scipy", "safetensors")
    try:
        folder = minilm_folder()
    except Absent as absent:
        yield Row("minilm", {"absent": str(absent)})
        return
    from .sentence_embedding import SentenceEmbedding

    model = SentenceEmbedding(folder)
    statistics = _covariances(folder)
    for budget in MINILM_BUDGETS:
        for name, method, known in (
            ("ecsq", "ecsq", None),
            ("qswd", "qswd", None),
            ("qswd calibrated", "qswd", statistics),
        ):
            yield _minilm_row(name, folder, model, budget, method, known, options.seed)


def _minilm_row(
    name: str, folder: Path, model: Any, budget: str, method: str, statistics: Mapping[str, Any] | None, seed: int
) -> Row:
    fewbits = load_fewbits("compress", "load")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "minilm.fewbits"
        start = time.perf_counter()
        source = folder / "model.safetensors"
        fewbits.compress(source, file, budget=budget, method=method, statistics=statistics, seed=seed)
        seconds = time.perf_counter() - start
        decoded = {key: tensor.numpy() for key, tensor in fewbits.load(file).items()}
        measured: dict[str, Measured] = {
            "size": file.stat().st_size,
            "relative_error": relative_error(model.tensors, decoded),
            **model.quality(decoded),
            "encode_seconds": round(seconds, 1),
        }
    settings = {"budget": budget, "method": method, "calibration_sentences": CALIBRATION if statistics else 0}
    return Row(f"minilm {name} {budget}", measured, settings=settings)


def _covariances(folder: Path) -> dict[str, Any]:
    """Covariances of what the layers read of the training split's first sentences."""
    import transformers

    fewbits = load_fewbits("input_covariances")
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = data_loaders().stsb(data_file("stsb/stsb-en-train.csv"))
    sentences = [sentence for pair in pairs for sentence in pair[:2]][:CALIBRATION]
    batches = (tokenizer([sentence], return_tensors="pt") for sentence in sentences)
    return fewbits.input_covariances(model, (dict(batch) for batch in batches))
