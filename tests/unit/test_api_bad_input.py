"""What the doors refuse, and that a refusal changes nothing."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewbits
from fewbits.container import atomic
from fewbits.errors import InvalidArgument

TENSORS = {"a": torch.arange(64.0), "b": torch.ones(3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.fewbits"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"budget": 900, "bits": 2.0},
        {"budget": 900, "lossless": True},
        {"bits": 2.0, "lossless": True},
        {"budget": 900, "bits": 2.0, "lossless": True},
    ],
)
def test_exactly_one_of_the_ways_to_say_how_small_is_given(options: dict[str, object], path: Path) -> None:
    with pytest.raises(InvalidArgument, match="give one of budget="):
        fewbits.compress(TENSORS, path, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 0},
        {"bits": -1.0},
        {"bits": float("nan")},
        {"bits": float("inf")},
        {"bits": "2"},
        {"budget": "much"},
        {"budget": -1},
        {"budget": 2.5},
        {"budget": 500, "seed": -1},
        {"budget": 500, "seed": 2**64},
        {"budget": 500, "workers": 0},
        {"budget": 500, "workers": -2},
        {"budget": 500, "workers": "two"},
        {"budget": 500, "seed": 1.5},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, object], path: Path) -> None:
    with pytest.raises(InvalidArgument):
        fewbits.compress(TENSORS, path, **options)
    assert not path.exists()


@pytest.mark.parametrize("value", ["sse2", "AVX2", "avx", " ", "1"])
def test_an_unknown_instruction_set_is_refused_by_every_door(
    value: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewbits.compress(TENSORS, path, lossless=True)
    monkeypatch.setenv("FEWBITS_ISA", value)
    doors: list[Callable[[], object]] = [
        lambda: fewbits.compress(TENSORS, path, lossless=True),
        lambda: fewbits.load(path),
        lambda: fewbits.open(path),
    ]
    for door in doors:
        with pytest.raises(InvalidArgument, match="FEWBITS_ISA"):
            door()


@pytest.mark.parametrize("name", ["back.bin", "back", "back.safetensor", "back.PT"])
def test_decompress_refuses_other_suffixes(name: str, path: Path, tmp_path: Path) -> None:
    fewbits.compress(TENSORS, path, lossless=True)
    with pytest.raises(InvalidArgument, match=r"\.safetensors or \.pt"):
        fewbits.decompress(path, tmp_path / name)


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot write"):
        fewbits.compress("does not matter", tmp_path / "no" / "m.fewbits", lossless=True)
    with pytest.raises(InvalidArgument, match="it is a folder"):
        fewbits.compress(TENSORS, tmp_path, lossless=True)


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        if os.access(folder, os.W_OK):  # the superuser may write everywhere
            monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(InvalidArgument, match="cannot be written to"):
            fewbits.compress(TENSORS, folder / "m.fewbits", lossless=True)
        assert os.listdir(folder) == []
    finally:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("door", ["compress", "decompress"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "m.fewbits", tmp_path / "out.pt"
    fewbits.compress(TENSORS, path, lossless=True)
    fewbits.decompress(path, out)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        if door == "compress":
            fewbits.compress(TENSORS, path, budget=400)
        else:
            fewbits.decompress(path, out)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fewbits.compress(TENSORS, tmp_path / "m.fewbits", budget=400, progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_of_two_writers_each_writes_a_whole_file_and_one_is_kept(path: Path, tmp_path: Path) -> None:
    sources = [{"a": torch.full((5000,), float(i)) + torch.arange(5000.0)} for i in range(2)]
    whole = []
    for i, source in enumerate(sources):
        fewbits.compress(source, tmp_path / f"{i}.fewbits", lossless=True)
        whole.append((tmp_path / f"{i}.fewbits").read_bytes())
    failed: list[BaseException] = []

    def write(source: dict[str, torch.Tensor]) -> None:
        try:
            for _ in range(4):
                fewbits.compress(source, path, lossless=True)
                assert path.read_bytes() in whole
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(os.listdir(tmp_path)) == ["0.fewbits", "1.fewbits", "m.fewbits"]


def test_save_needs_something_attached(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nothing is attached"):
        fewbits.save(torch.nn.Linear(2, 2), path)


def test_no_error_shows_what_a_tensor_holds(path: Path) -> None:
    secret = 123456.75
    with pytest.raises(InvalidArgument) as caught:
        fewbits.compress({"a": torch.full((9,), secret), "b": torch.full((3,), secret).to_sparse()}, path, bits=2.0)
    with pytest.raises(InvalidArgument) as other:
        fewbits.compress({"a": torch.full((9,), secret), "b": [secret]}, path, bits=2.0)
    assert "123456" not in str(caught.value) + str(other.value)
