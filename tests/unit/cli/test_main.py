"""The command: its words go to the library as they are, its errors are one line with a documented code."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fewbits
from fewbits.chunk import Chunk, TensorSpec
from fewbits.cli.main import main
from fewbits.container import TensorEntry, write_file
from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument, TooLarge, Truncated
from fewbits.report import Report

REPORT = Report(
    path="m.fewbits",
    size=1_000,
    source_size=8_000,
    num_weights=200,
    bits_per_weight=4.0,
    estimated_bits=790.0,
    actual_bits=800,
    overall_error=0.2,
    worst_tensor="a",
    worst_error=0.25,
    seconds=1.5,
    rate_weight=0.01,
)

Api = SimpleNamespace


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """Stand in for `fewbits.api`: records each call; `error` is what it raises."""
    fake = SimpleNamespace(calls=[], error=None)

    def function(result: object) -> Callable[..., Any]:
        def call(*args: object, **options: object) -> object:
            fake.calls.append((args, options))
            if fake.error is not None:
                raise fake.error
            return result

        return call

    def decompress(file: Path, out: Path, *, limit: int | None) -> None:
        function(None)(file, out, limit=limit)
        out.write_bytes(b"12345")

    fake.compress, fake.decompress = function(REPORT), decompress
    monkeypatch.setitem(sys.modules, "fewbits.api", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(fewbits, "api", fake, raising=False)
    return fake


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; return exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of one part whose payload is any bytes: info and verify decode nothing."""
    spec = TensorSpec("layer.weight", "float32", (4, 8))
    chunk = Chunk("ecsq", 1, {}, 0, (spec,), b"payload")
    path = tmp_path / "m.fewbits"
    write_file(path, chunks=[chunk], tensors=[TensorEntry(spec)], seed=0, rate_weight=0.1, metadata={"a": "b"})
    return path


Run = Callable[..., tuple[int, str, str]]


def test_compress_passes_every_option_on(api: Api, run: Run) -> None:
    code, out, err = run(
        "compress",
        "in.pt",
        "-o",
        "m.fewbits",
        "--budget",
        "8.6MB",
        "--workers",
        3,
        "--seed",
        7,
        "--bare",
        "--method",
        "qswd",
    )
    assert (code, err) == (0, "")
    (args, options), *_ = api.calls
    assert args == (Path("in.pt"), Path("m.fewbits"))
    assert options == {
        "budget": "8.6MB",
        "bits": None,
        "lossless": False,
        "max_error": None,
        "method": "qswd",
        "workers": 3,
        "seed": 7,
        "bare": True,
        "progress": None,
    }
    assert "1,000 B of 8,000 B" in out


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--bits", 2.5], {"bits": 2.5}),
        (["--lossless"], {"lossless": True}),
        (["--max-error", 0.1], {"max_error": 0.1}),
        ([], {"budget": None}),
    ],
)
def test_compress_leaves_the_choice_of_rate_to_the_library(
    api: Api, run: Run, option: list[object], expected: dict[str, object]
) -> None:
    assert run("compress", "in.pt", "-o", "m.fewbits", *option)[0] == 0
    assert api.calls[0][1].items() >= expected.items()


def test_compress_json_is_the_report(api: Api, run: Run) -> None:
    code, out, _ = run("compress", "in.pt", "-o", "m.fewbits", "--json")
    assert (code, json.loads(out)) == (0, REPORT.to_json())


