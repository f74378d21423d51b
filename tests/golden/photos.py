"""Pictures and codecs for tests: made up, small, and the same in every run.

`python -m tests.golden.photos` trains the codecs in `codecs/` that are not there yet; no test does.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewbits import images

CODECS = Path(__file__).parent / "codecs"
SMALL = {"widths": (6,), "latents": 8, "hyper_width": 8, "hyper_latents": 4, "trades": (0.002, 0.02)}
CONFIGS = {
    "hyperprior-soft": images.CodecConfig(rounding="soft", level_bits=3, **SMALL),
    "hyperprior-noise": images.CodecConfig(rounding="noise", **SMALL | {"widths": ()}),
    "factorized-universal": images.CodecConfig("factorized", "universal", level_bits=2, **SMALL | {"widths": (6, 8)}),
    "factorized-straight": images.CodecConfig("factorized", "straight_through", **SMALL | {"trades": (0.01,)}),
}


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Something like a photo, (height, width, 3) uint8: a few lit shapes before a gradient, and some grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.linspace(60, 180, width)[None, :, None] + 30 * np.sin(rows / (9 + 20 * rng.random()))[..., None]
    image = np.repeat(image, 3, 2) * rng.uniform(0.6, 1.1, 3)
    for _ in range(8):
        top, left, size = rng.integers(0, height), rng.integers(0, width), rng.integers(4, 40)
        inside = (rows - top) ** 2 + (columns - left) ** 2 < size**2
        shade = 1 - 0.4 * ((rows - top + columns - left) / (2 * size)).clip(-1, 1)
        image = np.where(inside[..., None], shade[..., None] * rng.uniform(20, 230, 3), image)
    return torch.from_numpy((image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8))


def codec_path(name: str) -> Path:
    return CODECS / f"{name}.fewbits"


def digest_of(name: str) -> str:
    """What images call a codec."""
    return hashlib.sha256(codec_path(name).read_bytes()).hexdigest()[:32]


def main() -> int:
    photos = [photo(96, 96, seed).movedim(-1, 0).contiguous() for seed in range(100, 112)]
    for name, config in CONFIGS.items():
        if not codec_path(name).exists():
            training = images.TrainingConfig(steps=400, batch=4, side=64, learning_rate=2e-3)
            report = images.save_codec(images.train(photos, config, training), codec_path(name), bits=6)
            print(f"{name}: {report.size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
