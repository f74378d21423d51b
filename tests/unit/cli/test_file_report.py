"""`fewbits report`: its numbers are those of the file and the original, its page says them."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import fewbits
from fewbits.cli.file_report import BINS, report_on
from fewbits.cli.file_report_page import COLUMNS, MOST_LINES, rows, write_page
from fewbits.cli.main import main
from fewbits.errors import InvalidArgument


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "fine": torch.randn(40, 60, generator=generator),
        "<b>coarse</b>": torch.randn(50, 70, generator=generator) * 0.001,
        "half": torch.randn(300, generator=generator).half(),
        "counter": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original.safetensors"
    save_file(tensors(), path)
    return path


@pytest.fixture
def file(tmp_path: Path, original: Path) -> Path:
    path = tmp_path / "file.fewbits"
    fewbits.compress(original, path, bits=3.0)
    return path


def test_errors_are_those_between_the_original_and_what_is_loaded(file: Path, original: Path) -> None:
    report = report_on(file, against=original)
    loaded, before = fewbits.load(file), tensors()
    found = {line.name: line for line in report.tensors}
    assert set(found) == set(before)
    total = sum(float((loaded[n].double() - t.double()).square().sum()) for n, t in before.items())
    energy = sum(float(t.double().square().sum()) for n, t in before.items() if t.is_floating_point())
    assert report.overall_error == pytest.approx((total / energy) ** 0.5)
    for name in ("fine", "<b>coarse</b>", "half"):
        difference = (loaded[name].double() - before[name].double()).norm() / before[name].double().norm()
        assert found[name].relative_error == pytest.approx(float(difference))
    assert sum(line.error_share or 0.0 for line in report.tensors) == pytest.approx(1.0)
    shares = [line.error_share or 0.0 for line in report.tensors]
    assert shares == sorted(shares, reverse=True)
    assert found["counter"].error_share is None and found["empty"].relative_error == 0.0


def test_histograms_count_every_finite_value_within_reach(file: Path, original: Path) -> None:
    report = report_on(file, against=original, tensors=["half"])
    assert report.histograms[0].name == "half"
    for histogram in report.histograms:
        before = tensors()[histogram.name].float()
        assert histogram.before is not None
        assert len(histogram.before) == len(histogram.after) == BINS
        assert sum(histogram.before) == int((before.abs() <= histogram.reach).sum())


def test_the_curve_is_of_files_that_lose_less_as_they_grow(file: Path, original: Path) -> None:
    curve = report_on(file, against=original).curve
    assert len(curve) >= 4
    assert [point.size for point in curve] == sorted(point.size for point in curve)
    errors = [point.relative_error for point in curve]
    assert errors == sorted(errors, reverse=True)
    assert curve[0].size < file.stat().st_size < curve[-1].size


def test_without_an_original_the_records_of_the_file_are_shown(file: Path) -> None:
    report = report_on(file)
    recorded = {tensor.name: tensor.relative_error for tensor in fewbits.info(file).tensors}
    assert {line.name: line.relative_error for line in report.tensors} == recorded
    assert report.curve == () and report.overall_error is None
    assert all(histogram.before is None for histogram in report.histograms)


def test_a_lossless_file_has_a_curve_and_no_error(tmp_path: Path, original: Path) -> None:
    path = tmp_path / "lossless.fewbits"
    fewbits.compress(original, path, lossless=True)
    report = report_on(path, against=original)
    assert report.overall_error == 0.0
    assert report.curve
    assert report.command is not None and "--lossless" in report.command


def test_the_command_makes_a_file_of_that_size(
    file: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = report_on(file, against=original).command
    assert command is not None
    again = tmp_path / "again.fewbits"
    words = command.replace(str(file), str(again)).split()
    assert words[0] == "fewbits"
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    assert stopped.value.code == 0
    assert 0.98 * file.stat().st_size <= again.stat().st_size <= file.stat().st_size
    capsys.readouterr()


def test_the_page_stands_alone_and_names_are_text(file: Path, original: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = report_on(file, against=original)
    write_page(report, page)
    text = page.read_text("utf-8")
    assert "<b>coarse</b>" not in text and "&lt;b&gt;coarse&lt;/b&gt;" in text
    assert not re.search(r"""(src|href)\s*=|url\(|https?://(?!www\.w3\.org)""", text)
    assert text.count('<div class="histogram">') == len(report.histograms)
    for column in COLUMNS:
        assert f"<button>{column}</button>" in text
    for row in rows(report):
        assert row[3] in text


def test_a_long_table_ends_and_says_so(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_LINES >= 1000
    monkeypatch.setattr("fewbits.cli.file_report_page.MOST_LINES", 2)
    page = tmp_path / "page.html"
    write_page(report_on(file), page)
    assert "3 tensors more are in fewbits info." in page.read_text("utf-8")


def test_the_command_line_writes_the_page_beside_the_file(
    file: Path, original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(file), "--against", str(original), "--json"])
    assert stopped.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["page"] == str(file.with_suffix(".html")) and Path(said["page"]).exists()
    assert said["overall_error"] > 0 and len(said["curve"]) >= 4


@pytest.mark.parametrize("what", ["name", "shape", "tensor", "bare"])
def test_what_does_not_belong_together_is_refused(what: str, file: Path, original: Path, tmp_path: Path) -> None:
    other = tensors()
    if what == "name":
        other["new"] = other.pop("fine")
    if what == "shape":
        other["fine"] = other["fine"].T.contiguous()
    save_file(other, tmp_path / "other.safetensors")
    if what == "bare":
        module = torch.nn.Linear(30, 40)
        fewbits.compress(module, tmp_path / "bare.fewbits", bits=4.0, bare=True)
        with pytest.raises(InvalidArgument, match="bare"):
            report_on(tmp_path / "bare.fewbits")
        return
    with pytest.raises(InvalidArgument, match=r"fine|nothing"):
        report_on(file, against=tmp_path / "other.safetensors", tensors=["nothing"] if what == "tensor" else [])
