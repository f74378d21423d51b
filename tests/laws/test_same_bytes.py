"""Law 3: the file depends on the input, the configuration and the seed, and on nothing else."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import fewbits
from fewbits.native import core
from tests.laws import same_bytes, sources

# torch says so once whenever a complex32 tensor is made.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

# The encoder of sic goes by a Cholesky factor and by products of matrices of BLAS, whose last places depend on its
# instruction set and on how many threads it has. So its bytes are promised where these are the same (what they decode
# to, everywhere), and BLAS has what it has in this process. OpenBLAS, NumPy's own, prefers this variable to OpenMP's.
PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
THREADS_OF_BLAS = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or str(PROCESSORS)
SAME_BLAS = {"OPENBLAS_NUM_THREADS": THREADS_OF_BLAS}
# NumPy names its instruction sets one by one before 2.4, and by levels since; names it does not know are ignored.
NO_VECTORS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 F16C AVX512F AVX512_SKX"
ENVIRONMENTS = {
    "one thread, no vectors": {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "ATEN_CPU_CAPABILITY": "default",
        "FEWBITS_ISA": "scalar",
        "NPY_DISABLE_CPU_FEATURES": NO_VECTORS,
    },
    "two threads, AVX2": {
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "FEWBITS_ISA": "avx2",
    },
    "AVX-512, another hash seed": {"FEWBITS_ISA": "avx512", "PYTHONHASHSEED": "7"},
    "the coder written out in NumPy": {"FEWBITS_ISA": "numpy"},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    return same_bytes.digests(same_bytes.files()) | same_bytes.digests(same_bytes.compressed(folder))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_threads_and_instruction_sets_do_not_change_a_file(
    name: str, expected: dict[str, str], repository: Path
) -> None:
    compiled = core()
    if compiled is not None and ENVIRONMENTS[name]["FEWBITS_ISA"] not in ("numpy", *compiled.available_isas()):
        pytest.skip(f"{ENVIRONMENTS[name]['FEWBITS_ISA']} cannot run here")
    places = os.pathsep.join(filter(None, (str(repository), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, "-m", "tests.laws.same_bytes"],
        env=os.environ | ENVIRONMENTS[name] | SAME_BLAS | {"PYTHONPATH": places},
        cwd=repository,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout) == expected


class Shuffling(Executor):
    """Runs what it was given in some other order, when the first result is asked for."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        executor = self

        class Lazy(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                executor.run()
                return super().result(timeout)

        future = Lazy()
        self._waiting.append((future, fn, args))
        return future

    def run(self) -> None:
        random.Random(0).shuffle(self._waiting)
        for future, fn, arguments in self._waiting:
            future.set_result(fn(*arguments))
        self._waiting.clear()


@pytest.mark.parametrize("kind", ["threads", "shuffled", "processes"])
def test_any_executor_gives_the_same_file(kind: str, expected: dict[str, str], tmp_path: Path) -> None:
    executor = {
        "threads": lambda: ThreadPoolExecutor(3),
        "shuffled": Shuffling,
        "processes": lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }[kind]()
    with executor:
        found = same_bytes.digests(same_bytes.files(executor))
        found |= same_bytes.digests(same_bytes.compressed(tmp_path, executor))
    assert found == expected


def test_two_workers_give_the_file_of_one(tmp_path: Path) -> None:
    tensors = sources.network()
    one = fewbits.compress(tensors, tmp_path / "1.fewbits", bits=2.0)
    two = fewbits.compress(tensors, tmp_path / "2.fewbits", bits=2.0, workers=2)
    assert (tmp_path / "1.fewbits").read_bytes() == (tmp_path / "2.fewbits").read_bytes()
    assert (one.size, one.rate_weight) == (two.size, two.rate_weight)


def test_path_and_time_do_not_change_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewbits.compress(sources.network(), tmp_path / "a.fewbits", budget=7000)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(sys, "argv", ["another", "command"])
    other = tmp_path / "folder" / "Umlaut ä.fewbits"
    fewbits.compress(sources.network(), other, budget=7000)
    assert other.read_bytes() == (tmp_path / "a.fewbits").read_bytes()


def test_the_seed_is_stored_and_changes_nothing_else_of_these_methods(tmp_path: Path) -> None:
    loaded = []
    for seed in (0, 1, 2**64 - 1):
        path = tmp_path / f"{seed}.fewbits"
        fewbits.compress(sources.numbers(), path, bits=3, seed=seed)
        assert fewbits.info(path).seed == seed
        loaded.append(fewbits.load(path)["weight"])
    assert loaded[0].equal(loaded[1]) and loaded[1].equal(loaded[2])
