"""The CRC of the compiled core is zlib's, and a file's parts are read whole, by several threads at a time."""

import os
import random
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits import native
from fewbits.container import Reader
from fewbits.errors import Truncated
from tests.unit.container.samples import build, chunk, spec

DATA = random.Random(3).randbytes((1 << 16) + 64)
STARTS = (0, 1, 0xFFFFFFFF, 0x12345678)
KINDS = ("scalar", "")  # the portable code; the best that this machine has


@pytest.fixture(params=KINDS)
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The core, set to each implementation in turn."""
    monkeypatch.setenv("FEWBITS_ISA", request.param)
    return need_core()


def need_core() -> Any:
    """Return the compiled core as FEWBITS_ISA sets it; skips the test where there is none."""
    core = native.core()
    if core is None:
        pytest.skip("there is no compiled core")
    return core


def test_every_short_length_at_every_alignment(compiled: Any) -> None:
    data = memoryview(DATA)
    for length in range(301):
        for shift in range(17) if length % 7 == 0 else (length % 16,):
            piece = data[shift : shift + length]
            for start in STARTS:
                assert compiled.crc32(piece, start) == zlib.crc32(piece, start), (length, shift, start)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("length", [(1 << 14) - 1, 1 << 14, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_long_bytes(length: int) -> None:
    for shift in (0, 1, 8, 15):
        piece = DATA[shift : shift + length]
        assert native.crc32(piece) == zlib.crc32(piece)
        assert native.crc32(memoryview(DATA)[shift : shift + length], 5) == zlib.crc32(piece, 5)
        assert native.crc32(bytearray(piece), 5) == zlib.crc32(piece, 5)


@pytest.mark.parametrize("byte", [0, 255])
def test_equal_bytes_count(compiled: Any, byte: int) -> None:
    """Zeros in front of a message or after it change its CRC: a wrong length is found."""
    for length in range(200):
        piece = bytes([byte]) * length
        assert compiled.crc32(piece) == zlib.crc32(piece)


@given(data=st.binary(max_size=400), cut=st.integers(0, 400), start=st.integers(-(1 << 40), 1 << 40))
@pytest.mark.parametrize("kind", KINDS)
def test_a_crc_continues(kind: str, data: bytes, cut: int, start: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", kind)
        core = need_core()
        whole = zlib.crc32(data, start)
        assert core.crc32(data, start) == whole
        assert core.crc32(data[cut:], core.crc32(data[:cut], start)) == whole


def test_what_has_no_bytes_is_refused(compiled: Any) -> None:
    for wrong in ("text", 5, None, memoryview(DATA)[::2]):
        with pytest.raises((TypeError, BufferError)):
            compiled.crc32(wrong)


def test_zlib_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", "numpy")
    assert native.crc32(DATA, 9) == zlib.crc32(DATA, 9)


def test_looking_at_little_loads_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "core", lambda: pytest.fail("the core was asked for"))
    assert native.crc32(b"a header") == zlib.crc32(b"a header")


def large_file(path: Path) -> list[bytes]:
    """Write a file of eight parts of 100 kB or so; return their payloads."""
    generator = random.Random(4)
    payloads = [generator.randbytes(100_000 + number) for number in range(8)]
    path.write_bytes(build([chunk(spec(f"t{n}", 40, 40), payload=payload) for n, payload in enumerate(payloads)]))
    return payloads


def test_threads_read_parts_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "large.fewbits"
    payloads = large_file(path)
    with open(path, "rb") as file:
        for source in (path, path.read_bytes(), file):
            with Reader(source) as reader, ThreadPoolExecutor(4) as pool:
                found = list(pool.map(reader.read_chunk, list(range(8)) * 8))
                assert [each.payload for each in found] == payloads * 8
                assert reader.check() == path.stat().st_size


def test_a_read_that_gives_less_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.fewbits"
    payloads = large_file(path)
    if hasattr(os, "pread"):
        whole = os.pread
        monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: whole(descriptor, min(size, 999), offset))
    with Reader(path) as reader:
        assert [reader.read_chunk(part).payload for part in range(8)] == payloads


def test_a_file_that_became_shorter_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "large.fewbits"
    payloads = large_file(path)
    with Reader(path) as reader:
        os.truncate(path, path.stat().st_size - 1)
        assert reader.read_chunk(6).payload == payloads[6]
        with pytest.raises(Truncated, match=f"ends at byte offset {path.stat().st_size}, before"):
            reader.read_chunk(7)
