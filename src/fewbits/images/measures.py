"""How far an image is from another: PSNR, MS-SSIM; and how far a curve of rates is from another: BD-rate."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from fewbits.errors import InvalidArgument

_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # PAPER: Wang, Simoncelli, Bovik 2003, section 3.2
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_of(squared_error: float) -> float:
    """Return the PSNR of a mean squared error in grey levels, in dB; infinity for none."""
    return math.inf if squared_error == 0 else 10 * math.log10(255**2 / squared_error)


def psnr(image: Tensor, other: Tensor) -> float:
    """Return the PSNR of two images, (...) uint8 each, over all their values, in dB."""
    return psnr_of(float((image.double() - other.double()).square().mean()))


def ms_ssim(image: Tensor, other: Tensor) -> float:
    """Return the multi-scale structural similarity of two images (H, W, C) uint8, the mean over channels, at most 1.

    Source: Wang, Simoncelli, Bovik 2003: five scales, Gaussian windows of 11 pixels, valid positions only.

    Raises:
        InvalidArgument: a side is below 176 pixels, and the coarsest scale has no window.
    """
    least = _WINDOW << len(_SCALES) - 1
    if min(image.shape[:2]) < least:
        raise InvalidArgument(f"MS-SSIM wants sides of at least {least} pixels, not {tuple(image.shape[:2])}.")
    first, second = (each.movedim(-1, 0)[:, None].double() for each in (image, other))
    places = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-places.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    product = torch.ones(len(first), dtype=torch.float64)
    for number, weight in enumerate(_SCALES):
        if number:
            first, second = avg_pool2d(first, 2), avg_pool2d(second, 2)
        luminance, contrast = _ssim_terms(first, second, window)
        last = number == len(_SCALES) - 1
        term = (luminance * contrast if last else contrast).mean((1, 2, 3))
        product = product * term.clamp(min=0) ** weight
    return float(product.mean())


def _ssim_terms(first: Tensor, second: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    def blurred(values: Tensor) -> Tensor:
        return conv2d(conv2d(values, window[None, None, :, None]), window[None, None, None, :])

    means = blurred(first), blurred(second)
    variances = blurred(first * first) - means[0] ** 2, blurred(second * second) - means[1] ** 2
    covariance = blurred(first * second) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + _C1) / (means[0] ** 2 + means[1] ** 2 + _C1)
    return luminance, (2 * covariance + _C2) / (variances[0] + variances[1] + _C2)


def bd_rate(
    rates: Sequence[float], quality: Sequence[float], anchor_rates: Sequence[float], anchor: Sequence[float]
) -> float:
    """Return by how much rates differ from an anchor's at equal quality, on average: -0.15 is 15 % less.

    The logarithms of rates are interpolated over quality by monotone cubics (Fritsch, Carlson 1980), as the ITU's
    reference software does since its fourth version, and compared where both curves have points.

    Args:
        rates, anchor_rates: at least two each, above 0. quality, anchor: of the same points, say in dB.

    Raises:
        InvalidArgument: there are too few points, or the curves share no quality.
    """
    curves: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for each, good in ((rates, quality), (anchor_rates, anchor)):
        order = np.argsort(good)
        curves.append((np.asarray(good, np.float64)[order], np.log(np.asarray(each, np.float64)[order])))
        if len(good) < 2 or not np.all(np.diff(curves[-1][0]) > 0):
            raise InvalidArgument("a curve has at least two points, of different qualities.")
    low, high = (pick([curve[0][end] for curve in curves]) for pick, end in ((max, 0), (min, -1)))
    if not low < high:
        raise InvalidArgument("two curves that share no quality cannot be compared.")
    places = np.linspace(low, high, 1001)
    difference = _monotone(*curves[0], places) - _monotone(*curves[1], places)
    return float(np.expm1(((difference[1:] + difference[:-1]) / 2).mean()))


def _monotone(x: NDArray[np.float64], y: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """A monotone cubic through points (n,) at places inside."""
    gaps, slopes = np.diff(x), np.diff(y) / np.diff(x)
    tangents = np.concatenate([slopes[:1], slopes[-1:]])
    if len(x) > 2:
        before, after = slopes[:-1], slopes[1:]
        first, second = 2 * gaps[1:] + gaps[:-1], gaps[1:] + 2 * gaps[:-1]
        agree = before * after > 0
        safe = np.where(agree, before, 1.0), np.where(agree, after, 1.0)
        inner = np.where(agree, (first + second) / (first / safe[0] + second / safe[1]), 0.0)
        ends = [_end(gaps[0], gaps[1], slopes[0], slopes[1]), _end(gaps[-1], gaps[-2], slopes[-1], slopes[-2])]
        tangents = np.concatenate([[ends[0]], inner, [ends[1]]])
    part = np.clip(np.searchsorted(x, places, side="right") - 1, 0, len(gaps) - 1)
    step, share = gaps[part], (places - x[part]) / gaps[part]
    a, b = y[part], y[part + 1]
    left, right = tangents[part] * step, tangents[part + 1] * step
    return a + share * (left + share * (3 * (b - a) - 2 * left - right + share * (2 * (a - b) + left + right)))


def _end(gap: float, next_gap: float, slope: float, next_slope: float) -> float:
    """The slope at an end, by three points, kept monotone."""
    found = ((2 * gap + next_gap) * slope - gap * next_slope) / (gap + next_gap)
    if found * slope <= 0:
        return 0.0
    return 3 * slope if slope * next_slope <= 0 and abs(found) > 3 * abs(slope) else found
