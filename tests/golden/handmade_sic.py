"""Payloads of `sic` that its encoder does not choose: models of all kinds, codes at their ends, values of all sizes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.body import encode_body
from fewbits.coder.integers import CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import write_uint
from fewbits.coder.table import Table
from fewbits.methods.sic.payload import PAYLOAD_VERSION, Matrix
from fewbits.models.shipped import shipped_table
from fewbits.plan import tile_shape
from fewbits.quantize.trellis import Corrections
from tests.golden.handmade import ESCAPING_TABLE, NARROW_TABLE, SEED, WIDEST_TABLE, integers_of

CONSTANT = IntegerModel(None)
LEVELS = (
    IntegerModel(shipped_table(12)),
    IntegerModel(NARROW_TABLE),
    CONSTANT,
    IntegerModel(shipped_table(96)),
    IntegerModel(None, 3, 5 - (1 << 40)),  # of which 32 bits are a level: 5 … 12
    IntegerModel(ESCAPING_TABLE, 1, -1),
    IntegerModel(None, 0, -3),
    IntegerModel(WIDEST_TABLE, 2, 7),
)


class Described(NamedTuple):
    """A tensor (of which a span, if any, is in the part), and what its payload says of it.

    classes: scale and model codes; columns: the least and the greatest of the columns' model codes; steps: of their
    step codes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    paths: int
    classes: tuple[tuple[int, int], ...]
    columns: tuple[int, int]
    steps: tuple[int, int]
    corrections: tuple[Corrections, ...] = ()
    models: tuple[IntegerModel, ...] = LEVELS
    span: tuple[int, int] | None = None

    def matrix(self, rng: np.random.Generator) -> Matrix:
        """One with random codes and classes, the ends of their ranges and every class among them."""
        rows, *rest = tile_shape(TensorSpec(self.name, self.dtype, self.shape), self.span)
        columns = int(np.prod(rest))
        codes, steps = (
            np.concatenate([ends, rng.integers(ends[0], ends[1] + 1, columns)])[:columns].astype(np.int32)
            for ends in (self.columns, self.steps)
        )
        row_classes = np.arange(rows) % len(self.classes)
        classes = np.array(self.classes, np.int32)
        corrections = np.array(self.corrections, np.int8).reshape(-1, 4)
        return Matrix(self.paths, classes, row_classes, rng.permutation(steps), codes, corrections, self.models)


def sic_chunk(described: list[Described], *, wide: bool = False) -> Chunk:
    """One part; its side arrays have models of all kinds, too."""
    rng = np.random.default_rng([SEED, len(described), len(described[0].name)])
    descriptions: list[bytes] = []
    side: list[CodedArray] = []
    main: list[CodedArray] = []
    for each in described:
        matrix = each.matrix(rng)
        own = [_side_array(values, len(side) + k) for k, values in enumerate(_side_values(matrix))]
        descriptions.append(matrix.description(own))
        side += own
        for model, count in zip(matrix.models, matrix.values.counts.tolist(), strict=True):
            main.append(CodedArray(integers_of(model, count, rng)[None], ModelSet((model,))))
    body = encode_body(side, wide=False)
    payload = b"".join([*descriptions, write_uint(len(body)), body, encode_body(main, wide=wide)])
    specs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in described)
    return Chunk("sic", PAYLOAD_VERSION, {}, SEED, specs, payload, described[0].span)


def _side_values(matrix: Matrix) -> list[NDArray[np.int64]]:
    values = [matrix.step_codes.astype(np.int64), matrix.codes.astype(np.int64)]
    return [*values, matrix.row_classes] if len(matrix.classes) > 1 else values


def _side_array(values: NDArray[np.int64], number: int) -> CodedArray:
    """An array with some model that can code it: raw, with a table, or with one that escapes."""
    low, spread = int(values.min()), int(values.max()) - int(values.min())
    models = (
        IntegerModel(None, spread.bit_length(), low),
        IntegerModel(Table(0, (7000,), 1192), 0, low),
        IntegerModel(shipped_table(70), max(0, spread.bit_length() - 4), low),
    )
    return CodedArray(values[None], ModelSet((models[number % 3],)))


MIXED = ((-3, -2), (0, 0), (5, 1), (-8, 4))
FITTED = ((-64, 0, 0, 0), (127, -128, 64, -64), (0, 0, 0, 0), (-64, -5, 9, 127), (-128, -128, -128, -128))
ENDS = ((1000, 65_536), (-1000, -65_536))
TINY = ((-60, 0), (0, 3))
FEW = (IntegerModel(shipped_table(3)),)


def sic_chunks() -> list[Chunk]:
    """Every number of paths and none, both kinds of bodies, codes at their ends, subnormal values, tiles."""
    paths = [
        Described(f"{paths} paths", "float32", (37 + paths, 9), paths, MIXED, (-3, 9), (-9, 4), FITTED)
        for paths in (0, 1, 2, 4, 8, 16, 32)
    ]
    ends = [
        Described("ends", "float32", (8, 5), 2, ENDS, (-65_536, 65_536), (-150, 0), FITTED[:1], LEVELS[:4]),
        Described("greatest step", "float64", (6, 4), 1, ((-1000, 1), (-999, 0)), (-1, 1), (980, 1000), (), LEVELS[:2]),
        Described("one element", "float32", (1, 1), 32, ((0, 0),), (2, 2), (0, 0), FITTED, LEVELS[:5]),
        Described("one model", "bfloat16", (12, 3), 4, MIXED, (-9, 9), (-5, 5), FITTED[1:2], FEW),
        Described("all zeros", "float16", (5, 2, 3), 0, ((0, 0),), (0, 0), (0, 0), (), (CONSTANT,)),
    ]
    tiny = [
        Described(f"tiny {dtype}", dtype, (9, 2, 4), paths, TINY, (-1, 4), (least, least + 40), FITTED, LEVELS[:7])
        for dtype, paths, least in (
            ("float32", 2, -1000),
            ("float16", 8, -190),
            ("bfloat16", 0, -1000),
            ("float64", 1, -1000),
        )
    ]
    large = Described("lanes", "bfloat16", (300, 5, 3), 16, MIXED, (-2, 8), (-60, -40), FITTED, LEVELS)
    more = large._replace(name="lanes beside", dtype="float32", shape=(64, 16), paths=0, classes=((3, 0),))
    tiles = [
        Described("tiled", "float32", (20, 3, 4), paths, classes, (-2, 9), (-16, -8), FITTED, span=span)
        for paths, classes, span in ((8, MIXED, (0, 84)), (0, ((0, 1),), (84, 96)), (1, MIXED[:2], (96, 240)))
    ]
    return [
        sic_chunk(paths),
        sic_chunk(ends),
        sic_chunk(tiny),
        sic_chunk([large, more], wide=True),
        *(sic_chunk([tile]) for tile in tiles),
    ]
