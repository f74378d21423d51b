"""The script baseline: one uniform step a tensor, a Gaussian model a tensor, constriction's range coder."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from . import Tensors, installed, missing


class Constriction:
    """Step of 8 standard deviations / `levels`, of the matrices and convolutions only with `exact_vectors`.

    The file is a JSON header (names, shapes, dtypes, five numbers a tensor), its length before it, then one
    stream; tensors that are not float32, or constant, or not finite, follow as they are.
    """

    lossless = False
    own_seconds = None

    def __init__(self, levels: int, exact_vectors: bool = False) -> None:
        self.levels, self.exact_vectors = levels, exact_vectors
        self.name = f"constriction step 8σ/{levels}" + (", vectors exact" if exact_vectors else "")

    def available(self) -> str | None:
        return missing("constriction")

    def versions(self) -> dict[str, str]:
        return installed("constriction")

    def encode(self, tensors: Tensors, path: Path) -> None:
        import constriction

        encoder, header, raw = constriction.stream.queue.RangeEncoder(), [], []
        for name, tensor in tensors.items():
            entry: dict[str, object] = {"name": name, "shape": tensor.shape, "dtype": tensor.dtype.str}
            step = 8 * float(tensor.std()) / self.levels if self._is_coded(tensor) else 0.0
            if step > 0:
                integers = np.round(tensor.ravel() / step).astype(np.int32)
                low, high = int(integers.min()), int(integers.max())
                mean, deviation = float(integers.mean()), float(integers.std())
                entry["model"] = [step, low, high, mean, deviation]
                encoder.encode(integers, _gaussian(low, high, mean, deviation))
            else:
                raw.append(tensor.tobytes())
            header.append(entry)
        words = encoder.get_compressed()
        text = json.dumps({"words": len(words), "tensors": header}, separators=(",", ":")).encode()
        stream = words.astype("<u4").tobytes()
        path.write_bytes(b"".join([struct.pack("<I", len(text)), text, stream, *raw]))

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        import constriction

        data = path.read_bytes()
        start = 4 + struct.unpack_from("<I", data)[0]
        header = json.loads(data[4:start])
        words = np.frombuffer(data, "<u4", header["words"], start).astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        start += 4 * header["words"]
        tensors: dict[str, np.ndarray] = {}
        for entry in header["tensors"]:
            shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
            count = int(np.prod(shape, dtype=np.int64))
            if "model" in entry:
                step, low, high, mean, deviation = entry["model"]
                integers = decoder.decode(_gaussian(low, high, mean, deviation), count)
                values = (integers * step).astype(dtype)
            else:
                values = np.frombuffer(data, dtype, count, start)
                start += values.nbytes
            tensors[entry["name"]] = values.reshape(shape)
        return tensors

    def _is_coded(self, tensor: np.ndarray) -> bool:
        if tensor.dtype != np.float32 or tensor.size == 0 or (self.exact_vectors and tensor.ndim < 2):
            return False
        return bool(np.isfinite(tensor).all())


def _gaussian(low: int, high: int, mean: float, deviation: float) -> Any:
    """A model of the integers low … high; constriction asks for two values and a deviation above 0."""
    import constriction

    return constriction.stream.model.QuantizedGaussian(low, max(high, low + 1), mean, max(deviation, 1e-3))


def variants() -> tuple[Constriction, ...]:
    """Return about 5.1, 3.1 and 2.1 bits a weight, the last two with exact vectors as well."""
    return (
        Constriction(64),
        Constriction(16),
        Constriction(8),
        Constriction(16, exact_vectors=True),
        Constriction(8, exact_vectors=True),
    )
