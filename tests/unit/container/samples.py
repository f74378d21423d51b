"""Small files with dummy payloads, for the container's tests."""

from collections.abc import Sequence
from typing import Any

from fewbits.chunk import Chunk, Loss, TensorSpec
from fewbits.container import TensorEntry, file_bytes

SEED = 7


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


def chunk(*tensors: TensorSpec, payload: bytes = b"payload", **changes: Any) -> Chunk:
    losses = tuple(Loss(1.0, 10000.0, 8.0 * len(payload)) for _ in tensors)
    return Chunk("ecsq", 1, {"rdoq": True}, SEED, tensors, payload, losses=losses)._replace(**changes)


def build(chunks: Sequence[Chunk], tensors: Sequence[TensorEntry] | None = None, **options: Any) -> bytes:
    """A file of these chunks; by default of their tensors in the chunks' order, without aliases."""
    if tensors is None:
        specs = dict.fromkeys(tensor for one in chunks for tensor in one.tensors)
        tensors = [TensorEntry(tensor) for tensor in specs]
    defaults: dict[str, Any] = {"seed": SEED, "rate_weight": 0.5, "metadata": None}
    return file_bytes(chunks=chunks, tensors=tensors, **(defaults | options))


WEIGHT, BIAS, LARGE, SCALE = spec("weight", 3, 4), spec("bias", 4), spec("large", 10, 2), spec("scale")
EMBEDDING = spec("embedding", 5, 3, dtype="bfloat16")

# Two stored tensors pooled, one whole, one in tiles, a tie and an equal copy; two methods.
TENSORS = (
    TensorEntry(EMBEDDING),
    TensorEntry(WEIGHT),
    TensorEntry(BIAS),
    TensorEntry(spec("head", 5, 3, dtype="bfloat16"), 0, True),
    TensorEntry(LARGE),
    TensorEntry(SCALE),
    TensorEntry(spec("copy", 4), 2, False),
)
CHUNKS = (
    chunk(BIAS, SCALE, payload=b"pooled", method="lossless", config={}),
    chunk(EMBEDDING, payload=b"an embedding"),
    chunk(WEIGHT, payload=b"a weight"),
    chunk(LARGE, payload=b"first tile", span=(0, 8)),
    chunk(LARGE, payload=b"second", span=(8, 20)),
)


def small_file() -> bytes:
    return build(CHUNKS, TENSORS, metadata={"format": "pt"})


BARE_SPECS = tuple(entry.spec for entry in TENSORS if entry.target is None)


def small_bare_file() -> bytes:
    return build(CHUNKS, [TensorEntry(tensor) for tensor in BARE_SPECS], bare=True)
