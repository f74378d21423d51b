"""A network of 250 float32 weights (1,000 bytes): what a file costs beyond names, shapes and payload."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .inputs import load_fewbits, need
from .row import Figure, Measured, Row

takes_rivals = False

FILE_BYTES, PART_BYTES, BARE_BYTES = 64, 8, 24
BITS = 4.0  # a weight, of the lossy rows


def rows(options: Options) -> Iterator[Row]:
    """Measure the full and the bare profile, losslessly and at 4 bits a weight."""
    need("torch")
    fewbits = load_fewbits("compress", "load", "info")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "small.fewbits"
        for bare in (False, True):
            for settings in ({"lossless": True}, {"bits": BITS}):
                yield _row(fewbits, path, settings | {"seed": options.seed, "bare": bare})


def network(seed: int) -> Any:
    """Return two layers, 19 → 9 → 7: 250 weights as torch initialises them."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(19, 9), nn.ReLU(), nn.Linear(9, 7))


def _row(fewbits: Any, path: Path, settings: dict[str, Any]) -> Row:
    source = network(settings["seed"])
    tensors = source.state_dict()
    fewbits.compress(source, path, inputs=None, **settings)
    # Another network: what is in it afterwards came from the file.
    back = fewbits.load(path, into=network(settings["seed"] + 1)).state_dict()
    info = fewbits.info(path)
    size = path.stat().st_size
    overhead = info.overhead["other"]
    bound = BARE_BYTES if settings["bare"] else FILE_BYTES + PART_BYTES * info.num_parts
    measured: dict[str, Measured] = {
        "size": size,
        "payload": info.overhead["payload"],
        "num_parts": info.num_parts,
        "overhead": overhead,
        "bit_exact": all(bool((back[name] == tensor).all()) for name, tensor in tensors.items()),
    }
    asked = [Figure("overhead", "<=", bound)]
    if settings["bare"]:
        # A bare file has nothing else: do not take the reader's word for what is overhead.
        measured["beyond_payload"] = size - info.overhead["payload"]
        asked.append(Figure("beyond_payload", "<=", bound))
    if "lossless" in settings:
        asked.append(Figure("bit_exact", "is", True))
    kind = "lossless" if "lossless" in settings else f"{BITS:g} bits a weight"
    return Row(f"fewbits {'bare ' if settings['bare'] else ''}{kind}", measured, tuple(asked), settings)
