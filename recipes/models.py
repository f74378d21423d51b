"""The networks of the papers' MNIST rows; input (N, 1, 28, 28) in [0, 1], output (N, 10) logits."""

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


NETWORKS: dict[str, Callable[..., nn.Module]] = {"lenet300": LeNet300, "lenet5": LeNet5}
# Layers whose outputs are the hidden units, in the order of `units`.
UNIT_LAYERS = {"lenet300": ("fc1", "fc2"), "lenet5": ("conv1", "conv2", "fc1")}
