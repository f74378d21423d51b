"""One self-contained HTML page: style, drawings and tables inline, nothing fetched, light and dark."""

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fbfaf7; --card: #ffffff; --ink: #1d2025; --soft: #5b6270;
  --rule: #dfdcd4; --c0: #2563c9; --c1: #d1600a; --c2: #0f8a6a; --c3: #8a4fc0; --c4: #8b8f98; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --card: #1c1f25; --ink: #e9e8e4;
  --soft: #a3a9b5; --rule: #343941; --c0: #6ea6ff; --c1: #ff9d57; --c2: #4fd0ab; --c3: #c49bf2;
  --c4: #868c97; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 44px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 10px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 6px; }
p { max-width: 44em; margin: 8px 0; }
p.small, footer { color: var(--soft); font-size: 14px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 18px 20px;
  margin: 14px 0; overflow-x: auto; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px;
  margin: 22px 0; }
.numbers > div { background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  padding: 14px 18px; }
.numbers b { display: block; font-size: 26px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--soft); font-size: 14px; }
svg { display: block; width: 100%; min-width: 600px; height: auto; font-size: 13px; }
svg text { fill: var(--soft); paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg text.axis { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; }
.reference { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 5; }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.mark { stroke: var(--card); stroke-width: 1.5; } .bar { stroke: var(--card); stroke-width: 1; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); }
.line.c0 { fill: none; stroke: var(--c0); } .line.c1 { fill: none; stroke: var(--c1); }
.line.c2 { fill: none; stroke: var(--c2); } .line.c3 { fill: none; stroke: var(--c3); }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 13px; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; } .right { text-align: right; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.92em; }
footer { margin-top: 44px; border-top: 1px solid var(--rule); padding-top: 14px; }
""".strip()


def html_table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    *,
    sortable: bool = False,
) -> str:
    """Return a table; cells are text, columns in `right` flush right, the caption is for screen readers.

    sortable: headings are buttons, for a script of the page to sort by.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        side = [' class="right"' if i in right else "" for i in range(len(row))]
        scope = ' scope="col"' if tag == "th" else ""
        shown = [f"<button>{escape(v)}</button>" if scope and sortable else escape(v) for v in row]
        return "".join(f"<{tag}{scope}{c}>{v}</{tag}>" for c, v in zip(side, shown, strict=True))

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<table{kind} aria-label="{escape(caption)}">\n<thead><tr>{cells("th", columns)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def key_numbers(numbers: Sequence[tuple[str, str]]) -> str:
    """Return a row of (number, what it is) tiles."""
    tiles = "".join(f"<div><b>{escape(number)}</b><span>{escape(what)}</span></div>" for number, what in numbers)
    return f'<div class="numbers">{tiles}</div>'


def card(content: str) -> str:
    """Return markup in a framed box."""
    return f'<div class="card">{content}</div>'


def section(heading: str, text: str, content: str) -> str:
    """Return a heading, a paragraph of plain text, and markup."""
    return f"<section><h2>{escape(heading)}</h2><p>{escape(text)}</p>{content}</section>"


def page(title: str, lead: str, content: Sequence[str], footer: str) -> str:
    """Return the whole document: title, lead and footer are plain text, content is markup."""
    body = "\n".join(content)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
{body}
<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""
