"""Build the tests and fuzzers of the compiled core that need no Python, once for all tests of a process."""

import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600  # a machine with much else to do; measured: a minute on one core


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """The folder of the build; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="fewbits-native-tests-")


@functools.cache
def _built() -> Path:
    """Build with AddressSanitizer and UndefinedBehaviorSanitizer; return the folder."""
    folder = Path(_folder().name)
    options = ["FEWBITS_PYTHON=OFF", "FEWBITS_TESTS=ON", "FEWBITS_FUZZ=ON", "FEWBITS_SANITIZE=ON"]
    # -O1: sanitized code takes minutes to compile at -O3. The type only keeps the flags of Release away.
    options += ["CMAKE_BUILD_TYPE=Sanitized", "CMAKE_CXX_FLAGS=-O1 -g1", "CMAKE_CXX_COMPILER=g++"]
    for command in (
        ["cmake", "-S", str(ROOT / "native"), "-B", str(folder), *(f"-D{option}" for option in options)],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
        assert "warning: " not in done.stdout + done.stderr, done.stdout[-8000:] + done.stderr[-8000:]
    return folder


def program(name: str) -> Path:
    """Return a sanitized program of the build; skips where it cannot be built."""
    if sys.platform != "linux" or shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("the native tests need Linux, cmake and g++")
    folder = "tests" if name.startswith("test_") else "fuzz"
    return _built() / folder / name


def run(name: str, *arguments: str) -> str:
    """Run a program of the build; its failure is the test's. Returns what it printed."""
    done = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout
