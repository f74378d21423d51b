"""ZipNN (float bytes grouped, exponents Huffman coded) on the tensors as a safetensors file."""

from pathlib import Path

import numpy as np

from . import Tensors, installed, missing


class Zipnn:
    """Lossless compression of the whole file, set to float32."""

    name = "zipnn"
    lossless = True
    own_seconds = None

    def available(self) -> str | None:
        return missing("zipnn", "safetensors")

    def versions(self) -> dict[str, str]:
        return installed("zipnn")

    def encode(self, tensors: Tensors, path: Path) -> None:
        from safetensors.numpy import save
        from zipnn import ZipNN

        # ZipNN reorders its input in place: it gets a buffer that nobody else holds.
        own_copy = bytearray(save(dict(tensors)))
        path.write_bytes(ZipNN(bytearray_dtype="float32", input_format="byte").compress(own_copy))

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        from safetensors.numpy import load
        from zipnn import ZipNN

        raw = ZipNN(bytearray_dtype="float32", input_format="byte").decompress(bytearray(path.read_bytes()))
        return load(bytes(raw))


def variants() -> tuple[Zipnn, ...]:
    """Return the one setting."""
    return (Zipnn(),)
