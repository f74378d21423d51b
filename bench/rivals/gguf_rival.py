"""GGUF, the fixed-width format of llama.cpp, with its own Python writer and quantisers."""

from pathlib import Path

import numpy as np

from . import Tensors, installed, missing


class Gguf:
    """Matrices at one block type; other tensors as float16 (two dimensions or more) or as they are."""

    lossless = False
    own_seconds = None

    def __init__(self, block_type: str) -> None:
        self.block_type = block_type
        self.name = f"gguf {block_type}"

    def available(self) -> str | None:
        return missing("gguf")

    def versions(self) -> dict[str, str]:
        return installed("gguf")

    def encode(self, tensors: Tensors, path: Path) -> None:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
        from gguf.quants import quantize

        block_type = GGMLQuantizationType[self.block_type]
        block_size = GGML_QUANT_SIZES[block_type][0]
        writer = GGUFWriter(path, arch="none")
        for name, tensor in tensors.items():
            if tensor.dtype == np.float32 and tensor.ndim == 2 and tensor.shape[1] % block_size == 0:
                writer.add_tensor(name, quantize(tensor, block_type), raw_dtype=block_type)
            elif tensor.dtype == np.float32 and tensor.ndim >= 2:
                writer.add_tensor(name, tensor.astype(np.float16))
            else:
                writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def decode(self, path: Path) -> dict[str, np.ndarray]:
        from gguf import GGMLQuantizationType, GGUFReader
        from gguf.quants import dequantize

        tensors: dict[str, np.ndarray] = {}
        for stored in GGUFReader(path).tensors:
            kind, shape = stored.tensor_type, tuple(int(d) for d in reversed(stored.shape))
            if kind in (GGMLQuantizationType.I64, GGMLQuantizationType.I32, GGMLQuantizationType.F64):
                tensors[stored.name] = np.array(stored.data).reshape(shape)
            else:
                tensors[stored.name] = dequantize(stored.data, kind).astype(np.float32).reshape(shape)
        return tensors


def variants() -> tuple[Gguf, ...]:
    """Return the types of about 8.5 and 4.5 bits a weight."""
    return Gguf("Q8_0"), Gguf("Q4_0")