def test_decompress_parses_the_limit_and_says_what_it_wrote(api: Api, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "back.pt"
    code, out, _ = run("decompress", "m.fewbits", "-o", target, "--limit", "2GB")
    assert (code, out) == (0, f"{target}: 5 B\n")
    assert api.calls[0] == ((Path("m.fewbits"), target), {"limit": 2 * 10**9})


@pytest.mark.parametrize(
    ("error", "expected"),
    [(InvalidArgument, 2), (Incompatible, 3), (Corrupt, 4), (Truncated, 5), (TooLarge, 6), (FewbitsError, 1)],
)
def test_each_error_has_its_code_and_one_line(api: Api, run: Run, error: type[FewbitsError], expected: int) -> None:
    api.error = error("tensor 'a' cannot\nbe read.")
    assert run("compress", "in.pt", "-o", "m.fewbits") == (
        expected,
        "",
        "fewbits: error: tensor 'a' cannot be read.\n",
    )


def test_system_error_names_the_file_and_gives_one(api: Api, run: Run) -> None:
    api.error = FileNotFoundError(2, "No such file or directory", "in.pt")
    code, _, err = run("compress", "in.pt", "-o", "m.fewbits")
    assert (code, err) == (1, "fewbits: error: in.pt: No such file or directory\n")


def test_fault_of_ours_does_not_quote_its_text(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEWBITS_DEBUG", raising=False)
    api.error = RuntimeError("tensor([0.1234])")
    code, _, err = run("compress", "in.pt", "-o", "m.fewbits")
    assert code == 1
    assert "0.1234" not in err
    assert "RuntimeError" in err


def test_debug_variable_shows_the_traceback(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWBITS_DEBUG", "1")
    api.error = Corrupt("broken.")
    code, _, err = run("compress", "in.pt", "-o", "m.fewbits")
    assert code == 4
    assert "Traceback" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress"],
        ["compress", "in.pt"],
        ["compress", "in.pt", "-o", "x", "--bits", "few"],
        ["compress", "in.pt", "-o", "x", "--nonsense"],
        ["nonsense"],
    ],
)
def test_mistyped_call_gives_two_and_one_line(api: Api, run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fewbits: error: ")
    assert err.count("\n") == 1
    assert api.calls == []


def test_no_word_at_all_shows_help_and_gives_two(run: Run) -> None:
    code, out, _ = run()
    assert code == 2
    assert "compress" in out


@pytest.mark.parametrize("word", [[], ["compress"], ["decompress"], ["info"], ["verify"], ["demo"]])
def test_help_documents_the_exit_codes(run: Run, word: list[str]) -> None:
    code, out, _ = run(*word, "--help")
    assert code == 0
    assert "Exit codes" in out


def test_version_is_printed(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("fewbits")


def test_info_lists_the_tensors(run: Run, file: Path) -> None:
    code, out, err = run("info", file)
    assert (code, err) == (0, "")
    assert f"{file.stat().st_size:,} B" in out
    assert "layer.weight" in out
    assert "4×8" in out


def test_info_json_is_the_info(run: Run, file: Path) -> None:
    code, out, _ = run("info", file, "--json")
    assert (code, json.loads(out)["tensors"][0]["name"]) == (0, "layer.weight")


def test_verify_counts_the_bytes(run: Run, file: Path) -> None:
    assert run("verify", file) == (0, f"{file}: sound, {file.stat().st_size:,} B checked\n", "")


def test_verify_refuses_damage(run: Run, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, out, err = run("verify", file)
    assert (code, out) == (4, "")
    assert "layer.weight" in err


def test_verify_refuses_a_cut_file(run: Run, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    assert run("verify", file)[0] == 5


@pytest.mark.parametrize("word", ["info", "verify"])
def test_missing_file_is_named_and_gives_two(run: Run, tmp_path: Path, word: str) -> None:
    code, _, err = run(word, tmp_path / "none.fewbits")
    assert code == 2
    assert "none.fewbits" in err
    assert "no such file" in err


@pytest.mark.parametrize("word", ["info", "verify"])
def test_file_beyond_the_limit_gives_six(api: Api, run: Run, file: Path, word: str) -> None:
    assert run(word, file, "--limit", "100")[0] == 6
    assert run(word, file, "--limit", "1000")[0] == 0


@pytest.mark.parametrize("word", [["info", "FILE"], ["verify", "FILE"], ["--help"], ["compress", "--help"]])
def test_quick_words_import_no_torch(file: Path, word: list[str]) -> None:
    arguments = [str(file) if argument == "FILE" else argument for argument in word]
    program = f"""
import sys
from fewbits.cli.main import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_module_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "fewbits", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("fewbits: error: ")
