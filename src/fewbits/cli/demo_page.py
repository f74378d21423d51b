"""What `fewbits demo` shows: the table, and the page with the drawings."""

from collections.abc import Sequence
from pathlib import Path

from fewbits.cli.demo import FRAMING, DemoResult, Point
from fewbits.cli.page import card, html_table, key_numbers, page, section
from fewbits.cli.svg import Bar, Mark, Series, bar_chart, byte_text, point_chart
from fewbits.container.atomic import write_atomic

COLUMNS = ("method", "setting", "file bytes", "times smaller", "bits/weight", "accuracy")
RIGHT = (2, 3, 4, 5)


def rows(result: DemoResult) -> list[tuple[str, ...]]:
    """Return one row of `COLUMNS` a file."""
    original = result.points[0].size
    return [
        (
            p.method,
            p.setting,
            f"{p.size:,}",
            f"{original / p.size:.1f}",
            f"{p.bits_per_weight:.2f}",
            f"{p.accuracy:.1%}",
        )
        for p in result.points
    ]


def facts(result: DemoResult) -> list[tuple[str, str]]:
    """Return what was run as (what, how much) pairs."""
    return [
        ("network", f"perceptron 64-192-96-10 on 8×8 digits, {result.num_weights:,} weights"),
        ("accuracy", f"on {result.num_test:,} test images, of the network loaded back from each file"),
        ("bits/weight", "of the whole file"),
        ("time", f"{result.seconds:.1f} s"),
    ]


def name(point: Point) -> str:
    """Return what a file is called in drawings."""
    return f"{point.method}, {point.setting}"


def best(result: DemoResult) -> Point:
    """Return the smallest file whose accuracy is within one point of the original's."""
    floor = result.points[0].accuracy - 0.01 - 1e-9  # NUMERICS: exactly one point less still counts
    return min((p for p in result.points if p.accuracy >= floor), key=lambda p: p.size)


DRAWN_LOSS = 0.25  # of accuracy: files that lose more would flatten the curve
SERIES = (("ecsq", "ecsq: no data, no training", 0, "circle"), ("epr", "epr: trained briefly", 1, "diamond"))


def curve(result: DemoResult) -> str:
    """Draw size against accuracy."""
    original = result.points[0]
    shown = [p for p in result.points if p.accuracy >= original.accuracy - DRAWN_LOSS]
    missing = len(result.points) - len(shown)

    def marks(method: str) -> list[Mark]:
        found = sorted((p for p in shown if p.method == method), key=lambda p: p.size)
        return [Mark(p.size, 100 * p.accuracy, p.setting, f"{name(p)}: {p.size:,} B, {p.accuracy:.1%}") for p in found]

    series = [Series(legend, marks(id), color, shape, id == "ecsq") for id, legend, color, shape in SERIES]
    for id, color in (("lossless", 2), ("original", 4)):
        series.append(Series(id, [m._replace(label="") for m in marks(id)], color, "square"))
    drawing = point_chart(
        [one for one in series if one.marks],
        label="Accuracy on the test images against the size of the file; the table below has the numbers",
        x_name="size of the file (logarithmic)",
        y_name="test accuracy",
        reference=(100 * original.accuracy, f"original: {original.accuracy:.1%}"),
    )
    note = f"{missing} less accurate file{'s are' if missing > 1 else ' is'} in the table only."
    return drawing + (f'<p class="small">{note}</p>' if missing else "")


def grouped_bytes(point: Point) -> list[tuple[str, float]]:
    """Return the bytes by weight matrix, then of all biases together, then of the rest of the file."""
    matrices = [(n, b) for n, b in point.tensor_bytes if n.endswith(".weight")]
    biases = sum(b for n, b in point.tensor_bytes if n.endswith(".bias"))
    rest = sum(b for n, b in point.tensor_bytes if n == FRAMING)
    return [*matrices, ("biases", biases), (FRAMING, rest)]


def write_page(result: DemoResult, path: Path) -> None:
    """Write the run as one self-contained HTML page, whole or not at all."""
    original, smallest = result.points[0], best(result)
    coded = [p for p in result.points if p.method in ("ecsq", "epr") and p.bits_per_weight < 7]
    bars = [Bar(name(p), f"{p.size:,} B", grouped_bytes(p)) for p in coded]
    names = list(dict.fromkeys(tensor for p in coded for tensor, _ in grouped_bytes(p)))
    byte_rows: Sequence[Sequence[str]] = [
        (name(p), *(f"{dict(grouped_bytes(p))[n]:,.0f}" for n in names), f"{p.size:,}") for p in coded
    ]
    columns = ("file", *names, "all bytes")
    content = [
        key_numbers(
            [
                (byte_text(original.size), f"the original checkpoint, {original.accuracy:.1%} accurate"),
                (byte_text(smallest.size), f"{name(smallest)}: {smallest.accuracy:.1%}"),
                (f"{original.size / smallest.size:.0f}×", "smaller, within one point of accuracy"),
            ]
        ),
        section(
            "Size against accuracy",
            "ecsq quantises the finished weights to a rate asked for. epr trains the network a little "
            "further with the code length of its weights in the loss: λ says how much a bit counts.",
            card(curve(result)) + card(html_table("Size and accuracy", COLUMNS, rows(result), RIGHT)),
        ),
        section(
            "Bytes by tensor",
            "What each tensor takes of the payload, as the encoder recorded it in the file. Names, shapes, "
            "settings, checksums and the record of errors are the last part: nothing is left out of a size.",
            card(bar_chart(bars, label="Bytes of each tensor in each file; the table below has the numbers"))
            + card(html_table("Bytes by tensor", columns, byte_rows, range(1, len(columns)))),
        ),
    ]
    lead = (
        f"A perceptron of {result.num_weights:,} weights that reads 8×8 digits, stored in "
        f"{len(result.points) - 1} ways. Sizes are of files on disk; accuracies are of the network loaded "
        f"back from each file, on {result.num_test} images it was not trained on."
    )
    footer = (
        f"Written by fewbits demo in {result.seconds:.1f} s, offline. Data: Optical Recognition of "
        "Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, "
        "doi:10.24432/C50P49, CC BY 4.0; pixels rounded to five levels."
    )
    write_atomic(path, [page("A network in few bits", lead, content, footer).encode()])
