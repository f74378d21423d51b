"""Gaussian and Laplace noise by random widths: its law at fixed inputs, its price, its bits."""

import math

import numpy as np
import pytest
import torch

from fewbits.errors import InvalidArgument
from fewbits.quantize.noise_channels import NoiseChannel
from tests.golden.shared_randomness import logarithm, normals, sequence, words
from tests.unit.channel.samples import kolmogorov_smirnov

COUNT = 20_000


def cdf(noise: str, x: np.ndarray) -> np.ndarray:
    if noise == "laplace":
        return np.where(x < 0, 0.5 * np.exp(x), 1 - 0.5 * np.exp(-np.abs(x)))
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
@pytest.mark.parametrize("value", [0.0, 0.37, -5.2, 100.0, 1e4])
def test_the_noise_has_its_law_at_every_input(noise: str, value: float) -> None:
    channel = NoiseChannel(noise, 0.8, seed=11, item=4)
    integers = channel.send(torch.full((COUNT,), value))
    assert integers.dtype == torch.int64
    error = (channel.receive(integers) - value).numpy() / 0.8
    assert kolmogorov_smirnov(cdf(noise, error)) > 0.01


@pytest.mark.parametrize(("noise", "entropy", "price"), [("gaussian", 2.047096, 0.521), ("laplace", 2.442695, 0.833)])
def test_its_price_is_the_entropy_of_the_noise_less_the_mean_log_width(
    noise: str, entropy: float, price: float
) -> None:
    widths = NoiseChannel(noise, 1.0, seed=2).widths((400_000,)).numpy()
    logs = np.log2(widths)
    assert abs(entropy - logs.mean() - price) < 0.01
    assert logs.std() / math.sqrt(len(logs)) < 0.002


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_what_is_sent_costs_what_the_widths_say(noise: str) -> None:
    """Of a source that varies much more: H[K | S, u] is h(y) - E log2 S."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(COUNT, generator=generator, dtype=torch.float64) * 50
    channel = NoiseChannel(noise, 1.0, seed=3)
    integers, widths = channel.send(y), channel.widths((COUNT,))
    middle = channel.receive(integers)
    masses = torch.special.ndtr((middle + widths / 2) / 50) - torch.special.ndtr((middle - widths / 2) / 50)
    bits = -masses.log2()
    expected = 0.5 * math.log2(2 * math.pi * math.e * 2500) - float(widths.log2().mean())
    assert abs(float(bits.mean()) - expected) < 4 * float(bits.std()) / math.sqrt(COUNT) + 0.01


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_the_bits_are_those_of_a_second_implementation(isa: str, noise: str) -> None:
    seed, item, count = 9, 1, 12
    y = torch.arange(12.0).reshape(3, 4)
    channel = NoiseChannel(noise, 2.0, seed, item)
    integers = channel.send(y)
    found = channel.receive(integers)
    assert found.shape == (3, 4) and found.dtype == torch.float64
    each = np.stack([words(seed, 6, item, element, 3) for element in range(count)])
    uniform = (each + 0.5) / 2**32
    if noise == "gaussian":
        a, b, c = (normals(words_of) for words_of in each.T)
        widths = np.sqrt(a * a + b * b + c * c) * 4.0
    else:
        widths = (-logarithm(uniform[:, 0]) - logarithm(uniform[:, 1])) * 4.0
    shifts = ((sequence(seed, 2, item, count) >> np.uint64(8)).astype(np.float64) + 0.5) / 2**24 - 0.5
    np.testing.assert_array_equal(found.numpy().ravel(), (integers.numpy().ravel() + shifts) * widths)


@pytest.mark.parametrize(
    "channel", [("cauchy", 1.0, 1), ("gaussian", 0.0, 1), ("laplace", math.nan, 1), ("laplace", 1.0, 1, -1)]
)
def test_what_is_no_channel_is_refused(channel: tuple[str, float, int]) -> None:
    with pytest.raises(InvalidArgument):
        NoiseChannel(*channel).send(torch.zeros(2))
