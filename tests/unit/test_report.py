"""The report: what people and machines read of one `compress`."""

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from io import StringIO

import pytest
from rich.console import Console

from fewbits.report import SHOWN_TENSORS, Report, TensorReport, aligned


def tensor(name: str = "a", bits: float = 800.0, shape: tuple[int, ...] = (10, 20), **fields: object) -> TensorReport:
    values = {"dtype": "float32", "method": "ecsq", "relative_error": 0.25, **fields}
    return TensorReport(name=name, shape=shape, size_bits=bits, **values)  # type: ignore[arg-type]


def report(*tensors: TensorReport, **fields: object) -> Report:
    values = {
        "path": "m.fewbits",
        "size": 1_000,
        "source_size": 8_000,
        "num_weights": 200,
        "bits_per_weight": 4.0,
        "estimated_bits": 790.0,
        "actual_bits": 800,
        "overall_error": 0.2,
        "worst_tensor": "a",
        "worst_error": 0.25,
        "seconds": 1.5,
        "rate_weight": 0.01,
        "tensors": tensors,
        **fields,
    }
    return Report(**values)  # type: ignore[arg-type]


def test_ratio_is_source_over_file() -> None:
    assert report().ratio == 8.0


def test_json_holds_every_field_and_the_ratio() -> None:
    values = json.loads(json.dumps(report(tensor()).to_json(), allow_nan=False))
    assert values["ratio"] == 8.0
    assert values["tensors"][0]["shape"] == [10, 20]
    assert set(values) == {*Report.__dataclass_fields__, "ratio"}


def test_infinite_error_becomes_null_in_json() -> None:
    values = report(tensor(relative_error=math.inf), worst_error=math.inf).to_json()
    json.dumps(values, allow_nan=False)
    assert values["worst_error"] is None
    assert values["tensors"][0]["relative_error"] is None


def test_lines_show_size_rate_worst_tensor_and_both_bit_counts() -> None:
    shown = "\n".join(report(tensor()).lines())
    for text in (
        "1,000 B of 8,000 B",
        "8.00 times",
        "4.000 bits per weight",
        "a (0.25)",
        "790",
        "800",
        "+1.27%",
    ):
        assert text in shown


def test_lossless_report_speaks_of_no_error() -> None:
    shown = "\n".join(report(num_weights=0, estimated_bits=0.0).lines())
    assert "every bit is kept" in shown
    assert "worst tensor" not in shown


def test_tensor_kept_exactly_is_a_warning() -> None:
    shown = report(tensor("w[0]", note="kept exactly: it holds NaN")).lines()
    assert "warning: w[0]: kept exactly: it holds NaN" in shown


def test_many_tensors_are_cut_to_the_largest() -> None:
    tensors = [tensor(f"t{i}", bits=float(i), note="kept") for i in range(100)]
    shown = report(*tensors).lines()
    assert any(line.startswith("t99 ") for line in shown)
    assert f"and {100 - SHOWN_TENSORS} smaller tensors (all of them: --json)" in shown
    assert f"warning: and {100 - SHOWN_TENSORS} tensors more" in shown
    assert len(shown) < 40


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_scalar_and_empty_tensors_have_a_row(shape: tuple[int, ...]) -> None:
    assert report(tensor(shape=shape, bits=0.0)).lines()


def test_render_prints_what_lines_say_and_no_markup() -> None:
    console = Console(width=120, record=True, file=StringIO())
    console.print(report(tensor("layer[bold].w", note="kept")).render())
    shown = console.export_text()
    assert "layer[bold].w" in shown
    assert "1,000 B of 8,000 B" in shown


def test_aligned_columns_start_together() -> None:
    assert aligned([("a", "1"), ("bbb", "22")], right=(1,)) == ["a     1", "bbb  22"]
    assert aligned([]) == []


def test_report_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        report().size = 1  # type: ignore[misc]
    assert replace(report(), size=2).size == 2


def test_importing_it_imports_no_torch() -> None:
    program = "import sys, fewbits.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
