"""Zstandard on the tensors as a safetensors file."""

from pathlib import Path

import numpy as np

from . import Tensors, installed, missing


class Zstd:
    """General-purpose lossless compression of the whole file at one level."""

    lossless = True
    own_seconds = None

    def __init__(self, level: int) -> None:
        self.level = level
        self.name = f"zstd level {level}"

    def available(self) -> str | None:
        return missing("zstandard", "safetensors")

    def versions(self) -> dict[str, str]:
        return installed("zstandard")

    def encode(self, tensors: Tensors, path: Path) -> None:
        import zstandard
        from safetensors.numpy import save

        path.write_bytes(zstandard.ZstdCompressor(level=self.level).compress(save(dict(tensors))))

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        import zstandard
        from safetensors.numpy import load

        return load(zstandard.ZstdDecompressor().decompress(path.read_bytes()))


def variants() -> tuple[Zstd, ...]:
    """Return levels 9 and 19."""
    return Zstd(9), Zstd(19)
