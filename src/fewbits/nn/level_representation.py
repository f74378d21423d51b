"""What representations by levels have in common: the latents' averages, and counts that are made anew now and then."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewbits.method import Representation
from fewbits.nn.latent_rounding import LatentRounding
from fewbits.nn.latent_tensor import LatentTensor


class LevelRepresentation(Representation):
    """A representation whose latents are rounded to levels (`LatentTensor`).

    What is evaluated and written are averages of the latents over training steps, if there are any.
    """

    num_updates: Tensor

    def __init__(self, rounding: LatentRounding, average: float, refresh: int) -> None:
        """Take what rounds latents in training.

        Args:
            average: decay of the latents' moving average; 0 for none.
            refresh: training steps from one count of the adaptive rate to the next.
        """
        super().__init__()
        self.rounding = rounding
        self._average, self._refresh = average, refresh
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))
        self._num_updates = 0  # the same as a number: a GPU need not be waited for

    @abstractmethod
    def latent_tensors(self) -> Sequence[LatentTensor]:
        """Return all that has latents."""

    @torch.no_grad()
    def update(self) -> None:
        """Average the latents and, now and then, count them anew: once for each training step."""
        refresh = self._num_updates % self._refresh == 0
        self._num_updates += 1
        self.num_updates += 1
        self.rounding.advance()
        held = [latents for latents in self.latent_tensors() if not latents.committed]
        if self._average:
            # The first latents count for little: the average of n of them starts with n / 10.
            decay = min(self._average, (self._num_updates + 1) / (self._num_updates + 10))
            for latents in held:
                latents.average.lerp_(latents.latents, 1 - decay)
            if self._num_updates == 1:
                self._mark_averages()
        if refresh:
            for latents in held:
                latents.density.refresh(latents.latents)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._num_updates = int(self.num_updates)
        self._mark_averages()

    def _mark_averages(self) -> None:
        for latents in self.latent_tensors():
            latents.averages = bool(self._average and self._num_updates)
