"""What every method does at the front of a payload: check its version, read its fixed fields, name its tensors."""

import struct

from fewbits.chunk import Chunk, TensorSpec
from fewbits.errors import Corrupt, Incompatible


def check_version(chunk: Chunk, known: int) -> None:
    """Check that a chunk's payload version is the one a method writes.

    Raises:
        Incompatible: it is another.
    """
    if chunk.payload_version != known:
        raise Incompatible(
            f"tensor {chunk.tensors[0].name!r} has {chunk.method} payload version {chunk.payload_version}, "
            f"but this version of fewbits reads version {known} only."
        )


def element_ranges(chunk: Chunk) -> list[tuple[TensorSpec, tuple[int, int]]]:
    """The chunk's tensors, each with the range of its elements that the chunk holds."""
    return [(spec, chunk.span or (0, spec.num_elements)) for spec in chunk.tensors]


def part_of(payload: bytes | memoryview, position: int, size: int) -> tuple[bytes | memoryview, int]:
    """Take `size` bytes of a payload; returns them and the position after them.

    Raises:
        Corrupt: the payload ends before.
    """
    if position + size > len(payload):
        raise Corrupt("a payload's description runs past its end.")
    return payload[position : position + size], position + size


def read_step(payload: bytes | memoryview, position: int, spec: TensorSpec) -> tuple[float, int]:
    """Read a quantiser step; returns it and the position after it.

    Raises:
        Corrupt: it is not finite and above 0.
    """
    field, position = part_of(payload, position, 4)
    (step,) = struct.unpack("<f", field)
    if not 0 < step < float("inf"):
        raise Corrupt(f"tensor {spec.name!r} has a step that is not finite and above 0.")
    return step, position
