"""The rivals: one adapter a file, each with `variants() -> tuple[Rival, ...]`."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np

NAMES = ("constriction", "gguf", "nncodec", "zipnn", "zstd")

Tensors = Mapping[str, np.ndarray]


class Rival(Protocol):
    """Another program at one setting.

    Laws: `decode` gives back every tensor that `encode` was given, with its dtype and shape, except those the
    program cannot hold, which are left out; the caller's arrays are not modified.
    """

    name: str  # the program and its setting, e.g. "nncodec qp -24"
    lossless: bool
    own_seconds: float | None  # of the last call, where the program runs in a process of its own

    def available(self) -> str | None:
        """Return why the program cannot run here, or None if it can."""
        ...

    def versions(self) -> dict[str, str]:
        """Return the program's packages and their versions."""
        ...

    def encode(self, tensors: Tensors, path: Path) -> None:
        """Write one file."""
        ...

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        """Read the file back."""
        ...


def variants(name: str) -> tuple[Rival, ...]:
    """Return a rival at each of its settings."""
    # The module names end in _rival: a module called `gguf` would hide the package of that name from itself.
    return import_module(f"rivals.{name}_rival").variants()


def missing(*distributions: str) -> str | None:
    """Return which of the packages are not installed, as a sentence, or None."""
    absent = [name for name in distributions if not _version(name)]
    return f"{', '.join(absent)} is not installed" if absent else None


def installed(*distributions: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    return {name: found for name in distributions if (found := _version(name))}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
