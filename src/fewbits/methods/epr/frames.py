"""How a tensor's levels lie in an epr payload: an array (rows, slices, inner), and what of it is live.

Rows are output units, slices input channels, inner what one of these has of the other. What lies beyond the live rows
and slices is zero and not coded. Shared by writer and reader: docs/payload/epr.md.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.adaptive import Geometry
from fewbits.errors import Corrupt
from fewbits.quantize.parameter_decoders import Grid, Kernels, ParameterDecoder, Scalar

Shape3 = tuple[int, int, int]


class LevelTensor(NamedTuple):
    """One tensor, or whole rows of one, to be coded: its shape, its levels in the decoder's shape, its decoder."""

    shape: tuple[int, ...]
    levels: NDArray[np.int64]  # as many elements as `level_shape`
    decoder: ParameterDecoder


def level_shape(shape: tuple[int, ...], decoder: ParameterDecoder) -> Shape3:
    """Return rows, slices and inner of the levels of a tensor; a vector is one row of slices.

    Raises:
        Corrupt: the decoder is not for such a tensor.
    """
    if isinstance(decoder, Scalar):
        if len(shape) < 2:
            return 1, math.prod(shape), 1
        return shape[0], shape[1], math.prod(shape[2:])
    if isinstance(decoder, Kernels):
        if len(shape) != 4 or shape[2:] != decoder.size:
            raise Corrupt("a decoder of kernels belongs to a tensor without such kernels.")
        return shape[0], shape[1], math.prod(decoder.size)
    if len(shape) != 2 or shape[1] != math.prod(decoder.image):
        raise Corrupt("a decoder of images belongs to a tensor without such rows.")
    return shape[0], 1, math.prod(decoder.size)


class Frame(NamedTuple):
    """How a tensor's levels lie in the payload: its full array, what of it is live, and as what it is coded."""

    full: Shape3
    rows: int
    slices: int
    height: int
    width: int
    kernel_rows: bool  # adaptively: each kernel is a row of its own

    @property
    def live(self) -> Shape3:
        return self.rows, self.slices, self.full[2]

    @property
    def geometry(self) -> Geometry:
        if self.kernel_rows:
            return Geometry(self.rows * self.slices, 1, self.height, self.width)
        return Geometry(self.rows, self.slices, self.height, self.width)


class Extents:
    """Live rows and slices as the tensors before suggest them; only what differs is written."""

    def __init__(self) -> None:
        self._before: list[tuple[int, int]] = []  # units of earlier tensors: all of them, and the live ones

    def rows(self, full: Shape3, num_dimensions: int) -> int:
        """What a tensor's rows are unless the payload says otherwise: all."""
        return full[0]

    def slices(self, full: Shape3, num_dimensions: int) -> int:
        """A vector's are the units of the tensor before, a matrix's those of the last one with as many; else all."""
        before = self._before[-1:] if num_dimensions < 2 else self._before[::-1]
        return next((live for units, live in before if units == full[1]), full[1])

    def note(self, full: Shape3, frame: Frame, num_dimensions: int) -> None:
        """Remember a tensor's units: the rows of a matrix, the slices of a vector."""
        self._before.append((full[1], frame.slices) if num_dimensions < 2 else (full[0], frame.rows))


def framed(shape: tuple[int, ...], decoder: ParameterDecoder, image: tuple[int, int] | None) -> Frame:
    """The frame of a tensor, all of it live; with an image, the columns of a matrix are slices of such images."""
    rows, slices, inner = level_shape(shape, decoder)
    if image is not None:
        size = math.prod(image)
        return Frame((rows, slices // size, size), rows, slices // size, *image, False)
    if isinstance(decoder, Grid):
        height, width = decoder.size
    elif isinstance(decoder, Kernels) or len(shape) < 3:
        height, width = 1, inner
    else:
        height, width = math.prod(shape[2:-1]), shape[-1]
    return Frame((rows, slices, inner), rows, slices, height, width, False)


def shared_decoder(shape: tuple[int, ...], before: Sequence[ParameterDecoder]) -> ParameterDecoder | None:
    """Return the decoder that a tensor may share: the last one before it that is scalar or of its kernels."""
    for decoder in reversed(before):
        if isinstance(decoder, Scalar) or (isinstance(decoder, Kernels) and shape[2:] == decoder.size):
            return decoder
    return None
