"""Law 5 on files that `compress` writes: every truncation and every flipped bit is refused by every door."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fewbits
from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument, TooLarge, Truncated
from tests.hostile.samples import first_section_size, small_file


def read_by_name(path: Path) -> None:
    with fewbits.open(path) as archive:
        for name in archive:
            archive[name]


DOORS: dict[str, Callable[[Path], object]] = {
    "load": fewbits.load,
    "verify": fewbits.verify,
    "open": read_by_name,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "damaged.fewbits"


def test_the_attacks_start_from_a_small_file_that_is_read(path: Path) -> None:
    path.write_bytes(small_file())
    assert 300 < len(small_file()) < 1500
    assert {method.id for method in fewbits.info(path).methods} == {"ecsq", "lossless"}
    for door in DOORS.values():
        door(path)


@pytest.mark.parametrize("door", DOORS)
def test_every_truncation_is_truncated(door: str, path: Path) -> None:
    data = small_file()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(Truncated):
            DOORS[door](path)


@pytest.mark.parametrize("door", DOORS)
def test_every_flipped_bit_is_refused_with_the_right_error(door: str, path: Path) -> None:
    data = small_file()
    first = first_section_size(data)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        allowed = (Corrupt,) if bit // 8 >= first else (Corrupt, Truncated, Incompatible, TooLarge)
        with pytest.raises(allowed):
            DOORS[door](path)


def test_bytes_after_the_end_are_corrupt(path: Path) -> None:
    path.write_bytes(small_file() + b"\0")
    for door in DOORS.values():
        with pytest.raises(Corrupt):
            door(path)


def test_an_error_names_a_tensor_or_an_offset_in_one_sentence(path: Path) -> None:
    data = small_file()
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, 8 * len(data), 200).tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(FewbitsError) as caught:
            fewbits.load(path)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 300
        assert message.endswith(".") and not message.endswith("..")


def test_files_that_are_something_else_are_refused(path: Path, tmp_path: Path) -> None:
    for data, error in (
        (b"", Truncated),
        (b"\x89FWB", Truncated),
        (b"PK\x03\x04 a zip", Corrupt),
        (b"\x80\x02}q\x00.", Corrupt),
        (b"\x89PNG\r\n\x1a\n", Corrupt),
        (bytes(1000), Corrupt),
    ):
        path.write_bytes(data)
        for door in DOORS.values():
            with pytest.raises(error):
                door(path)
    for door in DOORS.values():
        with pytest.raises(InvalidArgument):
            door(tmp_path / "missing.fewbits")
        with pytest.raises(InvalidArgument):
            door(tmp_path)
