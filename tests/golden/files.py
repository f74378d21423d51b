"""Where golden files lie, and what is known of the tensors in them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.container.format import TensorEntry
from fewbits.tensors import bits_of, dtype_name

FOLDER = Path(__file__).resolve().parent / "files"


@dataclass(frozen=True)
class Golden:
    """A golden file `<id>-<payload version>-<case>.fewbits`, and what the JSON beside it says."""

    path: Path
    tensors: Mapping[str, Mapping[str, Any]]  # dtype, shape and sha256 of the little-endian bytes, by name in order
    module: list[tuple[str, str, tuple[int, ...], str | None]] | None  # name, dtype, shape, first name of its memory

    @classmethod
    def read(cls, path: Path) -> "Golden":
        known = json.loads(path.with_suffix(".json").read_text("utf-8"))
        module = known["module"]
        return cls(path, known["tensors"], module and [(n, d, tuple(s), tie) for n, d, s, tie in module])

    def receiver(self) -> nn.Module | None:
        """A module that takes a bare file, its tensors zero."""
        if self.module is None:
            return None
        made = nn.Module()
        for name, dtype, shape, tie in self.module:
            tensor = torch.zeros(shape, dtype=getattr(torch, dtype)) if tie is None else getattr(made, tie)
            made.register_buffer(name, tensor)
        return made


def golden_paths() -> list[Path]:
    return sorted(FOLDER.glob("*.fewbits"))


def described(tensor: Tensor) -> dict[str, Any]:
    """Dtype, shape and digest of a tensor as the JSON files have them."""
    sha256 = hashlib.sha256(bits_of(tensor).tobytes()).hexdigest()
    return {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape), "sha256": sha256}


def digest(array: np.ndarray[Any, Any]) -> str:
    """The digest of an array of the second decoder."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def module_list(entries: tuple[TensorEntry, ...]) -> list[list[Any]]:
    """A module's tensors as the second decoder takes them."""
    return [
        [e.spec.name, e.spec.dtype, list(e.spec.shape), None if e.target is None else entries[e.target].spec.name]
        for e in entries
    ]
