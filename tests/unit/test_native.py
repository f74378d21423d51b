"""The door to the compiled core: what the environment may ask for, and what serves where there is no core."""

import platform
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import fewbits
from fewbits import native
from fewbits.errors import InvalidArgument


@pytest.fixture(autouse=True)
def fresh_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts as a process does, with an empty environment; the next user finds the door as it was."""
    monkeypatch.delenv("FEWBITS_ISA", raising=False)
    monkeypatch.delenv("FEWBITS_THREADS", raising=False)
    if native._isa_in_use:
        native.core()
    compiled = native._compiled
    compiled.cache_clear()
    yield
    compiled.cache_clear()


@pytest.fixture
def no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the compiled core fails, as where there was no compiler."""
    monkeypatch.setitem(sys.modules, "fewbits._core", None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A core that has scalar and AVX2 code only; the list of what it was told to use."""
    names: list[str] = []
    fake = SimpleNamespace(available_isas=lambda: ["scalar", "avx2"], use_isa=names.append)
    monkeypatch.setattr(native, "_compiled", lambda: fake)
    monkeypatch.setattr(native, "_isa_in_use", "")
    return names


@pytest.mark.usefixtures("no_core")
def test_a_missing_core_is_said_once_and_numpy_serves() -> None:
    with pytest.warns(RuntimeWarning, match="no compiled core") as said:
        assert native.core() is None
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.core() is None


@pytest.mark.usefixtures("no_core")
def test_a_worker_leaves_it_to_the_process_that_started_it_to_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.multiprocessing, "parent_process", lambda: object())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.core() is None


def test_importing_fewbits_says_nothing_of_a_missing_core() -> None:
    program = "import sys; sys.modules['fewbits._core'] = None; import fewbits.api, fewbits.native"
    result = subprocess.run(
        [sys.executable, "-W", "error:fewbits:RuntimeWarning", "-c", program], capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()


@pytest.mark.usefixtures("no_core")
@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_without_a_core_every_known_instruction_set_is_numpy(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    with pytest.warns(RuntimeWarning, match="no compiled core"):
        assert native.core() is None


@pytest.mark.usefixtures("no_core")
def test_numpy_that_was_asked_for_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", "numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.core() is None


@pytest.mark.parametrize("isa", ["sse2", "AVX2", "avx", " ", "1", "numpy "])
def test_an_unknown_instruction_set_is_refused(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", isa)
    with pytest.raises(InvalidArgument, match="must be one of numpy, scalar, avx2, avx512, or unset"):
        native.core()


def test_an_instruction_set_that_the_machine_lacks_is_refused(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_ISA", "avx512")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=r"'avx512'.* it has scalar, avx2"):
            native.core()
    assert told == []


def test_the_core_is_told_of_changes_only(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in ("", "scalar", "scalar", "numpy", "scalar", "avx2", ""):
        monkeypatch.setenv("FEWBITS_ISA", isa)
        native.core()
    assert told == ["scalar", "avx2", ""]


def test_a_core_lists_its_instruction_sets_and_refuses_others() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        core = native.core()
    if core is None:
        pytest.skip("there is no compiled core here")
    available = core.available_isas()
    assert available[0] == "scalar"
    assert set(available) <= set(native.ISAS) - {"numpy"}
    with pytest.raises(InvalidArgument):
        core.use_isa("numpy")


@pytest.mark.parametrize("text", ["1", "2", "064", "999999999"])
def test_threads_may_be_given(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_THREADS", text)
    assert native.num_threads() == int(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", " 2", "²", "1_0", "9" * 5000])
def test_a_number_of_threads_that_makes_no_sense_is_refused_by_every_door(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBITS_THREADS", text)
    for door in (native.num_threads, lambda: fewbits.open("does not matter"), lambda: fewbits.load("likewise")):
        with pytest.raises(InvalidArgument, match="FEWBITS_THREADS"):
            door()


def test_threads_are_the_processors_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.num_threads() >= 1
    monkeypatch.setattr(native.os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert native.num_threads() == 3
    monkeypatch.delattr(native.os, "sched_getaffinity")
    monkeypatch.setattr(native.os, "cpu_count", lambda: None)
    assert native.num_threads() == 1


@pytest.mark.skipif(native.core() is None, reason="the core gives memory back")
def test_memory_that_is_free_is_given_back() -> None:
    status = Path("/proc/self/status")
    if platform.libc_ver()[0] != "glibc" or not status.is_file():
        native.release_memory()
        pytest.skip("the C library keeps nothing, or the system does not say what is resident")
    script = """
        from pathlib import Path
        from fewbits.native import release_memory

        def resident():
            return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

        held = [b"x" * (1 << 16) for _ in range(2000)]
        last = held.pop()  # below it the heap does not shrink by itself
        held.clear()
        before = resident()
        release_memory()
        print(before - resident())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000  # kB, of 131,000


@pytest.mark.usefixtures("no_core")
def test_without_a_core_memory_is_left_to_the_system() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native.release_memory()
