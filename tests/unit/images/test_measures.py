"""PSNR, MS-SSIM and BD-rate against what is known of them."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import InvalidArgument
from fewbits.images.measures import bd_rate, ms_ssim, psnr
from tests.golden.photos import photo


def test_psnr() -> None:
    image = torch.full((4, 5, 3), 100, dtype=torch.uint8)
    assert psnr(image, image) == math.inf
    assert psnr(image, image + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert psnr(image, 255 - image) == psnr(255 - image, image)


def test_ms_ssim() -> None:
    image = photo(200, 220)
    assert ms_ssim(image, image) == pytest.approx(1)
    noise = torch.randint(-20, 20, image.shape)
    noisy = (image.int() + noise).clamp(0, 255).to(torch.uint8)
    noisier = (image.int() + 3 * noise).clamp(0, 255).to(torch.uint8)
    assert 1 > ms_ssim(image, noisy) > ms_ssim(image, noisier) > 0
    # A shift of all levels is seen by the coarsest scale's luminance alone: (2ab + C1) / (a² + b² + C1).
    flat = torch.full((176, 176, 1), 100, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    expected = ((2 * 100 * 130 + c1) / (100**2 + 130**2 + c1)) ** 0.1333
    assert ms_ssim(flat, flat + 30) == pytest.approx(expected)
    with pytest.raises(InvalidArgument, match="at least 176 pixels"):
        ms_ssim(image[:175], image[:175])


def test_bd_rate_of_curves_that_are_known() -> None:
    rates, good = [0.1, 0.2, 0.45, 1.0, 1.6], [28.0, 30.0, 33.0, 36.0, 38.5]
    assert bd_rate(rates, good, rates, good) == pytest.approx(0)
    assert bd_rate([0.7 * rate for rate in rates], good, rates, good) == pytest.approx(-0.3)
    assert bd_rate(rates[1:4], good[1:4], rates, good) == pytest.approx(0, abs=0.02)
    # Straight lines in the logarithm of the rate, which differ by a factor that grows from 1 to 2.
    quality = np.linspace(30, 40, 6)
    steeper = np.exp(0.2 * quality) * np.exp(math.log(2) * (quality - 30) / 10)
    assert bd_rate(list(steeper), list(quality), list(np.exp(0.2 * quality)), list(quality)) == pytest.approx(
        math.sqrt(2) - 1, rel=1e-3
    )


def test_bd_rate_is_that_of_scipys_monotone_cubics() -> None:
    interpolate = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(0)
    for _ in range(10):
        curves = [(np.cumsum(rng.uniform(0.05, 0.5, 6)), 25 + np.cumsum(rng.uniform(0.3, 3, 6))) for _ in range(2)]
        low, high = max(q[0] for _, q in curves), min(q[-1] for _, q in curves)
        areas = [interpolate.PchipInterpolator(q, np.log(r)).integrate(low, high) for r, q in curves]
        expected = math.expm1((areas[0] - areas[1]) / (high - low))
        (r, q), (anchor_r, anchor_q) = curves
        assert bd_rate(list(r), list(q), list(anchor_r), list(anchor_q)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("good", [[30.0], [30.0, 30.0], [50.0, 60.0]])
def test_curves_that_cannot_be_compared_are_refused(good: list[float]) -> None:
    with pytest.raises(InvalidArgument):
        bd_rate([0.1, 0.2][: len(good)], good, [0.1, 0.2], [30.0, 32.0])
