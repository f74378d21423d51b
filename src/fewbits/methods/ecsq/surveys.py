"""What a search for a budget knows of tensors: their magnitudes, and the grids that some of them lie on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fewbits.chunk import Loss
from fewbits.methods.blockwise import BlockRates
from fewbits.methods.ecsq.quantiser import LEAST_TRELLIS
from fewbits.quantize.rounding import BIT_WORTH, equal_slope_step
from fewbits.quantize.survey import MagnitudeSurvey

_TRELLIS_GAIN = 1.13  # a trellis has the rate of scalar quantisation with a step greater by this: 0.18 bit less
_MOST_SMALL = 256  # tensors of fewer elements than a trellis has, that are surveyed each for itself
_SIDE_BITS = 48  # a tensor's step, flags and model, about: what a survey adds to the entropy


class Outlay(NamedTuple):
    """What coding a tensor takes: bits, and in total what its errors are worth in bits as well."""

    total: float
    bits: float

    @classmethod
    def of(cls, losses: Sequence[Loss], slopes: Sequence[float]) -> "Outlay":
        """Sum up a tensor's parts, a bit being worth so much squared error in each."""
        bits = sum(loss.bits for loss in losses)
        return cls(bits + sum(loss.squared_error / slope for loss, slope in zip(losses, slopes, strict=True)), bits)

    def is_less(self, other: "Outlay", *, is_known: bool) -> bool:
        """Whether a tensor is better coded so, on its grid, than in another way.

        Where nobody knows what its errors cost, it must not take more bits either: the others, from which they would
        be taken, may matter more than their sizes say. At 3.5 bits a weight SmolLM2's table of words was left with 2.
        """
        return self.total < other.total and (is_known or self.bits <= other.bits)


@dataclass(frozen=True)
class EcsqSurvey:
    """Magnitudes of the tensors that can be coded lossily, and the bits of the others.

    merged: of many small tensors, in units of their steps at rate weight 1; a search asks for bits dozens of times.
    """

    magnitudes: tuple[tuple[MagnitudeSurvey, float | None], ...]  # with their sensitivities
    exact_bits: float
    rate_divisor: int
    trellis: bool = False
    merged: MagnitudeSurvey | None = None
    blocks: tuple["BlockSurvey", ...] = ()

    @classmethod
    def of(
        cls,
        magnitudes: Sequence[tuple[MagnitudeSurvey, float | None]],
        exact_bits: float,
        rate_divisor: int,
        trellis: bool,
    ) -> "EcsqSurvey":
        """Merge small tensors where there are many."""
        alone = [each for each in magnitudes if each[0].num_elements >= LEAST_TRELLIS]
        small = [each for each in magnitudes if each[0].num_elements < LEAST_TRELLIS]
        if len(small) <= _MOST_SMALL:
            return cls(tuple(magnitudes), exact_bits, rate_divisor, trellis)
        units = [
            equal_slope_step(survey.energy, survey.num_elements, 1.0, rate_divisor, sensitivity)
            for survey, sensitivity in small
        ]
        merged = MagnitudeSurvey.merged([survey for survey, _ in small], units)
        return cls(tuple(alone), exact_bits + _SIDE_BITS * len(small), rate_divisor, trellis, merged)

    def bits(self, rate_weight: float) -> float:
        """Expected bits of all tensors."""
        total = self.exact_bits
        if self.merged is not None:
            total += self.merged.bits(math.sqrt(rate_weight))
        for survey, sensitivity in self.magnitudes:
            count = survey.num_elements
            step = equal_slope_step(survey.energy, count, rate_weight, self.rate_divisor, sensitivity)
            gain = _TRELLIS_GAIN if self.trellis and count >= LEAST_TRELLIS else 1.0
            total += survey.bits(gain * step) + _SIDE_BITS
        return total + sum(each.bits(rate_weight) for each in self.blocks)


@dataclass(frozen=True)
class BlockSurvey:
    """What is known of a tensor that lies on a grid, and may be coded on it or as if it did not."""

    rates: tuple[BlockRates, ...]
    otherwise: EcsqSurvey
    num_elements: int
    energy: float
    sensitivity: float | None

    def bits(self, rate_weight: float) -> float:
        """Expected bits the cheaper way."""
        divisor = self.otherwise.rate_divisor
        step = equal_slope_step(self.energy, self.num_elements, rate_weight, divisor, self.sensitivity)
        slope = BIT_WORTH * step * step
        rates = [each.expected(slope) for each in self.rates]
        found = Outlay(sum(each.cost for each in rates) / slope, sum(each.bits for each in rates))
        bits = self.otherwise.bits(rate_weight)
        otherwise = Outlay(min(self.energy, self.num_elements * step * step / 12) / slope + bits, bits)
        return found.bits if found.is_less(otherwise, is_known=self.sensitivity is not None) else bits
