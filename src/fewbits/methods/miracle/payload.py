"""A part of the method `miracle` as bytes, and back: priors, and a number for each block (docs/payload/miracle.md)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.channel.distributions import Gaussian
from fewbits.channel.index_code import decode_indices, encode_indices
from fewbits.channel.mrc import CANDIDATES_KINDS, Mrc
from fewbits.channel.simulator import Message
from fewbits.coder.bits import pack_raw, raw_size, unpack_raw
from fewbits.coder.leb128 import read_sint, read_uint, write_sint, write_uint
from fewbits.errors import Corrupt
from fewbits.methods.miracle.layout import Blocks, Piece, checked_piece, placed, sharing_of
from fewbits.quantize.parameter_decoders import MOST_CODE, step_of

VERSION = 1
MOST_BITS = 30  # WIRE: of a number of fixed length
MOST_WIDTH = 4096  # WIRE: values of a block: a lattice has no more dimensions, and no value is nearly for nothing
_KINDS, _CODED = 3, 4  # WIRE: bits of the first byte: kind of candidates; whether numbers are entropy coded
# WIRE: the greatest magnitude of an element, by dtype.
LIMITS = dict.fromkeys(("float32", "bfloat16", "float64"), np.float32(3e38)) | {"float16": np.float32(65504)}
_LIVE, _SHARED, _ZERO = 1, 2, 4  # WIRE: bits of a tensor's first byte
_VALUES_AT_ONCE = 1 << 18  # of blocks that are made together


class Part(NamedTuple):
    """What a part holds.

    pieces: of its tensors; priors: code of each prior's standard deviation, None for a tensor of zeros.
    kind: of candidates; bits: log2 of their number; coded: whether numbers are entropy coded.
    indices: (B,) int64.
    """

    pieces: tuple[Piece, ...]
    priors: tuple[int | None, ...]
    kind: str
    bits: int
    coded: bool
    indices: NDArray[np.int64]

    @property
    def num_values(self) -> int:
        """Values of all tensors that have any."""
        return sum(piece.num_values for piece, prior in zip(self.pieces, self.priors, strict=True) if prior is not None)


def encode_part(part: Part) -> bytes:
    """Return the payload of a part."""
    head = [bytes([CANDIDATES_KINDS.index(part.kind) | (_CODED if part.coded else 0), part.bits])]
    head.append(write_uint(len(part.indices)))
    for piece, prior in zip(part.pieces, part.priors, strict=True):
        if prior is None:
            head.append(bytes([_ZERO]))
            continue
        flags = (_LIVE if piece.live != piece.shape else 0) | (_SHARED if piece.share > 1 else 0)
        head.append(bytes([flags]))
        head += [write_uint(size) for size in piece.live if flags & _LIVE]
        if flags & _SHARED:
            head.append(write_uint(piece.share))
        head.append(write_sint(prior))
    if part.coded:
        return b"".join(head) + encode_indices(part.indices, 1 << part.bits)
    return b"".join(head) + pack_raw(part.indices.astype(np.uint64), part.bits)


def description_size(piece: Piece) -> int:
    """Return the bytes that describe a tensor, where its prior's code takes two; one takes less near 1."""
    live = sum(len(write_uint(size)) for size in piece.live) if piece.live != piece.shape else 0
    return 3 + live + (len(write_uint(piece.share)) if piece.share > 1 else 0)


