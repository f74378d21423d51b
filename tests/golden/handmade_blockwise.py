"""Payloads of `blockwise` that its encoder does not choose: all kinds of models, numbers at their ends, short ones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import encode_body
from fewbits.coder.integers import CodedArray, IntegerModel, ModelSet
from fewbits.coder.table import Table
from fewbits.methods.blockwise.payload import PAYLOAD_VERSION, Blocks
from fewbits.models.descriptions import write_model
from fewbits.models.shipped import shipped_table
from tests.golden.handmade import SEED

FITTED, RAW, ESCAPING, SHIFTED, FAR = range(5)  # kinds of models
LEAST, MOST = -(1 << 31), (1 << 31) - 1


class Described(NamedTuple):
    """A tensor (of which a span, if any, is in the part), its blocks, and kinds of models of their arrays.

    heads: in place of those that the encoder would write, of scales and offsets.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Blocks
    kinds: tuple[int, ...]
    heads: tuple[int, ...] = ()
    span: tuple[int, int] | None = None

    def described(self) -> tuple[bytes, list[CodedArray]]:
        """What stands before the body, and what is in it."""
        written = self.blocks.written()
        description, arrays = written.head, list[CodedArray]()
        sides = [side for side in (self.blocks.scales, self.blocks.offsets) if side is not None]
        for place, (array, kind) in enumerate(zip(written.arrays, self.kinds, strict=True)):
            head, values = array.head, array.values.ravel().astype(np.int64)
            if place and self.heads:
                head, values = bytes([self.heads[place - 1]]), told(sides[place - 1], self.heads[place - 1])
            model = array.fit.models.models[0] if kind == FITTED else model_of(values, kind)
            description += head + write_model(model)
            arrays.append(CodedArray(values[None] + (1 << 40 if kind == FAR else 0), ModelSet((model,))))
        return description, arrays


def told(floats: NDArray[np.generic], head: int) -> NDArray[np.int64]:
    """The integers of scales or offsets (M,) float32 with a head: its top bit, and how many bits are dropped."""
    words = floats.view(np.uint32).astype(np.int64)
    if head < 128:
        return words >> head
    return (words & MOST) >> head - 128 << 1 | words >> 31


def model_of(values: NDArray[np.int64], kind: int) -> IntegerModel:
    """One that can code the values: raw, with a table that most escape, shifted, or of integers above 32 bits."""
    low, width = int(values.min()), int(np.ptp(values)).bit_length()
    return {
        RAW: IntegerModel(None, width, low),
        ESCAPING: IntegerModel(Table(0, (7000,), 1192), 0, low),
        SHIFTED: IntegerModel(shipped_table(70), max(1, width - 4), low),
        FAR: IntegerModel(None, width, low + (1 << 40)),
    }[kind]


def blockwise_chunk(described: list[Described], *, wide: bool = False) -> Chunk:
    """One part."""
    found = [each.described() for each in described]
    body = encode_body([array for _, arrays in found for array in arrays], wide=wide)
    payload = b"".join([*(description for description, _ in found), body])
    specs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in described)
    return Chunk("blockwise", PAYLOAD_VERSION, {}, SEED, specs, payload, described[0].span)


def whole(
    levels: ArrayLike, scales: ArrayLike, offsets: ArrayLike | None = None, *, unit: int = 0, shift: int = 0
) -> Blocks:
    """Blocks whose scales are whole numbers; shift is the page's h."""
    rest = None if offsets is None else np.array(offsets, np.int32)
    shifts = max(shift, 0), max(-shift, 0)
    return Blocks(np.array(levels, np.int32), np.array(scales, np.int32), rest, unit, *shifts)


def floats(levels: ArrayLike, scales: ArrayLike, offsets: ArrayLike | None = None) -> Blocks:
    """Blocks whose scales are float32."""
    rest = None if offsets is None else np.array(offsets, np.float32)
    return Blocks(np.array(levels, np.int32), np.array(scales, np.float32), rest)


def blockwise_chunks() -> list[Chunk]:
    """Every kind of blocks, units and shifts at their ends, values of all sizes, tiles, both kinds of bodies."""
    rng = np.random.default_rng(SEED + 8)

    def levels(count: int, length: int, most: int = 7) -> NDArray[np.int64]:
        return rng.integers(-most, most + 1, (count, length))

    tiny = np.float32(2.0**-149)
    ends = [
        Described("least unit", "float32", (2, 6), whole(levels(4, 3), [1, 2, 3, 0], unit=-126), (RAW, FITTED)),
        Described(
            "greatest shift",
            "bfloat16",
            (2, 4),
            whole(levels(2, 4), [9, -11], [LEAST + (1 << 26), 12345], unit=-40, shift=16),
            (ESCAPING, FAR, RAW),
        ),
        Described(
            "least shift",
            "float16",
            (2, 3, 2),
            whole(levels(6, 2), [3, -5, 17, 2, 1, 1], [0, 1, -2, 1, 0, 0], unit=-29, shift=-16),
            (FAR, SHIFTED, ESCAPING),
        ),
        Described("most units", "float64", (3, 1), whole([[1], [1], [-1]], [MOST, MOST - 70, 5]), (RAW, RAW)),
        Described("greatest unit", "float32", (), whole([[1]], [-1], unit=127), (FITTED, FITTED)),
        Described(
            "below 0",
            "float32",
            (3, 8),
            floats(levels(3, 8), [-0.75, -3 * tiny, 1.1]),
            (SHIFTED, RAW),
        ),
        Described(
            "vector",
            "float64",
            (12,),
            floats(levels(2, 6, 1), [0.5, 0.375], [1.1, -7.3]),
            (ESCAPING, FAR, SHIFTED),
        ),
        Described(
            "elements",
            "bfloat16",
            (1, 4),
            floats([[1], [1], [-1], [MOST]], [-1.5, -(2.0**-130), -2.0, -1.0], [0.0, 0.0, 2.0**-132, -1.5]),
            (FITTED, FAR, RAW),
            (16, 128 + 20),
        ),
        Described(
            "powers", "float16", (1, 4), floats(np.zeros((2, 2)), [0.0, 2.0], [0.0, -2.0]), (RAW,) * 3, (30, 158)
        ),
    ]
    tiles = [
        (whole(levels(4, 3), [4, 1, 3, 1], unit=-3), (FITTED, RAW), (0, 12)),
        (floats(levels(1, 5, 2), [0.1], [0.3]), (FITTED, RAW, RAW), (12, 17)),
        (whole(levels(7, 1), [5, 1, 4, 1, 5, 9, 2], [3] * 7, unit=-7, shift=2), (RAW, RAW, RAW), (17, 24)),
    ]
    peaked = np.rint(1.5 * rng.standard_normal((32, 10)))
    lanes = whole(peaked, 1 + rng.integers(0, 9, 32), rng.integers(-9, 9, 32), unit=-9)
    return [
        blockwise_chunk(ends),
        *(
            blockwise_chunk([Described("tiled", "float32", (4, 6), blocks, kinds, span=span)])
            for blocks, kinds, span in tiles
        ),
        blockwise_chunk([Described("lanes", "float32", (16, 20), lanes, (FITTED,) * 3)], wide=True),
    ]
