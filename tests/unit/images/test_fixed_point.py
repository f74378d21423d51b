"""Networks in whole numbers: what they are near, and that nothing about a machine is in them."""

import itertools

import pytest
import torch
from torch import nn

from fewbits.errors import Corrupt
from fewbits.images import fixed_point
from fewbits.images.fixed_point import MOST, VALUE, FixedPoint
from fewbits.images.gdn import Gdn
from fewbits.images.transforms import analysis, hyper_analysis, hyper_synthesis, start_from_components, synthesis
from tests.golden.photos import photo

NETWORKS = {
    "analysis": (lambda: analysis((8, 12), 10), (3, 64, 96)),
    "synthesis": (lambda: synthesis((8, 12), 10), (10, 4, 6)),
    "analysis without widths": (lambda: analysis((), 7), (3, 12, 8)),
    "synthesis without widths": (lambda: synthesis((), 7), (7, 3, 2)),
    "hyper-analysis": (lambda: hyper_analysis(6, 5, 4), (6, 8, 12)),
    "hyper-synthesis": (lambda: hyper_synthesis(4, 5, 6), (4, 2, 3)),
}


def made(name: str) -> tuple[nn.Sequential, torch.Tensor]:
    """A network with random weights, and an input counted in 2^-10."""
    torch.manual_seed(1)
    build, shape = NETWORKS[name]
    return build().double(), torch.randint(-3 * VALUE, 3 * VALUE, (1, *shape)).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_network_up_to_rounding(name: str) -> None:
    network, values = made(name)
    found = FixedPoint.of(network)(values)
    assert found.equal(found.round())
    with torch.no_grad():
        expected = network(values / VALUE) * VALUE
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 8  # of 1024


@pytest.mark.parametrize("name", NETWORKS)
def test_threads_strips_and_the_order_of_sums_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, values = made(name)
    exact = FixedPoint.of(network)
    expected, threads = exact(values), torch.get_num_threads()
    try:
        for count, columns in itertools.product((1, 2), (1, 4000)):
            torch.set_num_threads(count)
            monkeypatch.setattr(fixed_point, "_COLUMNS", columns)
            assert exact(values).equal(expected)
    finally:
        torch.set_num_threads(threads)
    # The same sums by another library, in another order: channels reversed.
    convolution = next(layer for layer in exact.layers if isinstance(layer, fixed_point.Convolution))
    axis = 0 if convolution.is_transposed else 1
    turned = convolution._replace(weight=convolution.weight.flip(axis))
    assert turned(values.flip(1)).equal(convolution(values))


def test_results_are_cut_and_stay_exact_at_the_greatest_values() -> None:
    network, _ = made("synthesis")
    found = FixedPoint.of(network)(torch.full((1, 10, 4, 6), MOST, dtype=torch.float64))
    assert float(found.abs().max()) <= MOST
    assert found.equal(found.round())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e7, -1e7])
def test_weights_whose_sums_would_not_be_exact_are_corrupt(value: float) -> None:
    for network in (nn.Sequential(nn.Conv2d(2, 2, 3, 1, 1)), nn.Sequential(Gdn(2))):
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] = value
        with pytest.raises(Corrupt, match="exactly"):
            FixedPoint.of(network)


def test_a_normalisation_undoes_its_counterpart_where_channels_are_alone() -> None:
    there, back = Gdn(3), Gdn(3, inverse=True)
    with torch.no_grad():
        there.gamma_root.zero_()
        back.gamma_root.zero_()
    values = torch.randn(2, 3, 5, 5)
    assert torch.allclose(back(there(values)), values, atol=1e-6)


def test_gradients_of_a_normalisation_are_finite_where_all_is_zero() -> None:
    layer = Gdn(4)
    values = torch.zeros(1, 4, 2, 2, requires_grad=True)
    layer(values).sum().backward()
    assert values.grad is not None and values.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in layer.parameters())


def test_transforms_start_as_components_that_give_the_image_back() -> None:
    torch.manual_seed(0)
    images = torch.stack([photo(64, 64, seed) for seed in range(8)]).movedim(-1, 1).float() / 64 - 2
    there, back = analysis((48,), 150), synthesis((48,), 150)
    start_from_components(there, back, images)
    with torch.no_grad():
        latents = there(images)
        error = (back(latents) - images).square().mean() / images.square().mean()
    assert float(error) < 0.06
    # The greatest components come first.
    energies = latents.square().mean((0, 2, 3))
    assert float(energies[:10].sum()) > 0.8 * float(energies.sum())
