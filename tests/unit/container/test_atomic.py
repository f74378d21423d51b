import errno
import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fewbits.chunk import Chunk
from fewbits.container import Reader, TensorEntry, atomic, write_file
from fewbits.errors import InvalidArgument
from tests.unit.container.samples import BIAS, SEED, chunk


def write(path: Path, chunks: Iterable[Chunk] | None = None) -> int:
    return write_file(
        path,
        chunks=[chunk(BIAS)] if chunks is None else chunks,
        tensors=[TensorEntry(BIAS)],
        seed=SEED,
        rate_weight=None,
        metadata=None,
    )


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*arguments: Any, **options: Any) -> Any:
        raise error

    return failing


class FullDisk(io.FileIO):
    """Takes ten bytes, then is full."""

    def write(self, data: Any) -> int:
        if self.tell() >= 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(bytes(data)[:10])


def test_writing_gives_the_size_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "net.fewbits"
    assert write(path) == path.stat().st_size
    assert os.listdir(tmp_path) == ["net.fewbits"]
    with Reader(path) as reader:
        assert reader.read_chunk(0).payload == b"payload"


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "in the middle of writing": lambda patch: patch.setattr(
        "builtins.open", lambda path, mode: FullDisk(path, mode)
    ),
    "while syncing": lambda patch: patch.setattr(os, "fsync", fail(OSError(errno.EIO, "I/O error"))),
    "while renaming": lambda patch: patch.setattr(os, "replace", fail(OSError(errno.EIO, "I/O error"))),
    "by interruption": lambda patch: patch.setattr(os, "fsync", fail(KeyboardInterrupt())),
}  # fmt: skip


@pytest.mark.parametrize("when", FAILURES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_the_old_file_and_no_other(
    when: str, existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.fewbits"
    if existing:
        path.write_bytes(b"old")
    with monkeypatch.context() as patch, pytest.raises((OSError, KeyboardInterrupt)) as caught:
        FAILURES[when](patch)
        write(path)
    assert not isinstance(caught.value, InvalidArgument)
    assert os.listdir(tmp_path) == ["net.fewbits"] * existing
    assert not existing or path.read_bytes() == b"old"


def test_chunks_that_fail_while_being_made_leave_the_old_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Chunk]:
        yield chunk(BIAS)
        raise RuntimeError("no more chunks")

    path = tmp_path / "net.fewbits"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write(path, failing())
    assert os.listdir(tmp_path) == ["net.fewbits"]
    assert path.read_bytes() == b"old"


def test_a_target_that_cannot_be_written_is_found_before_the_chunks_are_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    targets = [
        tmp_path,
        tmp_path / "missing" / "x",
        tmp_path / "file" / "x",
        tmp_path / "pipe",
        tmp_path / "a\0b",
    ]
    for path in targets:
        with pytest.raises(InvalidArgument, match="cannot write"):
            write(path, map(fail(AssertionError("chunks were made")), [0]))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_read_only_folder_is_an_invalid_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.fewbits"
    with monkeypatch.context() as patch, pytest.raises(InvalidArgument, match=r"net\.fewbits"):
        patch.setattr(os, "access", lambda *_: False)
        write(path)
    with monkeypatch.context() as patch, pytest.raises(InvalidArgument, match=r"net\.fewbits"):
        patch.setattr("builtins.open", fail(OSError(errno.EROFS, "Read-only file system")))
        write(path)
    assert os.listdir(tmp_path) == []


def test_permissions_of_an_existing_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "net.fewbits"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real.fewbits", tmp_path / "link.fewbits"
    real.write_bytes(b"old")
    link.symlink_to(real)
    size = write(link)
    assert link.is_symlink()
    assert real.stat().st_size == size
    loop = tmp_path / "loop.fewbits"
    loop.symlink_to(loop)
    with pytest.raises(InvalidArgument):
        write(loop)


def test_of_two_writers_each_writes_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "net.fewbits"
    payloads = [bytes([number]) * 100_000 for number in range(4)]

    def work(payload: bytes) -> None:
        for _ in range(10):
            write(path, [chunk(BIAS, payload=payload)])

    threads = [threading.Thread(target=work, args=(payload,)) for payload in payloads]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            with Reader(path) as reader:
                assert reader.read_chunk(0).payload in payloads
    assert os.listdir(tmp_path) == ["net.fewbits"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", fail(PermissionError(errno.EACCES, "Permission denied")))
    assert atomic.write_atomic(tmp_path / "file", [b"a", b"bc"]) == 3
