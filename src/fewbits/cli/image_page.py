"""What `fewbits image bench` shows: the table, and the page with the curves."""

import math
from collections.abc import Sequence
from pathlib import Path

from fewbits.cli.page import card, html_table, key_numbers, page, section
from fewbits.cli.svg import Mark, Series, point_chart
from fewbits.container.atomic import write_atomic
from fewbits.errors import InvalidArgument
from fewbits.images.comparison import ANCHOR, OURS, Measured, Point, bd_rates, points_of

COLUMNS = ("codec", "setting", "bits/pixel", "PSNR", "MS-SSIM", "encode s", "decode s")
RIGHT = (1, 2, 3, 4, 5, 6)
_SHAPES = ("circle", "diamond", "square")


def rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Return one row of `COLUMNS` a codec and setting: means over the images."""
    return [
        (
            p.codec,
            str(p.setting),
            f"{p.bits_per_pixel:.3f}",
            f"{p.psnr:.2f}",
            "" if math.isnan(p.ms_ssim) else f"{p.ms_ssim:.4f}",
            f"{p.encode_seconds:.2f}",
            f"{p.decode_seconds:.2f}",
        )
        for p in points_of(measured)
    ]


def facts(measured: Sequence[Measured]) -> list[tuple[str, str]]:
    """Return what was compared, and BD-rates, as (what, how much) pairs."""
    images = len({each.image for each in measured})
    estimates = [abs(each.estimated / each.payload_bits - 1) for each in measured if each.codec == OURS]
    found = [
        ("images", f"{images:,}; means over them, sizes of whole files"),
        ("estimate", f"payloads are within {max(estimates):.2%} of what the codec's tables say"),
    ]
    try:
        rates = bd_rates(measured)
    except InvalidArgument as error:
        return [*found, ("BD-rate", str(error))]
    return found + [(f"BD-rate, {codec}", f"{rate:+.1%} of {ANCHOR}, by PSNR") for codec, rate in rates.items()]


def curves(points: Sequence[Point], field: str, name: str) -> str:
    """Draw a measure of all codecs against bits a pixel."""
    codecs = list(dict.fromkeys(point.codec for point in points))

    def mark(point: Point) -> Mark:
        value = getattr(point, field)
        return Mark(point.bits_per_pixel, value, "", f"{point.codec} {point.setting}: {value:.4g}")

    series = [
        Series(codec, [mark(p) for p in points if p.codec == codec], number, _SHAPES[number % len(_SHAPES)])
        for number, codec in enumerate(codecs)
    ]
    return point_chart(
        series,
        label=f"{name} against bits a pixel; the table has the numbers",
        x_name="bits a pixel, of the whole file (logarithmic)",
        y_name=name,
        x_text=lambda value: f"{value:g}",
        y_text=lambda value: f"{value:g}",
    )


def write_page(measured: Sequence[Measured], path: Path) -> None:
    """Write the comparison as one self-contained HTML page, whole or not at all."""
    points = points_of(measured)
    drawings = card(curves(points, "psnr", "PSNR, dB"))
    if not any(math.isnan(point.ms_ssim) for point in points):
        decibels = [point._replace(ms_ssim=-10 * math.log10(max(1e-6, 1 - point.ms_ssim))) for point in points]
        drawings += card(curves(decibels, "ms_ssim", "MS-SSIM, dB: −10 log₁₀(1 − MS-SSIM)"))
    content = [
        key_numbers([(value, what) for what, value in facts(measured)]),
        section("Distortion against size", "Means over all images; every size is that of a whole file.", drawings),
        section("The numbers", "", card(html_table("All settings", COLUMNS, rows(measured), RIGHT))),
    ]
    lead = "A learned codec beside those of Pillow, on the same images: JPEG is 4:2:0 and optimised."
    write_atomic(path, [page("Images in few bits", lead, content, "Written by fewbits image bench.").encode()])
