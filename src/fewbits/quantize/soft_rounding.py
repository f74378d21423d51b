"""Soft rounding: a smooth, invertible map that becomes rounding as its sharpness grows.

    s(y) = m + tanh(sharpness (y - m)) / (2 tanh(sharpness / 2)),   m = floor(y) + 1/2

It is periodic, s(y + 1) = s(y) + 1, the reason why all that follows has a closed form. At sharpness 0 it is the
identity.

NUMERICS: half precision is computed in float32. Sharpness is cut at 12 in float32 and at 25 in float64, where the
inverse still finds its way back within 1e-3; below 1e-3 the identity is taken.

Source: Agustsson, Theis 2020 (arXiv:2006.09952), section 4.1; CN115668777A, claims 2, 3, 13 and 15.
"""

import torch
from torch import Tensor

MOST_SHARPNESS = {torch.float32: 12.0, torch.float64: 25.0}
_LEAST = 1e-3


def soft_round(values: Tensor, sharpness: Tensor | float) -> Tensor:
    """Return values drawn towards the nearest integer.

    Law: s(y + n) = s(y) + n for integers n; `soft_round_inverse` undoes it within 1e-3; half-integers and integers stay
    where they are. Gradients reach values and sharpness, and are finite everywhere.

    Args:
        values: (...) float.
        sharpness: at least 0; () or of a shape that broadcasts.

    Returns:
        (...) same dtype and device.
    """
    wide, sharp = _widened(values, sharpness)
    middle = wide.floor() + 0.5
    # PAPER: the equation above.
    rounded = middle + torch.tanh(sharp * (wide - middle)) / (2 * torch.tanh(sharp / 2))
    return _unless_dull(rounded, wide, sharpness).to(values.dtype)


def soft_round_inverse(values: Tensor, sharpness: Tensor | float) -> Tensor:
    """Return what `soft_round` makes these values of.

    Args:
        values: (...) float.
        sharpness: as for `soft_round`.

    Returns:
        (...) same dtype and device.
    """
    wide, sharp = _widened(values, sharpness)
    middle = wide.floor() + 0.5
    # NUMERICS: at the ends of a cell the argument is ±tanh(sharpness / 2) up to rounding, below 1 as the sharpness is
    # cut; but for that atanh would have no bound.
    inside = (2 * torch.tanh(sharp / 2) * (wide - middle)).clamp(-1 + _eps(wide), 1 - _eps(wide))
    found = middle + (torch.atanh(inside) / sharp).clamp(-0.5, 0.5)
    return _unless_dull(found, wide, sharpness).to(values.dtype)


def soft_round_mean(values: Tensor, sharpness: Tensor | float) -> Tensor:
    """Return the mean of y given s(y) + u = values, u from U(-1/2, 1/2), for a y whose density is flat nearby.

    y lies in an interval of length 1, by periodicity, and its mean is the middle: s⁻¹(z - 1/2) + 1/2. At low rates a
    density is not flat; `posterior_mean` of an entropy model knows it.

    Args:
        values: (...) float, z.
        sharpness: as for `soft_round`.

    Returns:
        (...) same dtype and device.
    """
    return soft_round_inverse(values - 0.5, sharpness) + 0.5


def _widened(values: Tensor, sharpness: Tensor | float) -> tuple[Tensor, Tensor]:
    """Values in float32 or float64, and a sharpness that all formulas hold for."""
    wide = values if values.dtype in MOST_SHARPNESS else values.float()
    sharp = torch.as_tensor(sharpness, dtype=wide.dtype, device=wide.device)
    return wide, sharp.clamp(_LEAST, MOST_SHARPNESS[wide.dtype])


def _unless_dull(rounded: Tensor, values: Tensor, sharpness: Tensor | float) -> Tensor:
    dull = torch.as_tensor(sharpness, device=values.device) < _LEAST
    return torch.where(dull, values, rounded)


def _eps(values: Tensor) -> float:
    return torch.finfo(values.dtype).eps
