"""How sharp soft rounding is while a network trains: one object that quantiser, entropy model and decoder share."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.errors import InvalidArgument

KINDS = ("linear", "exponential")


class Sharpness(nn.Module):
    """A sharpness that rises over some steps, and is fixed or learned from then on.

    Law: whoever reads it in one step reads the same value. It is in `state_dict`, so that a run resumes where it was.

    Source: Agustsson, Theis 2020, section 4.3 (a schedule of two sharpnesses, whose values are not public); the ramps
    are those of public codecs.
    """

    num_advances: Tensor
    logit: Tensor

    def __init__(
        self,
        first: float = 1.0,
        last: float = 10.0,
        num_steps: int = 0,
        *,
        kind: str = "linear",
        most_learned: float = 0.0,
    ) -> None:
        """Rise from `first` to `last` in `num_steps` calls of `advance`; without steps it is `last` from the start.

        Args:
            kind: "linear" or "exponential".
            most_learned: above 0, the sharpness is learned after the ramp, between 0 and this.

        Raises:
            InvalidArgument: a sharpness is below 0, an exponential ramp starts at 0, or the last one is beyond what is
                learned.
        """
        super().__init__()
        if not 0 <= first <= last < math.inf or num_steps < 0:
            raise InvalidArgument(f"sharpness rises from 0 or more, not from {first} to {last} in {num_steps} steps.")
        if kind not in KINDS or (kind == "exponential" and not first):
            raise InvalidArgument("sharpness rises linearly, or exponentially from above 0.")
        if most_learned and not 0 < last < most_learned:
            raise InvalidArgument(f"a sharpness that is learned between 0 and {most_learned} cannot start at {last}.")
        self._first, self._last, self._num_steps, self._kind = first, last, num_steps, kind
        self._most_learned = most_learned
        self.register_buffer("num_advances", torch.zeros((), dtype=torch.int64))
        self._done = 0  # the same as a Python number: a GPU need not be waited for
        if most_learned:
            self.logit = nn.Parameter(torch.tensor(math.log(last / (most_learned - last))))

    @property
    def is_learned(self) -> bool:
        """Whether gradients reach it now."""
        return self._most_learned > 0 and self._done >= self._num_steps

    def forward(self) -> Tensor:
        """Return the sharpness now, () float32."""
        if self.is_learned:
            return self._most_learned * torch.sigmoid(self.logit)
        share = min(1.0, self._done / self._num_steps) if self._num_steps else 1.0
        if self._kind == "exponential":
            now = self._first * (self._last / self._first) ** share
        else:
            now = self._first + share * (self._last - self._first)
        return torch.tensor(now, device=self.num_advances.device)

    def advance(self) -> None:
        """Go on by a training step."""
        self._done += 1
        self.num_advances += 1

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self._done = int(self.num_advances)
