"""Draw the pictures of the documents from the rows in bench/results: `python bench/pictures.py [FOLDER]`.

Writes docs/pictures/*.svg, or into FOLDER. The points of others are the figures that they have published.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
from fewbits.cli.svg import (  # noqa: E402
    CHARACTER,
    WIDTH,
    Mark,
    Series,
    drawing,
    element,
    linear_ticks,
    marker,
    point_chart,
    text,
)


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
# By network, and by what the picture calls them: case of the rows, and recipes.
OURS = {
    "lenet300": {
        "pixels": ("epr", ("lenet300",)),
        "grid of bumps": ("epr", ("lenet300_basis",)),
        "grid, teacher": ("epr", ("lenet300_1pct",)),
        "paper's recipe": ("epr", ("lenet300_paper",)),
    },
    "lenet5": {
        "EPR": ("epr", ("lenet5", "lenet5_07pct")),
        "EPR, paper's recipe": ("epr", ("lenet5_paper",)),
        "MIRACLE": ("miracle", ("lenet5_best", "lenet5_small", "lenet5_accurate")),
    },
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


def document(chart: str, style: str) -> str:
    """Return a chart as an SVG document of its own."""
    head, rest = chart.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def series_of(network: str) -> Iterator[Series]:
    """Yield the marks of each of our recipes, a seed each, then those of others."""
    for index, (name, (case, recipes)) in enumerate(OURS[network].items()):
        starts = tuple(f"fewbits {recipe} seed " for recipe in recipes)
        seeds = [row["measured"] for key, row in last_rows(case).items() if key.startswith(starts)]
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
        list(series_of(network)),
        label=f"{TITLES[network]}: bytes of the file and test error",
        x_name=f"bytes of the whole file, {TITLES[network]}",
        y_name="test error",
    )
    return document(chart, STYLE)


# Simulators, in the order of their colours and shapes: the name in rows, the one in the picture.
SIMULATORS = {"mrc": "MRC", "orc": "ORC", "pfr": "PFR", "greedy": "greedy", "hybrid": "hybrid", "tree": "tree"}
CURVE_SHAPES = ("square", "diamond", "circle", "diamond", "circle", "square")
CURVE_STYLE = """
svg { background: #fff; font: 13px system-ui, sans-serif; }
text { fill: #555; } text.axis { fill: #111; font-weight: 600; }
.grid { stroke: #e4e4e4; } .curve { fill: none; stroke-width: 2; } .mark { stroke: #fff; stroke-width: 1; }
.mark.c0 { fill: #6e7781; } .mark.c1 { fill: #b3560f; } .mark.c2 { fill: #0b6bcb; }
.mark.c3 { fill: #8250df; } .mark.c4 { fill: #1a7f37; } .mark.c5 { fill: #c0186a; }
.curve.c0 { stroke: #6e7781; } .curve.c1 { stroke: #b3560f; } .curve.c2 { stroke: #0b6bcb; }
.curve.c3 { stroke: #8250df; } .curve.c4 { stroke: #1a7f37; } .curve.c5 { stroke: #c0186a; }
""".strip()


def curves_of(measure: str) -> list[Series]:
    """Return a curve for each simulator: a measured value against the bits that a sample tells."""
    rows = last_rows("channel")
    found: list[Series] = []
    for number, (key, name) in enumerate(SIMULATORS.items()):
        points = [row["measured"] for each, row in rows.items() if each.startswith(f"fewbits curve {key} ")]
        marks = [
            Mark(point["information"], point[measure], "", f"{name}, {point['information']} bit: {point[measure]:,.2f}")
            for point in sorted(points, key=lambda point: point["information"])
        ]
        found.append(Series(name, marks, number, CURVE_SHAPES[number]))
    return found


def curve_chart(series: Sequence[Series], *, label: str, y_name: str, logarithmic: bool) -> str:
    """Return curves over a linear axis of bits, an SVG document; with `logarithmic` y is over powers of two."""
    left, right, top, bottom, last = 62.0, WIDTH - 20.0, 52.0, 374.0, 16
    height: Callable[[float], float] = math.log2 if logarithmic else float
    highest = max(height(mark.y) for one in series for mark in one.marks) * 1.04

    def x_of(value: float) -> float:
        return left + (value - 0.5) / last * (right - left)

    def y_of(value: float) -> float:
        return bottom - height(value) / highest * (bottom - top)

    parts = [text(left - 50, top - 32, y_name, class_="axis")]
    for tick in [2.0**k for k in range(0, int(highest) + 1, 2)] if logarithmic else linear_ticks(0, highest):
        parts.append(element("line", x1=left, x2=right, y1=y_of(tick), y2=y_of(tick), class_="grid"))
        parts.append(text(left - 10, y_of(tick) + 4.5, f"{tick:,.0f}" if tick >= 1 else f"{tick:g}", anchor="end"))
    parts += [text(x_of(bits), bottom + 20, str(bits), anchor="middle") for bits in range(1, last + 1)]
    name = "bits that a sample tells (one Gaussian number of standard deviation 2 to the minus so many)"
    parts.append(text((left + right) / 2, bottom + 44, name, anchor="middle", class_="axis"))
    place = right - sum(len(one.name) * CHARACTER + 34 for one in series)
    for one in series:
        points = " ".join(f"{x_of(mark.x):.2f},{y_of(mark.y):.2f}" for mark in one.marks)
        parts.append(element("polyline", points=points, class_=f"curve c{one.color}"))
        parts += [marker(one.shape, x_of(mark.x), y_of(mark.y), mark.title, one.color) for mark in one.marks]
        parts += [marker(one.shape, place + 8, top - 36, one.name, one.color), text(place + 20, top - 31.5, one.name)]
        place += len(one.name) * CHARACTER + 34
    return document(drawing(430, label, parts), CURVE_STYLE)


IMAGE_STYLE = CURVE_STYLE.replace(".curve", ".line")
# By picture, what it calls each curve, and how the names of its rows begin.
IMAGE_CURVES = {
    "images_kodak": {
        "fewbits, trained here": "fewbits straight_through quality ",
        "with a search": "fewbits straight_through refined quality ",
        "JPEG": "JPEG ",
        "WebP": "WEBP ",
        "AVIF": "AVIF ",
    },
    "images_roundings": {
        "soft": "fewbits soft quality ",
        "noise": "fewbits noise quality ",
        "straight-through": "fewbits straight_through quality ",
        "universal": "fewbits universal quality ",
    },
}
MOST_BITS_A_PIXEL = 1.5  # drawn; a codec of ours ends before


def image_picture(name: str) -> str:
    """Return the curves of PSNR over bits a pixel, means over Kodak images 1 to 16, an SVG document."""
    rows, series = last_rows("images"), list[Series]()
    for number, (curve, start) in enumerate(IMAGE_CURVES[name].items()):
        found = [row["measured"] for key, row in rows.items() if key.startswith(start)]
        found = [each for each in found if each["bits_per_pixel"] < MOST_BITS_A_PIXEL]
        marks = [
            Mark(
                each["bits_per_pixel"],
                each["psnr"],
                "",
                f"{curve}: {each['bits_per_pixel']:.3f}, {each['psnr']:.2f} dB",
            )
            for each in sorted(found, key=lambda each: each["bits_per_pixel"])
        ]
        if marks:
            series.append(Series(curve, marks, number, CURVE_SHAPES[number]))
    chart = point_chart(
        series,
        label="PSNR against bits a pixel, means over Kodak images 1 to 16",
        x_name="bits a pixel, of the whole file (Kodak images 1 to 16)",
        y_name="PSNR, dB",
        x_text=lambda value: f"{value:g}",
        y_text=lambda value: f"{value:g}",
    )
    return document(chart, IMAGE_STYLE)


# What the picture calls each curve of MiniLM's files, and which rows it has.
MINILM_CURVES = {
    "fewbits, with inputs": r"calibrated [0-9.]+MB",
    "fewbits, the module": r"synthetic [0-9.]+MB",
    "fewbits": r"fewbits [0-9.]+MB",
    "NNCodec, opt_qp": r"nncodec qp -\d+ opt_qp",
    "NNCodec": r"nncodec qp -\d+",
    "gguf": r"gguf Q4_0",
}


def minilm_picture() -> str:
    """Return the curves of MiniLM's drift over bytes, both logarithmic, an SVG document."""
    rows, series = {**last_rows("minilm"), **last_rows("calibrated")}, list[Series]()
    for number, (curve, pattern) in enumerate(MINILM_CURVES.items()):
        found = [row["measured"] for key, row in rows.items() if re.fullmatch(pattern, key)]
        marks = [
            Mark(each["size"], math.log10(each["drift"]), "", f"{curve}: {each['size']:,} B, drift {each['drift']:.4f}")
            for each in sorted(found, key=lambda each: each["size"])
        ]
        series.append(Series(curve, marks, number, CURVE_SHAPES[number]))
    chart = point_chart(
        series,
        label="Drift of all-MiniLM-L6-v2's embeddings against bytes of the file",
        x_name="bytes of the whole file (the original has 90.9 MB)",
        y_name="drift of the embeddings",
        y_text=lambda value: f"{10**value:.1g}",
    )
    return document(chart, IMAGE_STYLE)


def main() -> None:
    """Write every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for network in OURS:
        (folder / f"{network}.svg").write_text(picture(network), encoding="utf8")
    bits = curve_chart(
        curves_of("bits_above"),
        label="Bits above the divergence, by simulator",
        y_name="coded bits above the divergence",
        logarithmic=False,
    )
    (folder / "channel_bits.svg").write_text(bits, encoding="utf8")
    candidates = curve_chart(
        curves_of("median_candidates"),
        label="Candidates looked at, by simulator",
        y_name="candidates, median",
        logarithmic=True,
    )
    (folder / "channel_candidates.svg").write_text(candidates, encoding="utf8")
    (folder / "minilm.svg").write_text(minilm_picture(), encoding="utf8")
    for name in IMAGE_CURVES:
        (folder / f"{name}.svg").write_text(image_picture(name), encoding="utf8")


if __name__ == "__main__":
    main()
