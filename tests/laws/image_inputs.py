"""`image` for the law suite: photos of all shapes beside tensors that are none; the rate weight has no effect."""

import torch
from torch import Tensor

from fewbits.images.method import ImageConfig, is_image
from fewbits.tensors import spec_of
from tests.golden.photos import digest_of, photo
from tests.laws import sources
from tests.laws.inputs import LawInputs


def network() -> dict[str, Tensor]:
    """A photo where other methods have a matrix, and one in grey."""
    grey = photo(65, 40, 1)[..., :1].contiguous()
    return sources.network() | {"attention.weight": photo(64, 48), "head.bias": grey}


def edges() -> dict[str, Tensor]:
    """Images of a pixel, of a row and of a column; what is nearly an image."""
    return {
        "pixel": photo(1, 1),
        "row": photo(1, 130),
        "column": photo(130, 1),
        "black": torch.zeros(20, 30, 3, dtype=torch.uint8),
        "white": torch.full((20, 30, 3), 255, dtype=torch.uint8),
        "noise": torch.from_numpy(sources.generator(9).integers(0, 256, (33, 31, 3), "uint8")),
        "without rows": torch.zeros(0, 30, 3, dtype=torch.uint8),
        "two channels": photo(9, 9)[..., :2].contiguous(),
        "signed": photo(9, 9).to(torch.int8),
        "float": photo(9, 9).float(),
        "flat": photo(9, 9)[..., 0].contiguous(),
    }


def views() -> dict[str, Tensor]:
    """Images that are views of others."""
    whole = photo(80, 90, 4)
    return {"every second": whole[::2, ::2], "turned": whole.transpose(0, 1), "grey": whole[:50, 3:60, 1:2]}


def is_lossy(tensor: Tensor) -> bool:
    return is_image(spec_of("image", tensor))


def tiled() -> dict[str, Tensor]:
    """Several bands, the last one short."""
    return {"tall": photo(150, 300, 5), "grey": photo(129, 400, 6)[..., :1].contiguous()}


INPUTS = LawInputs(
    configs=(
        ImageConfig(),
        ImageConfig(digest_of("hyperprior-soft"), 1),
        ImageConfig(digest_of("hyperprior-noise"), 0),
        ImageConfig(digest_of("factorized-universal"), 1),
        ImageConfig(digest_of("factorized-straight"), 0),
    ),
    sources={
        "network": network,
        "every dtype": sources.every_dtype,
        "edges": edges,
        "views": views,
        "large": lambda: {"photo": photo(130, 200, 7)},
        "tiled": tiled,
    },
    rate_weights=(0.0,),
    used=ImageConfig(digest_of("hyperprior-soft"), 1),
    is_lossy=is_lossy,
)
