"""A small real file to attack, and tools to damage files so that their checksums are right again."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import fewbits
from fewbits.chunk import Chunk
from fewbits.container import Reader, file_bytes


@cache
def small_file() -> bytes:
    """A file of about 600 bytes that `compress` wrote: ecsq and lossless parts, a tie, a copy, metadata-free."""
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.standard_normal((24, 16)).astype(np.float32))
    tensors = {
        "weight": weight,
        "tied": weight,
        "bias": torch.from_numpy(rng.standard_normal(24).astype(np.float16)),
        "steps": torch.tensor([3, 900, -7]),
        "broken": torch.tensor([1.0, float("nan")]),
        "empty": torch.zeros(0, 4),
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.fewbits"
        fewbits.compress(tensors, path, bits=3.0)
        return path.read_bytes()


def repaired(data: bytes, part: int, payload: bytes) -> bytes:
    """The file with one part's payload replaced and every checksum right."""
    with Reader(data) as reader:
        header = reader.header
        chunks: list[Chunk] = [reader.read_chunk(number) for number in range(len(reader.parts))]
    chunks[part] = chunks[part]._replace(payload=payload)
    return file_bytes(
        chunks=chunks,
        tensors=header.tensors,
        seed=header.seed,
        rate_weight=header.rate_weight,
        metadata=header.metadata,
    )


def payloads(data: bytes) -> Sequence[bytes]:
    with Reader(data) as reader:
        return [reader.read_chunk(number).payload for number in range(len(reader.parts))]


def first_section_size(data: bytes) -> int:
    """Bytes before the first payload."""
    with Reader(data) as reader:
        return min(part.offset for part in reader.parts)


def with_check(section: bytes, rest: bytes) -> bytes:
    return section + struct.pack("<I", zlib.crc32(section)) + rest