def decode_part(payload: bytes, shapes: Sequence[tuple[int, ...]]) -> Part:
    """Read the payload of a part whose tensors have these shapes.

    Raises:
        Corrupt: the payload breaks a rule of its page.
    """
    if len(payload) < 2:
        raise Corrupt("a miracle payload is too short.")
    first, bits = payload[0], payload[1]
    # Entropy coded numbers are those of ordered random coding, whose candidates are each block's own.
    known = first <= _CODED and first & _KINDS < len(CANDIDATES_KINDS)
    if not known or not 1 <= bits <= MOST_BITS:
        raise Corrupt("a miracle payload starts with what is not known.")
    num_blocks, position = read_uint(payload, 2)
    pieces, priors = list[Piece](), list[int | None]()
    for shape in shapes:
        piece, prior, position = _read_tensor(payload, position, shape)
        pieces.append(piece)
        priors.append(prior)
    none = np.zeros(0, np.int64)
    part = Part(tuple(pieces), tuple(priors), CANDIDATES_KINDS[first & _KINDS], bits, bool(first & _CODED), none)
    if num_blocks > part.num_values or (part.num_values > 0) != (num_blocks > 0):
        raise Corrupt(f"{part.num_values} values cannot lie in {num_blocks} blocks.")
    if part.num_values > num_blocks * MOST_WIDTH:
        raise Corrupt(f"{num_blocks} blocks are too few for {part.num_values} values.")
    rest = payload[position:]
    if part.coded:
        return part._replace(indices=decode_indices(rest, num_blocks, 1 << bits))
    if len(rest) != raw_size(num_blocks, bits):
        raise Corrupt("a miracle payload has not as many bits as its blocks.")
    return part._replace(indices=unpack_raw(memoryview(rest), num_blocks, bits).astype(np.int64))


def _read_tensor(payload: bytes, position: int, shape: tuple[int, ...]) -> tuple[Piece, int | None, int]:
    if position >= len(payload):
        raise Corrupt("a miracle payload ends before its descriptions.")
    flags, position = payload[position], position + 1
    if flags == _ZERO:
        return Piece(shape, shape, 1), None, position
    if flags & ~(_LIVE | _SHARED):
        raise Corrupt("a description in a miracle payload starts with what is not known.")
    live, share = list(shape), 1
    if flags & _LIVE:
        for axis in range(len(shape)):
            live[axis], position = read_uint(payload, position)
    if flags & _SHARED:
        share, position = read_uint(payload, position)
    prior, position = read_sint(payload, position)
    if abs(prior) > MOST_CODE:
        raise Corrupt(f"a prior's code is {prior}.")
    return checked_piece(shape, live, share), prior, position


def block_values(part: Part, width: int, seed: int, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return what some blocks (A,) hold, in units of the prior, (A, width) float32.

    Raises:
        Corrupt: as for `Mrc.decode`.
    """
    simulator = Mrc(1 << part.bits, candidates=part.kind)
    proposal = Gaussian(np.zeros(width), 1.0)
    found = simulator.decode(Message.of(part.indices[chosen]), proposal, seed=seed, numbers=chosen)
    return found.astype(np.float32)


def tensors_of(part: Part, dtypes: Sequence[str], seed: int) -> list[NDArray[np.float32]]:
    """Return the tensors of a part, float32, each of its piece's shape, in the range of its dtype.

    Raises:
        Corrupt: as for `Mrc.decode`.
    """
    values = _values_of(part, seed)
    tensors, start = list[NDArray[np.float32]](), 0
    for index, (piece, prior) in enumerate(zip(part.pieces, part.priors, strict=True)):
        if prior is None:
            tensors.append(np.zeros(piece.shape, np.float32))
            continue
        # WIRE NUMERICS: one float32 multiplication; what is far out in the prior's tail is cut to the dtype's range.
        with np.errstate(over="ignore"):
            own = values[start : start + piece.num_values] * step_of(prior)
        own = np.clip(own, -LIMITS[dtypes[index]], LIMITS[dtypes[index]])
        start += piece.num_values
        sharing = sharing_of(piece, seed, index)
        elements = own if sharing is None else own[sharing.value] * sharing.sign
        tensors.append(placed(elements, piece))
    return tensors


def _values_of(part: Part, seed: int) -> NDArray[np.float32]:
    """The values of all tensors, in units of the prior, (N,); blocks are made some at a time, which bounds memory."""
    blocks = Blocks.of(part.num_values, len(part.indices), seed)
    values = np.zeros(part.num_values, np.float32)
    at_once = max(1, _VALUES_AT_ONCE // max(1, blocks.width))
    for start in range(0, blocks.num_blocks, at_once):
        bounds = blocks.bounds[start : start + at_once + 1]
        found = block_values(part, blocks.width, seed, np.arange(start, start + len(bounds) - 1))
        inside = np.arange(blocks.width) < np.diff(bounds)[:, None]
        values[blocks.order[bounds[0] : bounds[-1]]] = found[inside]
    return values
