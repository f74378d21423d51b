"""`fewbits image`: train a codec, code photos with it, compare it with others.

Importing this imports no torch: what needs it is imported inside the commands.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fewbits.cli.terminal import write_json, write_table
from fewbits.progress import progress_bar

app = typer.Typer(help="Images by a learned codec (needs the extra `images`).", no_args_is_help=True)

Refine = Annotated[
    int,
    typer.Option(
        min=0, help="Steps of a search for a smaller and better file; 100 take about as long as 100 times decoding."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Codec = Annotated[Path, typer.Option("--codec", "-c", help="The codec's file, as `fewbits image train` wrote it.")]
MaybeCodec = Annotated[
    Path | None,
    typer.Option(
        "--codec", "-c", help="The codec's file, where it lies neither beside the image nor in FEWBITS_CODECS."
    ),
]


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with None for what JSON has no number for: PSNR of equal images, MS-SSIM of small ones."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="A folder of images to learn from, with its subfolders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The codec's file to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of training; 8000 take half an hour on two cores.")] = 8000,
    entropy_model: Annotated[str, typer.Option(help="hyperprior or factorized.")] = "hyperprior",
    rounding: Annotated[str, typer.Option(help="straight_through, soft, universal or noise.")] = "straight_through",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state here while training; a run that stopped goes on from it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Train a codec on a folder of images, all qualities together."""
    from fewbits import images
    from fewbits.container.atomic import check_target
    from fewbits.images.pixels import image_paths, read_colours

    check_target(out)
    config = images.CodecConfig(entropy_model=entropy_model, rounding=rounding)
    training = images.TrainingConfig(steps=steps, seed=seed)
    photos = list(read_colours(image_paths(folder)))
    with progress_bar() as progress:
        codec = images.train(photos, config, training, checkpoint=checkpoint, device=device, progress=progress)
    report = images.save_codec(codec, out)
    if as_json:
        write_json(report.to_json())
    else:
        qualities = f"0 (smallest files) to {len(config.trades) - 1}"
        facts = [("codec", str(out)), ("size", f"{report.size:,} B"), ("images", f"{len(photos):,}")]
        write_table([*facts, ("qualities", qualities)], (), ())


@app.command()
def encode(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or other image of 8 bits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .fewbits file to write.")],
    codec: Codec,
    quality: Annotated[
        int | None, typer.Option("--quality", "-q", min=0, help="From 0 for the smallest file; else the middle one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the dither; stored in the file.")] = 0,
    refine: Refine = 0,
    as_json: AsJson = False,
) -> None:
    """Code an image: pixels by the codec, alpha exactly."""
    from fewbits import images

    coded = images.encode(image, out, codec=codec, quality=quality, seed=seed, refine=refine)
    if as_json:
        write_json(finite(coded._asdict()))
    else:
        bits = f"{coded.actual_bits:,} in payloads, by the tables {coded.estimated_bits:,.0f}"
        facts = [("file", str(out)), ("size", f"{coded.size:,} B, {coded.bits_per_pixel:.3f} bits a pixel")]
        write_table([*facts, ("bits", bits), ("PSNR", f"{coded.psnr:.2f} dB")], (), ())


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="A .fewbits file of an image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The image to write; .png keeps every pixel.")],
    codec: MaybeCodec = None,
    limit: Annotated[str | None, typer.Option(help="Refuse an image that takes more than this, e.g. 2GB.")] = None,
) -> None:
    """Decode an image: the same pixels on every machine."""
    from fewbits import images
    from fewbits.budget import parse_size

    images.decode(file, out, codec=codec, limit=None if limit is None else parse_size(limit))
    typer.echo(f"{out}: {out.stat().st_size:,} B")


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(help="A folder of images to measure on, with its subfolders.")],
    codec: Codec,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML page to write.")] = Path("fewbits-images.html"),
    refine: Refine = 0,
    as_json: AsJson = False,
) -> None:
    """Compare a codec with JPEG, WebP and AVIF: sizes, distortions, times, and a page with the curves."""
    from fewbits import images
    from fewbits.cli.image_page import COLUMNS, RIGHT, facts, rows, write_page
    from fewbits.container.atomic import check_target
    from fewbits.images.comparison import compare, points_of
    from fewbits.images.pixels import image_paths, read_colours

    check_target(out)
    opened, paths = images.open_codec(codec), image_paths(folder)
    measured = []
    with progress_bar() as progress:
        for done, (path, photo) in enumerate(zip(paths, read_colours(paths), strict=True), 1):
            measured += compare([(path.name, photo.movedim(0, -1))], opened, refine=refine)
            if progress is not None:
                progress("images", done, len(paths))
    write_page(measured, out)
    if as_json:
        write_json([finite(point._asdict()) for point in points_of(measured)])
    else:
        write_table(facts(measured), COLUMNS, rows(measured), right=RIGHT)
        typer.echo(f"\nThe picture: {out}")
