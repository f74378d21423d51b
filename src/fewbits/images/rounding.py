"""What stands for quantisation while an image codec is trained, and what its decoder will see in use.

noise: uniform noise in training, rounding in use: the familiar way, and its familiar gap.
straight_through: the rate sees noise, the decoder rounded latents whose gradient passes as if nothing had been done.
universal: universal quantisation, in training with a fresh dither, in use with a file's.
soft: soft rounding before universal quantisation and the conditional mean after it, likewise.

A dither has the same levels in training as in files: a latent that is nearly always 0 pays for the noise only where it
comes near ±1/2, and some levels come no nearer than others. With continuous noise training counted up to 1 % more bits.

Source: Agustsson, Theis 2020 (arXiv:2006.09952), sections 3 and 4; Minnen, Singh 2020 for "straight_through".
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fewbits.quantize.noise import add_uniform_noise, straight_through_round
from fewbits.quantize.soft_rounding import soft_round, soft_round_inverse, soft_round_mean
from fewbits.quantize.universal import expected_gradient, universal_quantize

ROUNDINGS = ("noise", "straight_through", "universal", "soft")
DITHERED = ("universal", "soft")  # in use
_LIMIT = 2.0**30

IntervalBits = Callable[[Tensor, Tensor], Tensor]


class Seen(NamedTuple):
    """What a decoder sees of latents, (...) in steps, and the expected bits of each, (...)."""

    values: Tensor
    bits: Tensor


def quantized(
    kind: str,
    latents: Tensor,
    between: IntervalBits,
    *,
    sharpness: Tensor | float = 1.0,
    level_bits: int = 4,
    training: bool = False,
) -> Seen:
    """Return one draw of quantised latents.

    Args:
        kind: one of ROUNDINGS.
        latents: (...) float, in steps.
        between: bits of lying between two ends, of what is quantised.
        sharpness: of soft rounding.
        level_bits: log2 of the dither's levels, where there is a dither.
        training: relaxed; else what `kind` does in use, in distribution.
    """
    if kind == "soft":
        rounded = soft_round(latents, sharpness)
        noise = _left_by_dither(rounded, level_bits)

        def bits(noisy: Tensor) -> Tensor:
            ends = (soft_round_inverse(noisy + half, sharpness) for half in (-0.5, 0.5))
            return between(*ends)

        values = expected_gradient(lambda noisy: soft_round_mean(noisy, sharpness), rounded, noise)
        return Seen(values, expected_gradient(bits, rounded, noise))
    if not training and kind not in DITHERED:
        values = torch.floor(latents + 0.5)
        return Seen(values, between(values - 0.5, values + 0.5))
    noisy = latents + _left_by_dither(latents, level_bits) if kind in DITHERED else add_uniform_noise(latents)
    bits_of_noisy = between(noisy - 0.5, noisy + 0.5)
    if kind == "straight_through":
        return Seen(straight_through_round(latents, torch.tensor(_LIMIT, device=latents.device)), bits_of_noisy)
    return Seen(noisy, bits_of_noisy)


@torch.no_grad()
def _left_by_dither(values: Tensor, level_bits: int) -> Tensor:
    """What universal quantisation adds to values, (...) in steps, with a fresh dither of so many levels."""
    levels = 1 << level_bits
    dither = (torch.floor(torch.rand_like(values) * levels) + 0.5) / levels - 0.5
    return universal_quantize(values, dither) + dither - values
