"""How a network's weights lie in blocks: which elements are live, which share a value, and which block a value is in.

Shared by writer and reader: docs/payload/miracle.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.errors import Corrupt
from fewbits.random import SIGNS, Stream, permutation

MOST_SHARED = 1 << 16  # WIRE: elements that share a value


class Piece(NamedTuple):
    """One tensor, or what a tile has of it.

    live: how far along each axis elements may be other than 0; share: elements to a value.
    """

    shape: tuple[int, ...]
    live: tuple[int, ...]
    share: int

    @property
    def num_live(self) -> int:
        """Live elements."""
        return math.prod(self.live)

    @property
    def num_values(self) -> int:
        """Values that they have."""
        return -(-self.num_live // self.share)


class Sharing(NamedTuple):
    """Which value each live element has, (L,) int64, and its sign, (L,) float32."""

    value: NDArray[np.int64]
    sign: NDArray[np.float32]


def sharing_of(piece: Piece, seed: int, index: int) -> Sharing | None:
    """Return how a tensor's live elements share values; None where each has its own.

    WIRE: of the permutation 1 + index of the live elements, consecutive ones share; signs by the highest bits of a
    stream's words.

    Args:
        index: of the tensor in its part.
    """
    if piece.share == 1:
        return None
    count = piece.num_live
    value = np.empty(count, np.int64)
    value[permutation(seed, 1 + index, count)] = np.arange(count) // piece.share
    words = Stream(seed, SIGNS, index).sequence(0, count)
    return Sharing(value, np.where(words >> np.uint32(31), np.float32(-1), np.float32(1)).astype(np.float32))


def placed(elements: NDArray[np.float32], piece: Piece) -> NDArray[np.float32]:
    """Return a tensor, of the piece's shape, with these live elements (L,), and zeros."""
    whole = np.zeros(piece.shape, np.float32)
    whole[tuple(slice(size) for size in piece.live)] = elements.reshape(piece.live)
    return whole


@dataclass(frozen=True)
class Blocks:
    """A part's values in blocks of one size, or one less.

    order: (N,) int64, the values of all tensors in the order of the blocks; bounds: (B + 1,) int64, where blocks start.
    """

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, num_values: int, num_blocks: int, seed: int) -> "Blocks":
        """Deal values out. WIRE: block b has places b N div B up to (b + 1) N div B of permutation 0."""
        order = permutation(seed, 0, num_values)
        return cls(order, np.arange(num_blocks + 1) * num_values // max(1, num_blocks))

    @property
    def num_blocks(self) -> int:
        """How many there are."""
        return len(self.bounds) - 1

    @property
    def width(self) -> int:
        """Values of the largest block."""
        return int(np.diff(self.bounds).max(initial=0))

    def places(self) -> NDArray[np.int64]:
        """Return which value is where in the blocks, (B, width) int64, -1 where a block ends early."""
        at = self.bounds[:-1, None] + np.arange(self.width)
        inside = at < self.bounds[1:, None]
        return np.where(inside, self.order[np.where(inside, at, 0)], -1)


def checked_piece(shape: tuple[int, ...], live: Sequence[int], share: int) -> Piece:
    """Return a piece by numbers of a file.

    Raises:
        Corrupt: more is live than there is, or a value is shared by none or by too many.
    """
    if len(live) != len(shape) or any(not 1 <= a <= b for a, b in zip(live, shape, strict=True)):
        raise Corrupt("more is live than there is, or nothing.")
    if not 1 <= share <= MOST_SHARED:
        raise Corrupt(f"a value is shared by {share} elements.")
    return Piece(shape, tuple(live), share)
