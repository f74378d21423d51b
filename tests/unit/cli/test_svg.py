"""The drawings: well-formed, accessible, honest about places."""

from xml.etree import ElementTree

import pytest

from fewbits.cli.page import html_table, page
from fewbits.cli.svg import (
    Bar,
    Mark,
    Series,
    bar_chart,
    byte_text,
    linear_ticks,
    logarithmic_ticks,
    point_chart,
)

MARKS = [
    Mark(1_000, 80, "1 bit", "one <bit>"),
    Mark(10_000, 95, "", "four & more"),
    Mark(100_000, 98, "8", "eight"),
]


def points(drawing: str) -> list[tuple[float, float]]:
    circles = ElementTree.fromstring(drawing).iter("circle")
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles]


def chart(marks: list[Mark]) -> str:
    series = [Series("ecsq", marks, 0, "circle")]
    return point_chart(series, label="size & accuracy", x_name="size", y_name="accuracy", reference=(99.0, "original"))


def test_point_chart_is_well_formed_and_labelled() -> None:
    root = ElementTree.fromstring(chart(MARKS))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == "size & accuracy"
    assert "one <bit>" in {title.text for title in root.iter("title")}


def test_point_chart_spaces_factors_evenly() -> None:
    legend, *places = sorted(points(chart(MARKS)), key=lambda place: place[1])
    xs, ys = zip(*sorted(places), strict=True)
    assert legend[1] < min(ys)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)
    assert list(ys) == sorted(ys, reverse=True)


def test_point_chart_of_one_mark_or_a_flat_series_works() -> None:
    assert len(points(chart(MARKS[:1]))) == 2
    assert len(points(chart([mark._replace(y=99.0) for mark in MARKS]))) == 4


def test_bar_lengths_are_proportional_to_bytes() -> None:
    bars = [Bar("a", "400 B", [("w", 300), ("b", 100)]), Bar("b", "200 B", [("w", 150), ("b", 50)])]
    rects = [
        r for r in ElementTree.fromstring(bar_chart(bars, label="bytes")).iter("rect") if r.find("title") is not None
    ]
    widths = [float(r.attrib["width"]) for r in rects]
    assert widths == pytest.approx([widths[1] * 3, widths[1], widths[1] * 1.5, widths[1] / 2], abs=0.05)
    assert rects[0].attrib["class"] == rects[2].attrib["class"] != rects[1].attrib["class"]


def test_ticks_are_round_and_inside() -> None:
    assert logarithmic_ticks(900, 25_000) == [1_000, 2_000, 5_000, 10_000, 20_000]
    assert linear_ticks(78.1, 99.2) == [80, 85, 90, 95]
    assert linear_ticks(5, 5) == [5]


@pytest.mark.parametrize(("size", "shown"), [(999, "999 B"), (2_300, "2.3 kB"), (8.67e6, "8.67 MB")])
def test_byte_text_uses_powers_of_a_thousand(size: float, shown: str) -> None:
    assert byte_text(size) == shown


def test_page_escapes_text_and_fetches_nothing() -> None:
    table = html_table("t", ["<a>", "b"], [["&", "1"]], right=[1])
    text = page("A <title>", "lead & more", [table, chart(MARKS)], "footer")
    assert "A &lt;title&gt;" in text
    assert "&lt;a&gt;" in text
    for word in ("http:", "https:", "<script", "<link", "url(", "@import", "src="):
        assert word not in text
    assert "prefers-color-scheme: dark" in text
