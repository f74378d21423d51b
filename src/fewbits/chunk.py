"""What a method hands to the container and gets back: one finished part of a file.

Knows no torch: dtypes are spelled as torch spells them, without the prefix (``"float32"``).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Dtype(NamedTuple):
    """One element type of the file format."""

    code: int  # WIRE: the number in tensor entries; never reused
    itemsize: int  # bytes an element
    kind: str  # "float", "complex", "signed", "unsigned" (bool and opaque bytes count as unsigned)
    mantissa: int = 0  # stored mantissa bits of a float, or of a complex number's two parts


DTYPES: dict[str, Dtype] = {
    "float32": Dtype(0, 4, "float", 23),
    "float16": Dtype(1, 2, "float", 10),
    "bfloat16": Dtype(2, 2, "float", 7),
    "float64": Dtype(3, 8, "float", 52),
    "int8": Dtype(5, 1, "signed"),
    "int16": Dtype(6, 2, "signed"),
    "int32": Dtype(7, 4, "signed"),
    "int64": Dtype(8, 8, "signed"),
    "uint8": Dtype(9, 1, "unsigned"),
    "uint16": Dtype(10, 2, "unsigned"),
    "uint32": Dtype(12, 4, "unsigned"),
    "uint64": Dtype(13, 8, "unsigned"),
    "bool": Dtype(14, 1, "unsigned"),
    "complex32": Dtype(15, 4, "complex", 10),
    "complex64": Dtype(16, 8, "complex", 23),
    "complex128": Dtype(17, 16, "complex", 52),
    "float8_e4m3fn": Dtype(18, 1, "float", 3),
    "float8_e5m2": Dtype(19, 1, "float", 2),
    "float8_e4m3fnuz": Dtype(20, 1, "float", 3),
    "float8_e5m2fnuz": Dtype(21, 1, "float", 2),
    "float8_e8m0fnu": Dtype(22, 1, "unsigned"),
    "float4_e2m1fn_x2": Dtype(23, 1, "unsigned"),
}
DTYPE_NAMES: dict[int, str] = {dtype.code: name for name, dtype in DTYPES.items()}


class TensorSpec(NamedTuple):
    """A tensor's name, dtype (a key of `DTYPES`) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Product of the shape; 1 for a 0-dimensional tensor."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count

    @property
    def num_bytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.num_elements * DTYPES[self.dtype].itemsize

    @property
    def num_rows(self) -> int:
        """Rows of the matrix view: the first dimension, or 1 with fewer than two dimensions."""
        return self.shape[0] if len(self.shape) >= 2 else 1


class Loss(NamedTuple):
    """What one tensor of a chunk lost, and what it cost: sums, so that tiles add up."""

    squared_error: float  # sum of (w - w_hat)^2
    energy: float  # sum of w^2
    bits: float  # estimated, of this tensor's share of the payload
    note: str = ""  # why the tensor was kept exactly, where it could not be coded lossily


class Chunk(NamedTuple):
    """One finished part: its tensors' specs, method and config, seed, payload.

    `span` is None for whole tensors; for a tile of one tensor it is the range (start, stop) of its
    elements in row-major order. `payload` may be a view of a file in memory. `losses` has one entry a tensor, or is
    empty when read from a file.
    """

    method: str
    payload_version: int
    config: Mapping[str, Any]
    seed: int
    tensors: tuple[TensorSpec, ...]
    payload: bytes | memoryview
    span: tuple[int, int] | None = None
    losses: tuple[Loss, ...] = ()
