"""What decoded integers become: elements of an array in memory."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fewbits._core import Output


class DecodedArray(NamedTuple):
    """One array of a body: values (R, n) int64 and the rows' classes (R,) int64."""

    values: NDArray[np.int64]
    classes: NDArray[np.int64]


class Elements(Protocol):
    """Where one array's integers are written, and what they become there.

    Law: `write` and decoding into `native` leave the same bytes, or raise the same error.
    """

    def write(self, decoded: DecodedArray) -> None:
        """Write the elements of an array's integers.

        Raises:
            Corrupt: an integer is none of an element.
        """
        ...

    def native(self, output: "type[Output]") -> "Output":
        """Say the same to the compiled core, in terms of its class for outputs."""
        ...


class Integers:
    """The integers themselves, modulo 2^width: into any contiguous integer array of R * n elements."""

    def __init__(self, array: NDArray[np.integer]) -> None:
        """Write to this array."""
        self._array = array

    def write(self, decoded: DecodedArray) -> None:
        """Write the integers."""
        self._array.reshape(-1)[:] = decoded.values.ravel().astype(self._array.dtype)

    def native(self, output: "type[Output]") -> "Output":
        """Say the same to the compiled core, in terms of its class for outputs."""
        return output.integers(self._array)
