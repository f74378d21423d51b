"""The files that law 3 compares: `python -m tests.laws.same_bytes` prints the SHA-256 of each as JSON.

Run in a process of its own under each environment that must make no difference.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from torch import Tensor

import fewbits
from fewbits.container import file_bytes
from fewbits.encode import encode
from fewbits.sources import entries_of
from tests.laws.inputs import IDS, SEED, inputs_of, method_of, source_of

SOURCES = ("network", "edges", "large", "every dtype")


def files(executor: Executor | None = None) -> Iterator[tuple[str, bytes]]:
    """Every method's file of several sources, by name."""
    for id in IDS:
        inputs = inputs_of(id)
        for name in SOURCES:
            tensors = inputs.sources[name]()
            rate_weight = inputs.rate_weights[len(inputs.rate_weights) // 2]
            chunks = encode(
                method_of(id, inputs.without_core),
                source_of(id, tensors),
                rate_weight=rate_weight,
                seed=SEED,
                executor=executor,
            )
            data = file_bytes(
                chunks=chunks,
                tensors=entries_of(tensors, copies=False),
                seed=SEED,
                rate_weight=rate_weight,
                metadata=None,
            )
            yield f"{id}, {name}", data


def compressed(folder: Path, workers: int | Executor = 1) -> Iterator[tuple[str, bytes]]:
    """Files that meet a budget: the search over the rate weight is part of what must be the same."""
    tensors = inputs_of("ecsq").sources["network"]()
    few = {"tall": inputs_of("sic").sources["large"]()["tall"][:800, :6]}  # NumPy's search for levels is slow
    given: dict[str, tuple[Mapping[str, Tensor], dict[str, Any]]] = {
        "budget": (tensors, {"budget": 6000}),
        "bits": (tensors, {"bits": 2.5}),
        "lossless": (tensors, {"lossless": True}),
        "curvatures": (few, {"budget": 2000, "method": "sic", "statistics": inputs_of("sic").statistics(few)}),
    }
    for key, (source, arguments) in given.items():
        path = folder / f"{key}.fewbits"
        fewbits.compress(source, path, workers=workers, **arguments)
        yield f"compress, {key}", path.read_bytes()


def digests(named: Iterator[tuple[str, bytes]]) -> dict[str, str]:
    """SHA-256 by name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in named}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        json.dump(digests(files()) | digests(compressed(Path(folder))), sys.stdout)
