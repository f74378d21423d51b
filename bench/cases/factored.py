"""Layers that compute from factors, of MiniLM's sizes at 2 bits a weight: what they hold, and their time."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Row
from .timing import Action, interleaved

takes_rivals = False

REPEATS = 200
CALLS = 10  # a run is so many, as one takes microseconds
BITS = 2.0
MOST_HELD = 0.15  # of dense float32
# Outputs and inputs: attention, both halves of the feed-forward net, the word embedding as the head that it may be.
SHAPES = {
    "384 to 384": (384, 384),
    "384 to 1536": (1536, 384),
    "1536 to 384": (384, 1536),
    "384 to 30522": (30522, 384),
}


def rows(options: Options) -> Iterator[Row]:
    """Time forwards from factors and from dense weights in turns, on one thread; weights are Gaussian."""
    need("torch")
    import torch

    fewbits = load_fewbits("compress", "load")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, (outputs, inputs) in SHAPES.items():
            yield _row(fewbits, name, outputs, inputs, options.seed)
    finally:
        torch.set_num_threads(num_threads)


def _row(fewbits: Any, name: str, outputs: int, inputs: int, seed: int) -> Row:
    import torch
    from torch import nn

    from fewbits.nn.factored import held_bytes

    torch.manual_seed(seed)
    dense = nn.Sequential(nn.Linear(inputs, outputs, bias=False)).eval()
    with torch.no_grad():
        dense[0].weight.normal_()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "layer.fewbits"
        report = fewbits.compress(dense, path, bits=BITS, method="qswd", inputs=None)
        empty = nn.Sequential(nn.Linear(inputs, outputs, bias=False)).eval()
        kept = fewbits.load(path, into=empty, keep_factors=True)
        plain = fewbits.load(path, into=dense)
    held = held_bytes(kept) / held_bytes(plain)
    measured: dict[str, Any] = {"size": report.size, "held_share": round(held, 4)}
    for batch in (1, 32):
        given = torch.randn(batch, inputs)
        actions = {what: Action(_calls(net, given)) for what, net in (("factors", kept), ("dense", plain))}
        times = interleaved(actions, REPEATS)
        measured[f"batch{batch}_time_ratio"] = round(times["factors"].seconds() / times["dense"].seconds(), 3)
        measured[f"batch{batch}_dense_us"] = round(1e6 * times["dense"].seconds() / CALLS, 1)
    with torch.no_grad():
        off = float((kept(given) - plain(given)).abs().max() / plain(given).abs().max())
    measured["greatest_difference"] = float(f"{off:.1e}")
    return Row(name, measured, (Figure("held_share", "<=", MOST_HELD),), {"bits": BITS, "weights": "gaussian"})


def _calls(net: Any, given: Any) -> Any:
    import torch

    def run(_: None) -> None:
        with torch.inference_mode():
            for _ in range(CALLS):
                net(given)

    return run
