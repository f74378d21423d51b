"""The networks of the rows: LeNets for MNIST, (N, 1, 28, 28) in [0, 1], ResNet-20 for CIFAR-10; (N, 10) logits."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet300(nn.Module):
    """LeNet-300-100: 266,610 parameters, ReLU."""

    def __init__(self, units: tuple[int, int] = (300, 100)) -> None:
        """Initialise as PyTorch does; with fewer units it is a part of the network, to train with."""
        super().__init__()
        self.fc1 = nn.Linear(784, units[0])
        self.fc2 = nn.Linear(units[0], units[1])
        self.fc3 = nn.Linear(units[1], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        hidden = functional.relu(self.fc1(torch.flatten(images, 1)))
        return self.fc3(functional.relu(self.fc2(hidden)))


class LeNet5(nn.Module):
    """LeNet5-Caffe, 20-50-500: 431,080 parameters.

    A ReLU follows both convolutions and the first dense layer; Caffe's own has only the last of these.
    """

    def __init__(self, units: tuple[int, int, int] = (20, 50, 500)) -> None:
        """Initialise as PyTorch does; with fewer units it is a part of the network, to train with."""
        super().__init__()
        self.conv1 = nn.Conv2d(1, units[0], 5)
        self.conv2 = nn.Conv2d(units[0], units[1], 5)
        self.fc1 = nn.Linear(16 * units[1], units[2])
        self.fc2 = nn.Linear(units[2], 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = functional.relu(functional.max_pool2d(self.conv1(images), 2))
        features = functional.relu(functional.max_pool2d(self.conv2(features), 2))
        return self.fc2(functional.relu(self.fc1(torch.flatten(features, 1))))


class Block(nn.Module):
    """Two 3 × 3 convolutions, (N, in, H, W) -> (N, out, H / stride, W / stride), and the input added."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Initialise as PyTorch does."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2  # zero channels on either side

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        shortcut = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *[self.padding] * 2))
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 (He et al. 2016, section 4.2), whose shortcuts have no weights (option A): 269,722 parameters.

    (N, 3, H, W) normalised images -> (N, 10) logits.
    """

    def __init__(self) -> None:
        """Initialise as PyTorch does."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(3)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


NETWORKS: dict[str, Callable[..., nn.Module]] = {"lenet300": LeNet300, "lenet5": LeNet5, "resnet20": ResNet20}
# Layers whose outputs are the hidden units, in the order of `units`, of networks that train with fewer.
UNIT_LAYERS = {"lenet300": ("fc1", "fc2"), "lenet5": ("conv1", "conv2", "fc1")}
