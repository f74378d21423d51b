"""Torch tensors as NumPy arrays of bits or values, and back."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewbits.chunk import DTYPES, Chunk, TensorSpec
from fewbits.errors import InvalidArgument
from fewbits.native import core
from fewbits.quantize.weights import Weights

_WORDS = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8"), 16: np.dtype("<u8")}
LOSSY_DTYPES = ("float32", "float16", "bfloat16", "float64")
LARGEST = 3e38  # greatest magnitude of a lossily coded value: reconstruction is in float32 and must not overflow


def dtype_name(dtype: torch.dtype) -> str:
    """Spell a torch dtype as the file format does."""
    return str(dtype).removeprefix("torch.")


def spec_of(name: str, tensor: Any) -> TensorSpec:
    """Describe a tensor.

    Raises:
        InvalidArgument: fewbits cannot store it: an unknown dtype, or no dense values.
    """
    if not isinstance(tensor, Tensor):
        raise InvalidArgument(f"{name!r} is a {type(tensor).__name__}, not a tensor.")
    if dtype_name(tensor.dtype) not in DTYPES:
        raise InvalidArgument(f"tensor {name!r} has the dtype {dtype_name(tensor.dtype)}, which cannot be stored.")
    if tensor.layout != torch.strided:
        raise InvalidArgument(f"tensor {name!r} is not dense; convert it with to_dense() first.")
    if tensor.is_meta:
        raise InvalidArgument(f"tensor {name!r} is on the meta device and has no values.")
    return TensorSpec(name, dtype_name(tensor.dtype), tuple(tensor.shape))


def bits_of(tensor: Tensor) -> NDArray[np.unsignedinteger]:
    """Return the elements' bits, row-major: (N,) unsigned of the element's width; a complex number is two elements.

    A 16-byte or complex element gives two words, real part first. The tensor is not modified; the result may share
    memory with it and must not be written to.
    """
    spec_dtype = DTYPES[dtype_name(tensor.dtype)]
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    width = spec_dtype.itemsize // 2 if spec_dtype.kind == "complex" else spec_dtype.itemsize
    if not dense.numel():  # contiguous whatever its stride, which may be one that torch refuses to view
        return np.zeros(0, _WORDS[width])
    return dense.view(torch.uint8).numpy().view(_WORDS[width])


def from_bits(bits: NDArray[np.unsignedinteger], dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Undo `bits_of`."""
    octets = np.ascontiguousarray(bits).view(np.uint8)
    return torch.from_numpy(octets).view(getattr(torch, dtype)).reshape(shape)


def values_of(tensor: Tensor) -> NDArray[np.float64]:
    """Return a float tensor's values, row-major: (N,) float64, exact."""
    return tensor.detach().cpu().reshape(-1).to(torch.float64).numpy()


def lossy_weights(spec: TensorSpec, tensor: Tensor) -> tuple[Weights | None, str]:
    """The elements of a tensor that can be coded lossily; else None, and why it is kept exactly."""
    if not spec.dtype.startswith(("float", "bfloat")) or not spec.num_elements:
        return None, ""
    if spec.dtype not in LOSSY_DTYPES:
        return None, f"kept exactly: {spec.dtype} is not coded lossily"
    weights = Weights(bits_of(tensor), spec.dtype)
    if math.isinf(weights.extent.greatest):
        return None, "kept exactly: it holds NaN or Inf"
    if weights.extent.greatest > LARGEST:
        return None, "kept exactly: it is out of float32's range"
    return weights, ""


def lossy_values(spec: TensorSpec, tensor: Tensor) -> tuple[NDArray[np.float64] | None, str]:
    """The values of a tensor that can be coded lossily, (N,) float64; else None, and why it is kept exactly."""
    weights, note = lossy_weights(spec, tensor)
    return (None if weights is None else weights.values()), note


def rounded_to(values: NDArray[np.float32], dtype: str) -> Tensor:
    """Convert float32 values to a tensor of one of the lossy dtypes, to nearest even."""
    return torch.from_numpy(values).to(getattr(torch, dtype))


def destinations(chunk: Chunk, into: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the tensors that a chunk's elements are written to: those of `into`, new ones for the others.

    Args:
        into: by name, contiguous tensors on the CPU with as many elements as the chunk has of each.
    """
    tensors: dict[str, Tensor] = {}
    for spec in chunk.tensors:
        shape = spec.shape if chunk.span is None else (chunk.span[1] - chunk.span[0],)
        given = (into or {}).get(spec.name)
        tensors[spec.name] = empty_tensor(shape, spec.dtype) if given is None else given
    return tensors


def empty_tensor(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return a new tensor on the CPU, its values anything; memory that is quick to fill where it is large."""
    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
    if kernels := core():
        kernels.prefer_huge_pages(bits_of(tensor))
    return tensor
