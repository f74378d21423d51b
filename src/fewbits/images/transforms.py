"""The networks of an image codec: between pixels and latents, and between latents and what says how they spread.

All are sequences of convolutions, transposed convolutions, divisive normalisations and ReLUs: `fixed_point` has exact
forms of these four.

Source: Ballé et al. 2018 (arXiv:1802.01436); Minnen et al. 2018 (arXiv:1809.02736). Differs: the first layer steps by
four pixels at a time, and there are three layers instead of four, which a CPU trains in minutes.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from fewbits.images.gdn import Gdn

HYPER_STEP = 4  # latents a side of a hyper-latent


def analysis(widths: tuple[int, ...], latents: int) -> nn.Sequential:
    """From pixels (B, 3, step · h, step · w) to latents (B, latents, h, w); the step is 4 · 2^len(widths)."""
    layers: list[nn.Module] = [nn.Conv2d(3, (*widths, latents)[0], 8, 4, 2)]
    for narrow, wide in pairwise((*widths, latents)):
        layers += [Gdn(narrow), nn.Conv2d(narrow, wide, 5, 2, 2)]
    return nn.Sequential(*layers)


def synthesis(widths: tuple[int, ...], latents: int) -> nn.Sequential:
    """From latents (B, latents, h, w) to pixels (B, 3, step · h, step · w)."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((latents, *reversed(widths))):
        layers += [nn.ConvTranspose2d(wide, narrow, 5, 2, 2, 1), Gdn(narrow, inverse=True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d((*widths, latents)[0], 3, 8, 4, 2))


def hyper_analysis(latents: int, width: int, hyper_latents: int) -> nn.Sequential:
    """From latents (B, latents, 4h, 4w) to hyper-latents (B, hyper_latents, h, w)."""
    return nn.Sequential(
        nn.Conv2d(latents, width, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(width, width, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(width, hyper_latents, 5, 2, 2),
    )


def hyper_synthesis(hyper_latents: int, width: int, latents: int) -> nn.Sequential:
    """From hyper-latents (B, hyper_latents, h, w) to means and scales (B, 2 · latents, 4h, 4w)."""
    return nn.Sequential(
        nn.ConvTranspose2d(hyper_latents, width, 5, 2, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width, 5, 2, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * latents, 3, 1, 1),
    )


@torch.no_grad()
def start_from_components(forth: nn.Sequential, back: nn.Sequential, images: Tensor) -> None:
    """Make transforms start as principal components of images (B, 3, 16h, 16w), block by block, and back.

    Each layer takes the components of the blocks that it steps by, the greatest first, and its counterpart their
    transpose: orthonormal, but for what has no channel. What is left of a layer keeps a tenth of its random values.
    Training starts where a block transform is, and is minutes ahead.
    """
    values = images
    normalisations = [layer for layer in forth if isinstance(layer, Gdn)]
    convolutions = [layer for layer in forth if isinstance(layer, nn.Conv2d)]
    transposed = [layer for layer in back if isinstance(layer, nn.ConvTranspose2d)][::-1]
    for number, (there, here) in enumerate(zip(convolutions, transposed, strict=True)):
        size = there.stride[0]
        blocks = unfold(values, size, stride=size).movedim(1, -1).flatten(0, -2)
        spread = blocks.T.double() @ blocks.double()
        components = torch.linalg.eigh(spread).eigenvectors.flip(1).T[: there.out_channels].float()
        kernels = components.reshape(len(components), there.in_channels, size, size)
        # Of a layer that steps by blocks, the block lies behind the padding.
        inside = slice(int(there.padding[0]), int(there.padding[0]) + size)
        for layer in (there, here):
            layer.weight.mul_(0.1)
            layer.weight[: len(kernels), :, inside, inside] = kernels
            if layer.bias is not None:
                layer.bias.zero_()
        values = nn.functional.conv2d(values, there.weight, there.bias, there.stride, there.padding)
        if number < len(normalisations):
            values = normalisations[number](values)
