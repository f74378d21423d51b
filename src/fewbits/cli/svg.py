"""Two charts as inline SVG text: points over a logarithmic axis, and stacked bars.

Colours are CSS classes (`c0`, `c1`, …, defined by the page), so that one drawing serves light and dark. Every
mark carries a <title>, which browsers show as a tooltip and screen readers read.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 860
CHARACTER = 7.2  # px, mean width of a character at the page's chart font of 13 px


Tick = Callable[[float], str]  # what a value on an axis is called


class Mark(NamedTuple):
    """One point of a chart. x above 0 (logarithmic axis); label, if any, beside it; title is its tooltip."""

    x: float
    y: float
    label: str
    title: str


class Series(NamedTuple):
    """Marks of one kind. color: number of a CSS class; shape: "circle", "diamond" or "square"."""

    name: str
    marks: Sequence[Mark]
    color: int
    shape: str
    labels_below: bool = False


class Bar(NamedTuple):
    """One stacked bar: its name, the text at its end, and (segment name, length) in drawing order."""

    name: str
    end: str
    segments: Sequence[tuple[str, float]]


def element(tag: str, content: str = "", **attributes: object) -> str:
    """Return one SVG element; `_` in attribute names becomes `-`, `class_` is `class`."""
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"' for name, value in attributes.items()
    )
    return f"<{tag}{text}>{content}</{tag}>" if content else f"<{tag}{text}/>"


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, content: str, *, anchor: str = "start", class_: str = "label") -> str:
    """Return a text element whose baseline is at y."""
    return element("text", escape(content), x=x, y=y, text_anchor=anchor, class_=class_)


def drawing(height: float, label: str, parts: Sequence[str]) -> str:
    """Return a complete <svg> of the page's width with an accessible label."""
    body = element("title", escape(label)) + "".join(parts)
    return element("svg", body, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=label)


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in [low, high]; both above 0."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]


def linear_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return at most about `count` round numbers in [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def byte_text(num_bytes: float) -> str:
    """Return a size for an axis: bytes, kB or MB (powers of 1000)."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def marker(shape: str, x: float, y: float, title: str, color: int) -> str:
    """Return one marker of about 11 px with its tooltip."""
    tooltip = element("title", escape(title))
    if shape == "circle":
        return element("circle", tooltip, cx=x, cy=y, r=5.5, class_=f"mark c{color}")
    corners = ((0, -7), (7, 0), (0, 7), (-7, 0)) if shape == "diamond" else ((-5, -5), (5, -5), (5, 5), (-5, 5))
    points = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners)
    return element("polygon", tooltip, points=points, class_=f"mark c{color}")


class Frame(NamedTuple):
    """The plotting area of a chart with a logarithmic x axis: pixels and the ranges they show."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Return the pixel of a value on the logarithmic axis."""
        low, high = map(math.log, self.x_range)
        return self.left + (math.log(value) - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the pixel of a value on the linear axis."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def percent_text(value: float) -> str:
    """Return a percentage for an axis."""
    return f"{value:g}%"


def _axes(frame: Frame, x_name: str, y_name: str, x_text: Tick, y_text: Tick) -> list[str]:
    parts = [text(frame.left - 50, frame.top - 14, y_name, class_="axis")]
    for tick in linear_ticks(*frame.y_range):
        y = frame.y(tick)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        parts.append(text(frame.left - 10, y + 4.5, y_text(tick), anchor="end"))
    for tick in logarithmic_ticks(*frame.x_range):
        x = frame.x(tick)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="grid"))
        parts.append(text(x, frame.bottom + 20, x_text(tick), anchor="middle"))
    parts.append(text((frame.left + frame.right) / 2, frame.bottom + 44, x_name, anchor="middle", class_="axis"))
    return parts


def _legend(frame: Frame, series: Sequence[Series]) -> list[str]:
    parts: list[str] = []
    x = frame.right - sum(len(s.name) * CHARACTER + 34 for s in series)
    for one in series:
        parts.append(marker(one.shape, x + 8, frame.top - 18, one.name, one.color))
        parts.append(text(x + 20, frame.top - 13.5, one.name))
        x += len(one.name) * CHARACTER + 34
    return parts


def point_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_name: str,
    y_name: str,
    reference: tuple[float, str] | None = None,
    height: float = 430,
    x_text: Tick = byte_text,
    y_text: Tick = percent_text,
) -> str:
    """Draw series of marks, by default (bytes, percent): x on a logarithmic axis, y on a linear one.

    reference: a value of y and its name, drawn as a dashed line across. x_text, y_text: what ticks say.
    """
    xs = [mark.x for one in series for mark in one.marks]
    ys = [mark.y for one in series for mark in one.marks] + ([reference[0]] if reference else [])
    span = max(max(ys) - min(ys), 1.0)
    frame = Frame(
        left=62,
        right=WIDTH - 20,
        top=44,
        bottom=height - 56,
        x_range=(min(xs) / 1.5, max(xs) * 1.25),
        y_range=(min(ys) - 0.08 * span, max(ys) + 0.12 * span),
    )
    parts = _axes(frame, x_name, y_name, x_text, y_text) + _legend(frame, series)
    if reference:
        y = frame.y(reference[0])
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="reference"))
        parts.append(text(frame.right - 6, y - 12, reference[1], anchor="end", class_="axis"))
    for one in series:
        places = [(frame.x(mark.x), frame.y(mark.y)) for mark in one.marks]
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
        if len(places) > 1:
            parts.append(element("polyline", points=points, class_=f"line c{one.color}"))
        for (x, y), mark in zip(places, one.marks, strict=True):
            parts.append(marker(one.shape, x, y, mark.title, one.color))
            # To the outer side of a curve that rises with size, so that labels keep clear of it.
            if not mark.label:
                continue
            below = one.labels_below
            side = 8 if below else -8
            parts.append(text(x + side, y + (17 if below else -8), mark.label, anchor="start" if below else "end"))
    return drawing(height, label, parts)


def bar_chart(bars: Sequence[Bar], *, label: str) -> str:
    """Draw stacked bars of bytes on one linear axis; segments of one name share a colour."""
    names = list(dict.fromkeys(name for bar in bars for name, _ in bar.segments))
    left, right, top, pitch, thickness = 150.0, WIDTH - 96.0, 40.0, 36.0, 22.0
    longest = max(sum(length for _, length in bar.segments) for bar in bars)
    parts: list[str] = []
    x = left
    for i, name in enumerate(names):
        parts.append(element("rect", x=x, y=8.0, width=12, height=12, rx=2, class_=f"mark c{i}"))
        parts.append(text(x + 18, 18.5, name))
        x += len(name) * CHARACTER + 40
    for row, bar in enumerate(bars):
        y = top + row * pitch
        parts.append(text(left - 12, y + 16, bar.name, anchor="end"))
        x = left
        for name, length in bar.segments:
            width = length / longest * (right - left)
            tooltip = element("title", escape(f"{bar.name}, {name}: {length:,.0f} B"))
            color = names.index(name)
            parts.append(element("rect", tooltip, x=x, y=y, width=width, height=thickness, class_=f"bar c{color}"))
            x += width
        parts.append(text(x + 8, y + 16, bar.end, class_="axis"))
    return drawing(top + len(bars) * pitch, label, parts)
