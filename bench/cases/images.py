"""Image codecs trained on the patches, on Kodak images 1 to 16: BD-rate against JPEG, estimates, training and use.

`--recipes refined` is the best of them once more, with a search for each image's latents.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import Options
from .inputs import data_file, data_loaders, load_fewbits, need
from .recipe_runs import folder, recipe
from .row import Figure, Measured, Row

takes_rivals = False

VARIABLE = "FEWBITS_IMAGE_RUNS"  # names the folder where codecs and checkpoints are, or are left
RECIPES = ("noise", "straight_through", "universal", "soft", "factorized")
DITHERED = ("universal", "soft")
BEST = "straight_through"
REFINE = 40  # steps of the search for an image's latents, in the rows that say so
TRAIN_IS_USE, ESTIMATE, BD_RATE, REFINED_BD_RATE = 0.005, 0.01, -0.15, -0.3


class Codec(NamedTuple):
    """A codec as it codes, and as it was trained."""

    frozen: Any
    trained: Any
    said: dict[str, Any]


def rows(options: Options) -> Iterator[Row]:
    """Train what is missing; then a row a codec and quality, one a peer and setting, and one a codec on all of them."""
    need("torch", "fewbits", "PIL")
    load_fewbits()
    from fewbits.images.comparison import ANCHOR, OURS, Measured, bd_rates, compare, points_of

    kodak = _kodak()
    data = data_file("load.py").parent
    with folder(VARIABLE) as runs:
        if options.wants("refined"):
            yield from _refined(_codec(BEST, runs, data), kodak, options.seed)
        for name in (name for name in RECIPES if options.wants(name)):
            codec = _codec(name, runs, data)
            found: list[Measured] = []
            for image_name, image in kodak.items():
                peers = None if name == BEST else [ANCHOR]
                found += compare([(image_name, image)], codec.frozen, peers=peers, seed=options.seed)
            ours = [each for each in found if each.codec == OURS]
            gaps = [_gap(codec, kodak, ours, quality) for quality in range(len(codec.frozen.config.trades))]
            settings = {"recipe": name, "steps": codec.said["steps"], "seed": options.seed}
            for point, gap in zip(points_of(ours), gaps, strict=True):
                bounds = [("<=", TRAIN_IS_USE), (">=", -TRAIN_IS_USE)]
                asked = tuple(Figure(f"{what}_gap", *bound) for what in ("rate", "error") for bound in bounds)
                yield Row(
                    f"fewbits {name} quality {point.setting}",
                    _of_point(point) | gap,
                    asked if name in DITHERED else (),
                    settings,
                )
            rates = bd_rates(found)
            measured: dict[str, Any] = {
                "bd_rate": rates.pop(OURS),
                "size": codec.said["bytes"],
                "worst_estimate": max(abs(each.estimated / each.payload_bits - 1) for each in ours),
                "num_images": len(kodak),
            }
            measured |= {f"bd_rate_{peer.lower()}": rate for peer, rate in rates.items()}
            asked = (Figure("worst_estimate", "<=", ESTIMATE), Figure("bd_rate", "<=", BD_RATE))
            yield Row(f"fewbits {name}, all qualities", measured, asked if name == BEST else asked[:1], settings)
            if name == BEST:
                for point in (point for point in points_of(found) if point.codec != OURS):
                    yield Row(f"{point.codec} {point.setting}", _of_point(point))


def _refined(codec: Codec, kodak: dict[str, Any], seed: int) -> Iterator[Row]:
    """A row a quality, and one on all of them, of files that were searched for."""
    from fewbits.images.comparison import ANCHOR, OURS, bd_rates, compare, points_of

    found = list(compare(list(kodak.items()), codec.frozen, peers=[ANCHOR], seed=seed, refine=REFINE))
    ours = [each for each in found if each.codec == OURS]
    settings = {"recipe": BEST, "steps": codec.said["steps"], "seed": seed, "refine": REFINE}
    for point in points_of(ours):
        yield Row(f"fewbits {BEST} refined quality {point.setting}", _of_point(point), (), settings)
    measured: dict[str, Measured] = {
        "bd_rate": bd_rates(found)[OURS],
        "worst_estimate": max(abs(each.estimated / each.payload_bits - 1) for each in ours),
        "num_images": len(kodak),
    }
    asked = (Figure("worst_estimate", "<=", ESTIMATE), Figure("bd_rate", "<=", REFINED_BD_RATE))
    yield Row(f"fewbits {BEST} refined, all qualities", measured, asked, settings)


def _kodak() -> dict[str, Any]:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.array(image)) for name, image in data_loaders().kodak().items()}


def _codec(name: str, runs: Path, data: Path) -> Codec:
    """Open a recipe's codec, trained first where it is missing."""
    import torch

    from fewbits import images

    path = runs / f"{name}.fewbits"
    if not path.exists():
        recipe("images/train.py", name, "--data", data, "--out", path)
    frozen = images.open_codec(path)
    trained = images.Codec(frozen.config)
    state = torch.load(path.with_suffix(".pt"), weights_only=True)
    trained.load_state_dict(state["codec"])
    trained.sharpness = _fixed(frozen.config.sharpness)
    return Codec(frozen, trained.train(), json.loads(path.with_suffix(".json").read_text(encoding="utf8")))


def _fixed(sharpness: float) -> Any:
    """The sharpness at the end of training."""
    from fewbits.quantize.sharpness import Sharpness

    return Sharpness(sharpness, sharpness)


def _gap(codec: Codec, kodak: dict[str, Any], ours: Any, quality: int) -> dict[str, float]:
    """How far bits of payloads and squared errors of files are from those of training's own draws, over all images."""
    import torch

    files = {each.image: each for each in ours if each.setting == quality}
    sums = {"bits": 0.0, "file_bits": 0.0, "error": 0.0, "file_error": 0.0}
    torch.manual_seed(quality)
    for name, image in kodak.items():
        pixels = image.movedim(-1, 0)[None].float()
        with torch.no_grad():
            draw = codec.trained(pixels, quality)
        # Files hold whole grey levels from 0 to 255; training's draw is cut and rounded alike, or else it is not one.
        shown = draw.pixels.clamp(0, 255).round()
        count = image.shape[0] * image.shape[1]
        sums["bits"] += float(draw.bits)
        sums["file_bits"] += files[name].payload_bits
        sums["error"] += float((shown - pixels).square().mean()) * count
        sums["file_error"] += 255**2 / 10 ** (files[name].psnr / 10) * count
    return {
        "training_bits_per_pixel": sums["bits"] / sum(image.shape[0] * image.shape[1] for image in kodak.values()),
        "rate_gap": sums["file_bits"] / sums["bits"] - 1,
        "error_gap": sums["file_error"] / sums["error"] - 1,
    }


def _of_point(point: Any) -> dict[str, Measured]:
    measured = {key: value for key, value in point._asdict().items() if key not in ("codec", "setting")}
    return {key: value for key, value in measured.items() if not math.isnan(value)}
