"""Quantised values as they are decoded: from levels to the elements of a float dtype."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.elements import DecodedArray
from fewbits.errors import Corrupt
from fewbits.quantize import trellis
from fewbits.quantize.rounding import Centroids, reconstruct
from fewbits.quantize.trellis import Corrections, shifts_of
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
        raise Corrupt(f"tensor {name!r} decodes to values that are not finite.")


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


class TrellisElements:
    """Levels of a trellis, whose paths lead through the whole array, as values of a float dtype."""

    def __init__(self, weights: Weights, name: str, step: float, corrections: Corrections) -> None:
        """Write to the bits of these weights; errors name the tensor."""
        self._weights, self._name = weights, name
        self._step, self._corrections = step, corrections

    def write(self, decoded: DecodedArray) -> None:
        """Write the reconstructions of levels.

        Raises:
            Corrupt: one is not finite.
        """
        levels = decoded.values.ravel().astype(np.int32)
        write_values(self._weights, self._name, trellis.reconstruct(levels, self._step, self._corrections))

    def native(self, output: "type[Output]") -> "Output":
        """Say the same to the compiled core."""
        weights = self._weights
        shifts = shifts_of(self._corrections).tolist()
        return output.trellis(weights.bits, repr(self._name), weights.code, self._step, shifts)
