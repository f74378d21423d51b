"""Densities by number: of one family, mean 0, and a scale that a number stands for, which a hyperprior says."""

import torch
from torch import Tensor

from fewbits.errors import InvalidArgument
from fewbits.models.location_scale import FAMILIES, standard_bits

NUM_SCALES = 64  # of a codec that is made now; a file may have others
LEAST_SCALE = 0.02
PER_OCTAVE = 5
_GREATEST_SCALE = LEAST_SCALE * 2 ** ((NUM_SCALES - 1) / PER_OCTAVE)


def scale_of(index: Tensor) -> Tensor:
    """Return the scale that a number stands for, 0.02 · 2^(index / 5), in steps; (...) float."""
    return LEAST_SCALE * torch.exp2(index.clamp(0, NUM_SCALES - 1) / PER_OCTAVE)


def index_of(scale: Tensor) -> Tensor:
    """Return the number, not rounded, that stands for a scale above 0; (...) float."""
    return torch.log2(scale / LEAST_SCALE) * PER_OCTAVE


class ScaleIndexed:
    """A family of densities, each known by the number of its scale; while training, numbers need not be whole.

    Five numbers an octave: the nearest one is off by 7 % at most, which costs less than .004 bits a value.

    Source: the scale table of Ballé et al. 2018 (arXiv:1802.01436), in steps of our own.
    """

    def __init__(self, family: str = "gaussian", least_scale: float = LEAST_SCALE) -> None:
        """Take a family of `fewbits.models.location_scale`; numbers of lesser scales stand for the least one.

        Raises:
            InvalidArgument: there is no such family, or the least scale is none of those that numbers stand for.
        """
        if not LEAST_SCALE <= least_scale <= _GREATEST_SCALE:
            raise InvalidArgument(f"the least scale is from {LEAST_SCALE} to {_GREATEST_SCALE:.0f}, not {least_scale}.")
        if family not in FAMILIES:
            raise InvalidArgument(f"a density is one of {', '.join(FAMILIES)}, not {family!r}.")
        self.family, self.least_scale = family, least_scale

    def interval_bits(self, lower: Tensor, upper: Tensor, index: Tensor) -> Tensor:
        """Return -log2 of the probability between two ends, (...) float each, of the scale's number (...)."""
        scale = scale_of(index).clamp(min=self.least_scale)
        return standard_bits(self.family, lower / scale, upper / scale)
