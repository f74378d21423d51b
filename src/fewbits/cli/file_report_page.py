"""What `fewbits report` shows: one page with the drawings, the tensors to be sorted, and how to make the file again."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from fewbits.cli.file_report import BINS, FileReport, Histogram, TensorLine
from fewbits.cli.page import card, html_table, key_numbers, page, section
from fewbits.cli.svg import WIDTH, Mark, Series, byte_text, drawing, element, linear_ticks, point_chart, text
from fewbits.container.atomic import write_atomic

COLUMNS = ("tensor", "rel. error", "of the error", "bytes", "bits/weight", "shape", "dtype", "method", "note")
RIGHT = (1, 2, 3, 4)
MOST_LINES = 2_000  # of a table: a browser lays out no more at ease
# A click on a heading sorts by it, a second the other way round; what is no number goes last.
_SCRIPT = """
<script>
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
    const head = button.parentElement, falls = head.getAttribute("aria-sort") !== "descending";
    table.querySelectorAll("th").forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const value = row => {
      const cell = row.cells[column].textContent, number = parseFloat(cell.replace(/[,~%]/g, ""));
      return head.classList.contains("right") ? (isNaN(number) ? null : number) : cell;
    };
    const rows = [...body.rows].sort((one, other) => {
      const a = value(one), b = value(other);
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * (falls ? -1 : 1);
    });
    body.append(...rows);
  }));
}
const chosen = document.getElementById("chosen");
if (chosen) {
  const show = () => document.querySelectorAll(".histogram").forEach(
    (each, place) => { each.hidden = place !== chosen.selectedIndex; });
  chosen.addEventListener("change", show);
  show();
}
</script>
"""
_STYLE = """
<style>
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover, th button:focus-visible { text-decoration: underline; }
th[aria-sort="descending"] button::after { content: " ↓"; }
th[aria-sort="ascending"] button::after { content: " ↑"; }
select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule); border-radius: 8px;
  padding: 5px 8px; max-width: 100%; }
