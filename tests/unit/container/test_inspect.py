import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewbits.chunk import Loss
from fewbits.container import info, verify
from fewbits.errors import Corrupt
from tests.unit.container.samples import BIAS, SCALE, WEIGHT, build, chunk, small_bare_file, small_file, spec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "net.fewbits").write_bytes(small_file())
    return tmp_path / "net.fewbits"


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    (tmp_path / "bare.fewbits").write_bytes(small_bare_file())
    return tmp_path / "bare.fewbits"


def test_info_says_what_the_file_holds(path: Path) -> None:
    found = info(path)
    assert (found.size, found.format, found.bare, found.num_parts) == (path.stat().st_size, 1, False, 5)
    assert found.decoded_bytes == 194
    assert found.ratio == 194 / found.size
    tensors = {tensor.name: tensor for tensor in found.tensors}
    assert list(tensors) == ["embedding", "weight", "bias", "head", "large", "scale", "copy"]
    assert (tensors["large"].method, tensors["large"].size, tensors["large"].bits) == ("ecsq", 16, 128)
    assert (tensors["bias"].method, tensors["bias"].size, tensors["bias"].bits) == ("lossless", None, 48)
    assert (tensors["head"].alias_of, tensors["head"].shared, tensors["head"].bits) == (
        "embedding",
        True,
        None,
    )
    assert (tensors["copy"].alias_of, tensors["copy"].shared) == ("bias", False)


def test_info_goes_through_json(path: Path, bare_path: Path, tmp_path: Path) -> None:
    zeros = tmp_path / "zeros.fewbits"
    zeros.write_bytes(build([chunk(BIAS, losses=(Loss(1.0, 0.0, 8.0),))]))
    for one in (path, bare_path, zeros):
        values = info(one).to_json()
        assert json.loads(json.dumps(values, allow_nan=False)) == values
        assert values["size"] == one.stat().st_size


def test_overhead_adds_up_to_the_size(path: Path, bare_path: Path) -> None:
    for one in (path, bare_path):
        found = info(one)
        assert sum(found.overhead.values()) - found.deflate_saving == found.size
        assert found.overhead["payload"] == 42


@pytest.mark.parametrize("pooled", [False, True])
def test_a_thousand_byte_model_has_at_most_64_bytes_and_8_a_part_of_framing(pooled: bool, tmp_path: Path) -> None:
    tensors = [spec(f"layers.{i}.weight", 8, 8) for i in range(5)]
    chunks = [chunk(*tensors, payload=bytes(1000))] if pooled else [
        chunk(tensor, payload=bytes(200)) for tensor in tensors
    ]  # fmt: skip
    path = tmp_path / "net.fewbits"
    path.write_bytes(build(chunks))
    found = info(path)
    assert found.overhead["other"] <= 64 + 8 * len(chunks)
    assert found.overhead["payload"] == 1000


@pytest.mark.parametrize("tensors", [[WEIGHT], [WEIGHT, BIAS, SCALE]])
def test_a_bare_file_of_one_part_has_at_most_24_bytes_beyond_the_payload(tensors: list) -> None:
    assert len(build([chunk(*tensors, payload=bytes(1000))], bare=True)) <= 1000 + 24


def test_verify_says_how_many_bytes_are_whole(path: Path, bare_path: Path) -> None:
    assert verify(path) == path.stat().st_size
    assert verify(bare_path) == bare_path.stat().st_size
    for one in (path, bare_path):
        data = bytearray(one.read_bytes())
        data[-8] ^= 1
        one.write_bytes(data)
        with pytest.raises(Corrupt):
            verify(one)


def test_info_and_verify_are_quick_and_do_not_import_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.fewbits"
    tensors = [spec(f"layers.{i}.weight", 100, 1000) for i in range(100)]
    path.write_bytes(build([chunk(tensor, payload=bytes(100_000)) for tensor in tensors]))
    script = (
        "import sys; from fewbits.container import info, verify; info(sys.argv[1]); verify(sys.argv[1]);"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert time.perf_counter() - start < 2  # measured: 0.1 s; the machine may be busy
