"""Parts decoded by several threads: the same tensors, and the first part's error."""

import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from fewbits.chunk import Chunk
from fewbits.encode import Unread, decode_parts, encode
from fewbits.errors import Corrupt
from fewbits.method import Source
from fewbits.methods.lossless import Lossless
from fewbits.native import core


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"t{n}": torch.randn(n + 1, 5000, generator=generator) for n in range(9)}


def parts_of(read: Callable[[Chunk], Chunk]) -> list[Unread]:
    # Each by itself: together they would be one group.
    chunks = [
        chunk for item in tensors().items() for chunk in encode(Lossless(), Source(dict([item])), rate_weight=0.0)
    ]
    return [Unread(len(chunk.payload), partial(read, chunk)) for chunk in chunks]


@pytest.mark.parametrize("num_threads", ["1", "2", "3", "20"])
def test_each_part_is_decoded_once(num_threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_THREADS", num_threads)
    read: list[str] = []

    def noted(chunk: Chunk) -> Chunk:
        read.append(chunk.tensors[0].name)
        return chunk

    decoded, expected = decode_parts(parts_of(noted)), tensors()
    assert sorted(read) == list(decoded) == list(expected)  # in their order
    assert all(torch.equal(decoded[name], tensor) for name, tensor in expected.items())


@pytest.mark.skipif(core() is None, reason="without the compiled core one thread decodes all parts")
def test_the_largest_and_the_smallest_parts_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_THREADS", "2")
    both = threading.Barrier(2, timeout=60)
    first: list[str] = []

    def together(chunk: Chunk) -> Chunk:
        if len(first) < 2:
            first.append(chunk.tensors[0].name)
            both.wait()
        return chunk

    decode_parts(parts_of(together))
    assert sorted(first) == ["t0", "t8"]


@pytest.mark.parametrize("num_threads", ["1", "2", "5"])
def test_of_parts_that_fail_the_first_ones_error_is_raised(num_threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_THREADS", num_threads)
    read: list[str] = []

    def failing(chunk: Chunk) -> Chunk:
        name = chunk.tensors[0].name
        read.append(name)
        if name in ("t2", "t4", "t8"):
            raise Corrupt(f"tensor {name} is damaged.")
        return chunk

    with pytest.raises(Corrupt, match="tensor t2 is damaged"):
        decode_parts(parts_of(failing))
    assert {"t0", "t1", "t2"} <= set(read)  # what comes before it was looked at
