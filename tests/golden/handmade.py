"""Payloads with chosen integer models: what an encoder may write, though this one seldom or never does."""

import itertools
import math
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.channel.index_code import encode_indices
from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.adaptive import Geometry, encode_adaptive
from fewbits.coder.bits import pack_raw
from fewbits.coder.body import encode_body
from fewbits.coder.integers import CodedArray, IntegerModel, ModelSet
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.coder.table import Table
from fewbits.methods.qswd.payload import coded as coded_factors
from fewbits.methods.qswd.payload import matrix_shape
from fewbits.models.descriptions import write_models
from fewbits.models.fit import best_fit
from fewbits.models.shipped import shipped_table
from fewbits.quantize.factors import Factors
from fewbits.quantize.tiling import Tiling
from fewbits.registry import method_class

SEED = 20_260_101
NARROW_TABLE = Table(-1, (1, 8190, 1), 0)
ESCAPING_TABLE = Table(2, (4000, 4000), 192)
WIDEST_TABLE = Table(-31, (130,) * 62 + (131,), 1)  # all 63 values and an escape
LOPSIDED_TABLE = Table(-70, (1,) * 20 + (8171,), 1)
TABLES = b"\0"  # the coder of an epr payload
SCALAR, DFT, MATRIX, GRID, SHARED = range(5)  # its kinds of decoders
ROWS, SLICES, IMAGE, KERNEL_ROWS = 8, 16, 32, 64  # and what follows them


