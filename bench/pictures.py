"""Draw the pictures of the documents from the rows in bench/results: `python bench/pictures.py [FOLDER]`.

Writes docs/pictures/*.svg, or into FOLDER. The points of others are the figures that they have published.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
from fewbits.cli.svg import Mark, Series, point_chart  # noqa: E402


class Published(NamedTuple):
    """What somebody has published: bytes of a network, per cent of wrong answers on MNIST's test images."""

    name: str
    size: float
    error: float


# EPR: Oktay et al. 2020. MIRACLE: Havasi et al. 2019; its "1.52 kB" and "3.03 kB" are of 1024 bytes: 1,552.5 and 3,105
# bytes as blocks of 20 bits. Redone: the files of a public reimplementation.
PUBLISHED: Mapping[str, Sequence[Published]] = {
    "lenet300": (Published("EPR 2020", 8560, 1.9),),
    "lenet5": (
        Published("EPR 2020", 2840, 1.0),
        Published("MIRACLE 2019", 1552.5, 0.96),
        Published("MIRACLE 2019", 3105, 0.69),
        Published("MIRACLE, redone", 1140, 0.98),
        Published("MIRACLE, redone", 1694, 0.83),
    ),
}
OURS = {
    "lenet300": {
        "lenet300": "pixels",
        "lenet300_basis": "grid of bumps",
        "lenet300_1pct": "grid, teacher",
        "lenet300_paper": "paper's recipe",
    },
    "lenet5": {"lenet5": "small", "lenet5_07pct": "low error", "lenet5_paper": "paper's recipe"},
}
TITLES = {"lenet300": "LeNet-300-100 on MNIST", "lenet5": "LeNet5-Caffe on MNIST"}

# Colours that can be told apart on a light and on a dark page, which an image does not know.
STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif; }
text { fill: #555; } text.axis { fill: #111; font-weight: 600; }
.grid { stroke: #e4e4e4; } .line { display: none; } .mark { stroke: #fff; stroke-width: 1; }
.c0 { fill: #0b6bcb; } .c1 { fill: #b3560f; } .c2 { fill: #1a7f37; } .c3 { fill: #8250df; } .c4 { fill: #6e7781; }
""".strip()
SHAPES = ("circle", "diamond", "square", "circle")


def last_rows(case: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a case by name, the last of each."""
    lines = (ROOT / "bench" / "results" / f"{case}.jsonl").read_text(encoding="utf8").splitlines()
    return {row["row"]: row for row in map(json.loads, lines)}


def series_of(network: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Series]:
    """Yield the marks of each of our recipes, a seed each, then those of others."""
    for index, (recipe, name) in enumerate(OURS[network].items()):
        seeds = [row["measured"] for key, row in rows.items() if key.startswith(f"fewbits {recipe} seed ")]
        marks = [
            Mark(found["size"], found["test_error"], "", f"{name}: {found['size']:,} B, {found['test_error']:g} %")
            for found in seeds
        ]
        if marks:
            yield Series(f"ours: {name}", marks, index, SHAPES[index])
    others = [
        Mark(one.size, one.error, one.name, f"{one.name}: {one.size:,g} B, {one.error:g} %")
        for one in PUBLISHED[network]
    ]
    yield Series("published", others, 4, "square")


def picture(network: str) -> str:
    """Return the picture of one network's rows, an SVG document."""
    chart = point_chart(
        list(series_of(network, last_rows("epr"))),
        label=f"{TITLES[network]}: bytes of the file and test error",
        x_name=f"bytes of the whole file, {TITLES[network]}",
        y_name="test error",
    )
    head, rest = chart.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{rest}\n'


def main() -> None:
    """Write every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for network in OURS:
        (folder / f"epr_{network}.svg").write_text(picture(network), encoding="utf8")


if __name__ == "__main__":
    main()
