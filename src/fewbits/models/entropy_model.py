"""The contract of entropy models: what a value costs, differentiably, while it is being trained."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn


class EntropyModel(nn.Module, ABC):
    """A density of latents in units of the quantiser's step; its parameters are trained with the latents.

    What codes in the end is an integer table, chosen by `fewbits.models.fit` for the integers that came out.
    Laws: bits are at least 0; gradients are finite at every finite value.
    """

    takes_noise: ClassVar[bool] = True  # whether training shows it values with U(-1/2, 1/2) added

    @abstractmethod
    def bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of each value: -log2 of the density convolved with U(-1/2, 1/2).

        Args:
            values: (...) float, in units of the step.

        Returns:
            (...) float, differentiable in the values and in the model's parameters.
        """

    def total_bits(self, values: Tensor) -> Tensor:
        """Return the expected bits of all values together, ()."""
        return self.bits(values).sum()

    def refresh(self, values: Tensor) -> None:
        """Look at the values again, as training has moved them; a model whose parameters are trained does nothing."""