def integers_of(model: IntegerModel, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Integers (count,) that the model can code: every value of its table, and escapes near and far if it has any."""
    low = rng.integers(0, 1 << 63, count, dtype=np.uint64) & np.uint64((1 << model.shift) - 1)
    if model.table is None:
        return low.view(np.int64) + np.int64(model.centre)
    table = model.table
    frequencies = np.array(table.frequencies, np.float64)
    high = rng.choice(np.arange(table.low, table.last + 1), count, p=frequencies / frequencies.sum())
    inside = min(count, table.num_values)
    high[:inside] = np.arange(table.low, table.low + inside)
    if table.escape and count > 80:
        reach = 40 if model.shift < 20 else 3
        distance = 2 ** rng.integers(0, reach, 12) + np.arange(12)
        high[count - 12 :] = np.where(np.arange(12) % 2, table.low - distance, table.last + distance)
    return (high << np.int64(model.shift)) + low.view(np.int64) + np.int64(model.centre)


def single_models() -> list[IntegerModel]:
    """One model of every kind: each shipped family at several scales, histograms, shifts, centres, no table."""
    shipped = [family * 64 + scale for family in range(3) for scale in (0, 9, 24, 32, 40, 55, 63)]
    tables = [NARROW_TABLE, ESCAPING_TABLE, WIDEST_TABLE, LOPSIDED_TABLE]
    return [
        *(IntegerModel(shipped_table(code)) for code in shipped),
        *(IntegerModel(table) for table in tables),
        IntegerModel(shipped_table(30), 3, 0),
        IntegerModel(shipped_table(100), 0, -5),
        IntegerModel(shipped_table(160), 7, 1000),
        IntegerModel(ESCAPING_TABLE, 1, -1),
        IntegerModel(WIDEST_TABLE, 12, 1 << 20),
        IntegerModel(None, 0, 0),
        IntegerModel(None, 0, -3),
        IntegerModel(None, 1, 2),
        IntegerModel(None, 13, -4096),
    ]


def class_sets() -> list[ModelSet]:
    """Model sets of several classes, with tables and without, their indices coded in every way."""
    first = (IntegerModel(shipped_table(20)), IntegerModel(None, 0, 7), IntegerModel(ESCAPING_TABLE, 2, 3))
    second = (IntegerModel(shipped_table(90)), IntegerModel(shipped_table(130)))
    third = tuple(IntegerModel(None, shift, -shift) for shift in range(5))
    return [
        ModelSet(first, IntegerModel(Table(0, (4000, 2000, 2192), 0))),
        ModelSet(second, IntegerModel(None, 1, 0)),
        ModelSet(second, IntegerModel(Table(0, (8000,), 192))),  # the second class is an escape
        ModelSet(third, IntegerModel(Table(0, (4096, 4096), 0), 1, 0)),
    ]


def arrays(classes: bool) -> list[CodedArray]:
    """One array for each of the models above; with `classes` for each of the sets."""
    rng = np.random.default_rng(SEED)
    if not classes:
        return [CodedArray(integers_of(model, 130, rng)[None], ModelSet((model,))) for model in single_models()]
    made: list[CodedArray] = []
    for models in class_sets():
        of_rows = rng.integers(0, min(4, len(models.models)), 37)
        rows = np.stack([integers_of(models.models[index], 41, rng) for index in of_rows])
        made.append(CodedArray(rows, models, of_rows))
    return made


def chunk_of(id: str, made: list[CodedArray], dtype: str, *, wide: bool, prefix: str) -> Chunk:
    """A part of the arrays in a row, each a tensor of its own, with other steps and centroids for each."""
    specs: list[TensorSpec] = []
    descriptions: list[bytes] = []
    for index, array in enumerate(made):
        shape = array.values.shape if array.classes is not None else (array.values.size,)
        specs.append(TensorSpec(f"{prefix}{index}", dtype, shape))
        head, models = struct.pack("<f", 0.37 * 2.0 ** (index % 7 - 9)), write_models(array.models)
        if id == "lossless":
            descriptions.append(bytes([index % 2]) + models)
        elif id == "ecsq":
            centroids = struct.pack("<B3b", 1, -128 + index, 127 - index, index - 9)
            descriptions.append(head + (bytes(1) if index % 2 else centroids) + models)
        else:
            kind = SHARED if index % 5 == 4 else SCALAR
            step = write_sint(16 * (index % 7 - 9) + index) if kind == SCALAR else b""
            descriptions.append(bytes([kind]) + step + models)
    payload = b"".join([TABLES if id == "epr" else b"", *descriptions, encode_body(made, wide=wide)])
    return Chunk(id, method_class(id).payload_version, {}, SEED, tuple(specs), payload)


def chunks_of(id: str) -> list[Chunk]:
    """Parts with every kind of model, in one lane and in thirty-two."""
    dtypes = {"lossless": ("int64", "uint64", "int32", "uint8"), "ecsq": ("float32", "float64", "bfloat16", "float32")}
    single, sets = arrays(classes=False), arrays(classes=True)
    names = dtypes.get(id, ("float32", "float64", "bfloat16", "float32"))
    chunks = [
        chunk_of(id, single, names[0], wide=False, prefix="one lane "),
        chunk_of(id, single, names[1], wide=True, prefix="lanes "),
        *(
            chunk_of(id, [array], names[2], wide=True, prefix=f"lanes alone {index} ")
            for index, array in enumerate(single[20:26])
        ),
    ]
    chunks.append(chunk_of(id, sets, names[3], wide=False, prefix="classes, one lane "))
    chunks.append(chunk_of(id, sets, names[0], wide=True, prefix="classes, lanes "))
    if id == "lossless":
        rng = np.random.default_rng(SEED + 1)
        far = [IntegerModel(None, 63, -(2**62)), IntegerModel(shipped_table(30), 40, -(2**63))]
        extreme = [CodedArray(integers_of(model, 50, rng)[None], ModelSet((model,))) for model in far]
        chunks.append(chunk_of(id, extreme, "int64", wide=False, prefix="extreme "))
    return chunks


def mask_chunks() -> list[Chunk]:
    """Sparse tensors of `lossless`: masks of every kind, all zeros and none among them, and what follows them."""
    rng = np.random.default_rng(SEED + 2)
    halves = ModelSet((IntegerModel(Table(0, (7000, 1192), 0)),))
    by_density = (IntegerModel(Table(0, (8000, 192), 0)), IntegerModel(None, 0, 0), IntegerModel(None, 1, 0))
    rows = ModelSet(by_density, IntegerModel(Table(0, (4000, 2000, 2192), 0)))
    of_rows = np.tile([0, 1, 2], 5)
    by_row = (rng.random((15, 40)) < np.array([0.1, 0.0, 0.5])[of_rows, None]).astype(np.int64)
    masks = {
        "rows": CodedArray(by_row, rows, of_rows),
        "one row": CodedArray((rng.random((15, 40)) < 0.3).astype(np.int64), halves),
        "all zero": CodedArray(np.zeros((3, 50), np.int64), ModelSet((IntegerModel(None, 0, 0),))),
        "all zero, with symbols": CodedArray(np.zeros((3, 50), np.int64), halves),
        "no zero": CodedArray(np.ones((3, 50), np.int64), ModelSet((IntegerModel(None, 0, 1),))),
        "empty": CodedArray(np.zeros((0, 0), np.int64), halves),
    }
    rests = [IntegerModel(ESCAPING_TABLE, 20, -(1 << 19)), IntegerModel(None, 13, 0), IntegerModel(shipped_table(40))]
    chunks: list[Chunk] = []
    for number, (transform, dtype) in enumerate(((4, "float32"), (5, "int64"), (4, "bfloat16"), (5, "float64"))):
        specs: list[TensorSpec] = []
        arrays: list[CodedArray] = []
        payload = b""
        for (name, mask), index in itertools.product(masks.items(), range(3)):
            model = IntegerModel(None, 15, index) if transform == 4 else rests[index]
            rest = integers_of(model, int(mask.values.sum()), rng) if mask.values.any() else np.zeros(0, np.int64)
            specs.append(TensorSpec(f"{dtype}, {name}, {index}", dtype, mask.values.shape))
            arrays += [mask, CodedArray(rest[None], ModelSet((model,)))]
            payload += bytes([transform]) + write_models(mask.models) + write_uint(rest.size)
            payload += write_models(ModelSet((model,))) + (bytes([index % 2]) if transform == 4 else b"")
        payload += encode_body(arrays, wide=number % 2 == 1)
        chunks.append(Chunk("lossless", 1, {}, SEED, tuple(specs), payload))
    return chunks


class Described(NamedTuple):
    """A tensor of an epr payload: its shape, its description without models, and the geometry of what is live of it."""

    shape: tuple[int, ...]
    first: int
    fields: bytes
    geometry: tuple[int, int, int, int]


def epr_descriptions() -> list[Described]:
    """Every kind of decoder, shared ones, live rows and slices said and not said, every geometry."""
    steps = [write_sint(code) for code in (-37, 5, -16, 0, -1)]
    even = b"".join(steps[index % 5] for index in range(6))  # a kernel of 2 × 4 has six frequencies
    odd = b"".join(steps)  # one of 3 × 3 has five
    matrix = np.array([[1, -2, 0.5, 0], [0, 1, 1, 1], [0.25, 0, 0, 3], [2, 2, -1, -1]], "<f2").tobytes()
    return [
        Described((7, 12), SCALAR | ROWS, steps[0] + write_uint(5), (5, 12, 1, 1)),
        Described((7,), SHARED, b"", (1, 5, 1, 1)),  # five of its seven are live, as of the rows before
        Described((4, 7, 3, 3), DFT, odd, (4, 5, 1, 9)),
        Described((5, 4, 3, 3), SHARED | SLICES | KERNEL_ROWS, write_uint(3), (15, 1, 1, 9)),
        Described((3, 5, 2, 4), DFT | KERNEL_ROWS, even, (15, 1, 1, 8)),
        Described((3, 4, 2, 2), MATRIX, steps[4] + matrix, (3, 4, 1, 4)),
        Described((2, 3, 2, 2), SHARED | ROWS, write_uint(1), (1, 3, 1, 4)),
        Described((3, 30), GRID, bytes([6, 5, 3, 2, 1]) + steps[2], (3, 1, 3, 2)),
        Described((3, 30), SCALAR | IMAGE | SLICES, steps[1] + bytes([2, 3]) + write_uint(4), (3, 4, 2, 3)),
        Described((2, 3, 4, 2), SHARED, b"", (2, 3, 4, 2)),
        Described((2, 3, 5), SHARED, b"", (2, 3, 1, 5)),
        Described((2, 1, 2, 3, 2), SHARED, b"", (2, 1, 6, 2)),
        Described((), SCALAR, steps[3], (1, 1, 1, 1)),
        Described((0, 4), SHARED, b"", (0, 4, 1, 1)),
        Described((6,), SHARED | SLICES, write_uint(0), (1, 0, 1, 1)),
    ]


def epr_chunks() -> list[Chunk]:
    """Payloads of `epr` with these descriptions, by both coders."""
    rng = np.random.default_rng(SEED + 3)
    chunks: list[Chunk] = []
    for coder, dtype in ((1, "float32"), (1, "bfloat16"), (0, "float16"), (0, "float64")):
        specs: list[TensorSpec] = []
        payload = bytes([coder])
        arrays: list[NDArray[np.int64]] = []
        geometries: list[Geometry] = []
        tables: list[CodedArray] = []
        for index, (shape, first, fields, geometry) in enumerate(epr_descriptions()):
            if coder == 0 and first & IMAGE:
                continue
            rows, columns = geometry[0], math.prod(geometry[1:])
            if coder == 0 and first & 7 in (DFT, MATRIX):
                rows, columns = columns, rows  # any numbers: only how many there are matters
            values = rng.integers(-3, 4, (rows, columns)) * (rng.random((rows, columns)) < 0.4)
            specs.append(TensorSpec(f"{dtype}, {index}", dtype, shape))
            payload += bytes([first & ~KERNEL_ROWS if coder == 0 else first]) + fields
            arrays.append(values)
            geometries.append(Geometry(*geometry))
            if coder == 0 and values.size:
                fit = best_fit(values, None)
                tables.append(CodedArray(values, fit.models, fit.classes))
                payload += write_models(fit.models)
        payload += encode_body(tables, wide=False) if coder == 0 else encode_adaptive(arrays, geometries)
        chunks.append(Chunk("epr", 2, {}, SEED, tuple(specs), payload))
    return chunks


class Dealt(NamedTuple):
    """One tensor of a `miracle` payload: its live sizes and how many elements share a value, where these are said."""

    dtype: str
    shape: tuple[int, ...]
    prior: int | None
    live: tuple[int, ...] | None = None
    share: int | None = None

    @property
    def description(self) -> bytes:
        if self.prior is None:
            return b"\4"
        flags = (self.live is not None) + 2 * (self.share is not None)
        live = b"".join(write_uint(size) for size in self.live or ())
        return bytes([flags]) + live + (write_uint(self.share) if self.share else b"") + write_sint(self.prior)

    @property
    def num_values(self) -> int:
        live = self.shape if self.live is None else self.live
        return 0 if self.prior is None else -(-math.prod(live) // (self.share or 1))


def miracle_chunk(
    name: str,
    kind: int,
    bits: int,
    num_blocks: int,
    tensors: list[Dealt],
    *,
    code: int | None = None,
    span: tuple[int, int] | None = None,
    whole: tuple[int, ...] = (),
) -> Chunk:
    """A payload of `miracle` with random numbers, in an index stream with this code if there is one.

    A tile's tensor is what the tile has; `whole` is the shape of all of it.
    """
    rng = np.random.default_rng([SEED, bits, num_blocks])
    assert num_blocks <= sum(tensor.num_values for tensor in tensors) <= 4096 * num_blocks
    indices = rng.integers(0, 1 << bits, num_blocks)
    indices[:2] = [0, (1 << bits) - 1][:num_blocks]
    payload = bytes([kind if code is None else kind | 4, bits]) + write_uint(num_blocks)
    payload += b"".join(tensor.description for tensor in tensors)
    if code is None:
        payload += pack_raw(indices.astype(np.uint64), bits)
    else:
        indices >>= rng.integers(0, bits + 1, num_blocks)  # more small numbers than large ones, as there would be
        payload += encode_indices(indices, 1 << bits, code)
    names = [name if span else f"{name}, {place}" for place in range(len(tensors))]
    specs = [TensorSpec(each, t.dtype, whole or t.shape) for each, t in zip(names, tensors, strict=True)]
    return Chunk("miracle", 1, {}, SEED, tuple(specs), payload, span)


def miracle_chunks() -> list[Chunk]:
    """What this encoder does not choose: most bits, widest blocks, every code of numbers, all flags, tiles."""
    own, common, lattice = range(3)
    dense = Dealt("float32", (9, 8), -31)
    several = [
        Dealt("float16", (6, 5), 300, share=4),  # most are beyond float16
        Dealt("float32", (3, 0, 2), None),
        Dealt("bfloat16", (4, 3, 2), 2000, live=(4, 2, 2), share=3),
        Dealt("float64", (), -2000),
        Dealt("float32", (7,), -2000, share=1),
        Dealt("float32", (5, 2), 0, live=(5, 2)),
        Dealt("float32", (2, 2), None),
        Dealt("float16", (11,), 16, live=(1,), share=1 << 16),
    ]
    return [
        miracle_chunk("lattice", lattice, 30, 5, several),
        miracle_chunk("own", own, 1, 31, several),
        miracle_chunk("shared", common, 24, 7, several),
        miracle_chunk("widest", lattice, 13, 1, [Dealt("float32", (64, 64), 3)]),
        miracle_chunk("widest of its own", own, 30, 2, [Dealt("float32", (8192,), 3)]),
        miracle_chunk("nothing", lattice, 3, 0, [Dealt("float32", (5,), None)]),
        miracle_chunk("nothing coded", own, 3, 0, [Dealt("float16", (5,), None)], code=7),
        *(miracle_chunk(f"code {code}", own, 30, 40, [dense], code=code) for code in (0, 17, 63, 64)),
        miracle_chunk("one bit coded", own, 1, 30, [dense], code=2),
        miracle_chunk("tiled", own, 9, 4, [Dealt("float32", (4, 10), 5)], span=(0, 40), whole=(7, 10)),
        miracle_chunk("tiled", common, 9, 3, [Dealt("float32", (25,), 5, share=2)], span=(40, 65), whole=(7, 10)),
        miracle_chunk("tiled", lattice, 8, 2, [Dealt("float32", (5,), -5, live=(3,))], span=(65, 70), whole=(7, 10)),
    ]


def qswd_chunks() -> list[Chunk]:
    """Factors of every kind: sides, ranks, exponents up to the greatest, one-hot ones, in one lane and in lanes."""
    rng = np.random.default_rng(SEED + 7)
    made: list[tuple[TensorSpec, Factors]] = []

    def add(shape: tuple[int, ...], tiling: Tiling, rank: int, dtype: str, most: int, **given: Any) -> None:
        spec = TensorSpec(f"{tiling.side} {tiling.height} {len(made)}", dtype, shape)
        rows, columns = matrix_shape(spec)
        count = int(np.prod(tiling.grid(rows, columns)))
        codebook = rng.integers(-most, most + 1, (tiling.height, rank))
        coefficients = np.where(rng.random((rank, count)) < 0.3, rng.integers(-9, 10, (rank, count)), 0)
        if given.get("one_hot"):
            coefficients = rng.integers(0, rank, count)
        exponents = given.get("exponents", rng.integers(0, 5, rank))
        step = float(np.float32(2.0**-9 * 0.37))
        made.append((spec, Factors(tiling, step, codebook, exponents, coefficients, bool(given.get("one_hot")))))

    add((6, 40), Tiling("rows", 3), 4, "float32", 20)
    add((6, 40), Tiling("columns", 8), 16, "float16", 5)
    add((8, 7, 3, 3), Tiling("columns", 9), 9, "bfloat16", 30)
    add((8, 5), Tiling("rows", 8), 2, "float64", 200)
    add((4, 100), Tiling("rows", 1), 1, "float32", 1)
    add((10, 40), Tiling("rows", 2), 11, "float32", 70, one_hot=True)
    add((10, 40), Tiling("columns", 4), 100, "float16", 9, one_hot=True)
    add((3, 33), Tiling("rows", 3), 3, "float64", 9, exponents=np.array([30, 0, 17]))
    add((40,), Tiling("columns", 5), 8, "float32", 9)
    add((40, 100), Tiling("rows", 4), 6, "float32", 9)
    made.insert(0, made.pop())
    wide = [(spec._replace(name=f"lanes, {spec.name}"), factors) for spec, factors in made[:3]]
    chunks: list[Chunk] = []
    for items, lanes in ((made, False), (wide, True)):
        coded = [coded_factors(factors, *matrix_shape(spec)) for spec, factors in items]
        payload = b"".join(each.description for each in coded)
        payload += encode_body([array for each in coded for array in each.arrays], wide=lanes)
        specs = tuple(spec for spec, _ in items)
        chunks.append(Chunk("qswd", method_class("qswd").payload_version, {}, SEED, specs, payload))
    return chunks
