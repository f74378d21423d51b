"""Quantised values as they are decoded: from levels to the elements of a float dtype."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.elements import DecodedArray, Integers
from fewbits.errors import Corrupt
from fewbits.quantize.rounding import Centroids, reconstruct
from fewbits.quantize.trellis import Corrections, write_trellis_values
from fewbits.quantize.weights import Weights, rounded_bits

if TYPE_CHECKING:
    from fewbits._core import Output


def write_values(weights: Weights, name: str, values: NDArray[np.float32]) -> None:
    """Write values (N,) to the weights of a tensor, rounded to its dtype.

    Raises:
        Corrupt: one is not finite.
    """
    weights.bits[:] = rounded_bits(values, weights.dtype)
    if not np.isfinite(weights.values()).all():
        raise _not_finite(name)


def _not_finite(name: str) -> Corrupt:
    return Corrupt(f"tensor {name!r} decodes to values that are not finite.")


class QuantisedElements:
    """Level × step, rounded to a float dtype: the decoder's side of docs/payload/ecsq.md."""

    def __init__(self, weights: Weights, name: str, step: float, centroids: Centroids | None) -> None:
        """Write to the bits of these weights; errors name the tensor."""
        self._weights, self._name = weights, name
        self._step, self._centroids = step, centroids

    def write(self, decoded: DecodedArray) -> None:
        """Write the reconstructions of levels.

        Raises:
            Corrupt: one is not finite.
        """
        values = reconstruct(decoded.values.ravel(), self._step, self._centroids)
        write_values(self._weights, self._name, values)

    def native(self, output: "type[Output]") -> "Output":
        """Say the same to the compiled core."""
        weights = self._weights
        return output.floats(weights.bits, repr(self._name), weights.code, self._step, self._centroids)


class TrellisElements(Integers):
    """Levels of a trellis, which become values once all of them are there: the paths lead through the whole array."""

    def __init__(self, weights: Weights, name: str, step: float, corrections: Corrections) -> None:
        """Write to the bits of these weights; errors name the tensor."""
        self._weights, self._name = weights, name
        self._step, self._corrections = step, corrections
        in_place = weights.dtype == "float32"  # a level is as wide as its value: no further memory is taken
        self._levels = weights.bits.view(np.int32) if in_place else np.empty(weights.bits.size, np.int32)
        super().__init__(self._levels)

    def finish(self) -> None:
        """Write the reconstructions, when all levels are decoded.

        Raises:
            Corrupt: one is not finite.
        """
        if not write_trellis_values(self._weights, self._levels, self._step, self._corrections):
            raise _not_finite(self._name)