.before { fill: var(--c4); opacity: 0.55; } .after { fill: var(--c0); }
pre { overflow-x: auto; margin: 0; }
.long { max-height: 620px; overflow: auto; } .long th { position: sticky; top: 0; background: var(--card); }
</style>
"""


def facts(report: FileReport) -> list[tuple[str, str]]:
    """Return what concerns the whole file as (what, how much) pairs, for a terminal."""
    found = [("file", report.path), ("size", f"{report.info.size:,} B")]
    if report.source_size is not None:
        found.append(("original", f"{report.against}, {report.source_size:,} B"))
    if report.overall_error is not None:
        found.append(("relative error", f"{report.overall_error:.4g} over all"))
    if report.tensors:
        worst = report.tensors[0]
        error = "-" if worst.relative_error is None else f"{worst.relative_error:.4g}"
        found.append(("worst tensor", f"{worst.name} ({error})"))
    if report.command is not None:
        found.append(("made again by", report.command))
    return found


def rows(report: FileReport) -> list[tuple[str, ...]]:
    """Return one row of `COLUMNS` a tensor, the worst first."""
    return [_row(line) for line in report.tensors]


def _row(line: TensorLine) -> tuple[str, ...]:
    return (
        line.name,
        "-" if line.relative_error is None else f"{line.relative_error:.4g}",
        "-" if line.error_share is None else f"{line.error_share:.2%}",
        f"{line.bits / 8:,.0f}",
        f"{line.bits / line.num_elements:.3f}" if line.num_elements else "-",
        "×".join(map(str, line.shape)) or "scalar",
        line.dtype,
        line.method,
        line.note,
    )


def write_page(report: FileReport, path: Path) -> None:
    """Write the report as one self-contained HTML page, whole or not at all."""
    content = [_STYLE, _numbers(report)]
    if report.curve:
        content.append(_curve_section(report))
    content += [*_histogram_section(report), _tensor_section(report), _settings_section(report), _SCRIPT]
    compared = (
        f"compared with {report.against}" if report.against else "without its original: errors are as recorded in it"
    )
    lead = f"{len(report.tensors):,} tensors in {byte_text(report.info.size)}, {compared}."
    footer = "Written by fewbits report, offline; nothing on this page is fetched."
    title = f"{Path(report.path).name} in few bits"
    write_atomic(path, [page(title, lead, content, footer).encode()])


def _numbers(report: FileReport) -> str:
    weights = [line for line in report.tensors if line.method not in ("", "lossless")]
    count = sum(line.num_elements for line in weights)
    numbers = [(byte_text(report.info.size), f"{report.info.size:,} B, all of the file")]
    whole = report.source_size or report.info.decoded_bytes
    if whole:
        numbers.append((f"{whole / report.info.size:.2f}×", f"smaller than {byte_text(whole)}"))
    if count:
        rate = sum(line.bits for line in weights) / count
        numbers.append((f"{rate:.2f} bits", f"a weight, of {count:,} that are coded lossily"))
    if report.overall_error is not None:
        numbers.append((f"{100 * report.overall_error:.3g}%", "relative error over all tensors"))
    return key_numbers(numbers)


def _curve_section(report: FileReport) -> str:
    marks = [
        Mark(point.size, 100 * point.relative_error, "", f"{point.size:,} B: {100 * point.relative_error:.3g}%")
        for point in report.curve
    ]
    series = [Series("the original by ecsq, without data", marks, 1, "circle")]
    if report.overall_error is not None:
        title = f"this file: {report.info.size:,} B, {100 * report.overall_error:.3g}%"
        series.append(
            Series("this file", [Mark(report.info.size, 100 * report.overall_error, "", title)], 0, "diamond")
        )
    chart = point_chart(
        series,
        label="Relative error over all weights against the size of the file",
        x_name="size of the file (logarithmic)",
        y_name="relative error",
    )
    note = (
        "Each point is a file that was really encoded. A file that was made with a module at hand may lie above the "
        "curve: it has its errors where the module's outputs feel them least."
    )
    return section("Size against error", note, card(chart))


def _tensor_section(report: FileReport) -> str:
    shown = rows(report)[:MOST_LINES]
    table = html_table("Bytes and errors by tensor", COLUMNS, shown, RIGHT, sortable=True)
    more = len(report.tensors) - len(shown)
    note = "The worst first; a heading sorts. Bytes of a tensor that shares a payload are the encoder's estimate."
    if more > 0:
        note += f" {more:,} tensors more are in fewbits info."
    return section("Bytes and errors by tensor", note, card(f'<div class="long">{table}</div>'))


def _histogram_section(report: FileReport) -> list[str]:
    if not report.histograms:
        return []
    options = "".join(f"<option>{escape(each.name)}</option>" for each in report.histograms)
    choice = f'<label>Tensor: <select id="chosen">{options}</select></label>'
    drawings = "".join(f'<div class="histogram">{_histogram(each)}</div>' for each in report.histograms)
    note = "How many values lie where, up to four times the root mean square: before in grey, after in colour."
    return [section("Values before and after", note, card(choice + drawings))]


def _histogram(histogram: Histogram) -> str:
    height, left, right, top, bottom = 300.0, 62.0, WIDTH - 20.0, 20.0, 260.0
    most = max(*histogram.after, *(histogram.before or [0]), 1)
    width = (right - left) / BINS
    parts: list[str] = []
    for tick in linear_ticks(-histogram.reach, histogram.reach, 8):
        x = left + (tick + histogram.reach) / (2 * histogram.reach) * (right - left)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(text(x, bottom + 20, f"{tick:.3g}", anchor="middle"))
    for tick in linear_ticks(0, most, 4):
        y = bottom - tick / most * (bottom - top)
        parts.append(text(left - 8, y + 4.5, _count_text(tick), anchor="end"))

    def bars(counts: Sequence[int], class_: str, inset: float) -> None:
        for i, count in enumerate(counts):
            if count:
                bar = count / most * (bottom - top)
                x = left + i * width + inset
                parts.append(element("rect", x=x, y=bottom - bar, width=width - 2 * inset, height=bar, class_=class_))

    if histogram.before is not None:
        bars(histogram.before, "before", 0.0)
    bars(histogram.after, "after", width / 4)
    return drawing(height, f"Histogram of {histogram.name}", parts)


def _count_text(count: float) -> str:
    """A count for an axis: plain, in thousands or in millions."""
    unit, size = next(((unit, size) for unit, size in ((" M", 1e6), (" k", 1e3)) if count >= size), ("", 1))
    return f"{count / size:.3g}{unit}"


def _settings_section(report: FileReport) -> str:
    found = report.info
    settings = [("format", str(found.format)), ("parts", f"{found.num_parts:,}"), ("seed", str(found.seed))]
    for method in found.methods:
        config = json.dumps(method.config, ensure_ascii=False)
        settings.append((f"{method.id}, payload version {method.payload_version}", config))
    if found.rate_weight is not None:
        settings.append(("rate weight", f"{found.rate_weight:.6g}"))
    spent = ", ".join(f"{name.replace('_', ' ')} {size:,}" for name, size in found.overhead.items() if size)
    settings.append(("bytes", spent))
    settings += [(f"metadata {key}", value) for key, value in (found.metadata or {}).items()]
    table = html_table("Settings", ("what", "value"), settings, ())
    if report.command is None:
        note, command = "The file was trained: no one command makes it again.", ""
    else:
        note = "The command makes a file of this size. Statistics or inputs that a program gave are not in a file."
        command = card(f"<pre><code>{escape(report.command)}</code></pre>")
    return section("Settings", note, command + card(table))
