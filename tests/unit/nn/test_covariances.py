"""Covariances of what layers read."""

import pytest
import torch
from torch import Tensor, nn

import fewbits
from fewbits.errors import InvalidArgument


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1, stride=2)
        self.grouped = nn.Conv2d(5, 5, 3, groups=5)
        self.dense = nn.Linear(5, 7)
        self.unused = nn.Linear(5, 7)

    def forward(self, images: Tensor, scale: float = 1.0) -> Tensor:
        return self.dense(self.grouped(self.conv(images)).mean((2, 3)) * scale)


def test_an_error_of_a_weight_is_felt_as_the_covariance_says() -> None:
    torch.manual_seed(0)
    net, images = Net(), torch.randn(6, 3, 9, 11)
    found = fewbits.input_covariances(net, [images[:2], (images[2:4],), {"images": images[4:]}])
    assert set(found) == {"conv.weight", "dense.weight"}
    error = torch.randn_like(net.conv.weight)
    outputs = nn.functional.conv2d(images, error, None, 2, 1)
    felt = torch.trace(error.flatten(1) @ found["conv.weight"] @ error.flatten(1).T)
    assert torch.allclose(felt, outputs.square().sum(1).mean(), rtol=1e-4)
    reads = net.grouped(net.conv(images)).mean((2, 3))
    assert torch.allclose(found["dense.weight"], reads.T @ reads / 6, atol=1e-5)


def test_nothing_is_left_behind() -> None:
    net = Net()
    with pytest.raises(InvalidArgument, match="not finite"):
        fewbits.input_covariances(net, [torch.full((1, 3, 9, 9), torch.nan)])
    assert not any(layer._forward_pre_hooks for layer in net.modules())
    with pytest.raises(InvalidArgument, match="no input"):
        fewbits.input_covariances(net, [])


def test_a_layer_of_its_own() -> None:
    assert set(fewbits.input_covariances(nn.Linear(3, 2), [torch.randn(4, 5, 3)])) == {"weight"}
