"""What the free order of hidden units is worth: the committed EPR networks, their units written in other orders."""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Options
from .inputs import load_fewbits, need
from .row import Row

takes_rivals = False

NUM_ORDERS = 10
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def rows(options: Options) -> Iterator[Row]:
    """Write each network as it is, with its live units in random orders, and with all units in random orders."""
    need("torch")
    fewbits = load_fewbits("load", "save")
    sys.path.insert(0, str(RECIPES))
    try:
        from models import LeNet5, LeNet300  # pyright: ignore
    finally:
        sys.path.pop(0)
    for path in sorted((RECIPES / "artifacts").glob("epr_*.fewbits")):
        make = LeNet5 if "lenet5" in path.name else LeNet300
        size = path.stat().st_size
        live = [_size(fewbits, make, path, options.seed + i, whole=False) for i in range(NUM_ORDERS)]
        whole = [_size(fewbits, make, path, options.seed + i, whole=True) for i in range(NUM_ORDERS)]
        measured = {
            "size": size,
            "live_shuffled": statistics.mean(live),
            "all_shuffled": statistics.mean(whole),
            "saved_by_order": round(1 - size / statistics.mean(live), 4),
            "saved_by_order_and_removal": round(1 - size / statistics.mean(whole), 4),
        }
        yield Row(f"fewbits {path.stem}", measured, (), {"orders": NUM_ORDERS, "seed": options.seed})


def _size(fewbits: Any, make: Any, path: Path, seed: int, *, whole: bool) -> int:
    """Bytes of a network's file with its units in a random order: all of them, or the live ones before the others."""
    import torch

    from fewbits.nn.units import dead_units, unit_groups

    generator = torch.Generator().manual_seed(seed)
    network = make()
    latents = fewbits.load(path, into=network, keep_latents=True)
    held = {one.spec.name: one for one in latents.representation.latent_tensors()}
    for group in unit_groups(network):
        dead = dead_units(group, {name: one.integers()[0] for name, one in held.items()})
        num_live = group.size if whole else int((~dead).sum())
        if dead[:num_live].any() and not whole:
            raise RuntimeError(f"{path.name} has dead units among the live ones.")
        order = torch.cat([torch.randperm(num_live, generator=generator), torch.arange(num_live, group.size)])
        for use in group.uses:
            held[use.name].reorder(use.axis, order, use.repeat)
    with tempfile.TemporaryDirectory() as folder:
        return int(fewbits.save(network, Path(folder) / path.name, bare=True, keep_units=True).size)
