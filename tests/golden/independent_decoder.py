"""A second decoder of the `.fewbits` file, written from the specification alone.

It shares no code with the package: NumPy, zlib and a CBOR library are all it needs, next to `adaptive_decoder.py`
(section 9.4), `shared_randomness.py` (section 12), `image_decoder.py` (docs/payload/image.md), `sic_decoder.py`
(docs/payload/sic.md), `blockwise_decoder.py` (docs/payload/blockwise.md) and the constants in
`src/fewbits/models/shipped_tables.csv`. Its sections carry the numbers of `docs/format.md`, so that the two can be
read side by side. Clarity comes before speed.

    python independent_decoder.py FILE      prints name, dtype, shape and CRC of every tensor
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import numpy as np
from numpy.typing import NDArray

try:
    from tests.golden import adaptive_decoder, blockwise_decoder, image_decoder, shared_randomness, sic_decoder
except ImportError:  # run as a program, from any folder
    sys.modules.setdefault("independent_decoder", sys.modules[__name__])  # some of them import this module, once
    import adaptive_decoder
    import blockwise_decoder
    import image_decoder
    import shared_randomness
    import sic_decoder

SHIPPED_TABLES = Path(__file__).resolve().parents[2] / "src" / "fewbits" / "models" / "shipped_tables.csv"
SIZE_LIMIT = 1 << 32  # this reader's limit on the decoded bytes of a file

Array = NDArray[Any]


class DecodeError(Exception):
    """The file breaks the format; `error` is the name that section 10 gives to the case."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"{error}: {message}")
        self.error = error


def require(condition: bool | np.bool_, message: str, error: str = "Corrupt") -> None:
    if not condition:
        raise DecodeError(error, message)


# ---- 1 Conventions -----------------------------------------------------------------------------------------


class Cursor:
    """Reads fields one after the other; running out of bytes is the error named at construction."""

    def __init__(self, data: bytes, place: str, *, at_end: str = "Corrupt") -> None:
        self.data, self.place, self.at_end, self.position = data, place, at_end, 0

    def take(self, size: int) -> bytes:
        require(size <= len(self.data) - self.position, f"{self.place} ends too early", self.at_end)
        self.position += size
        return self.data[self.position - size : self.position]

    def peek(self) -> int | None:
        return self.data[self.position] if self.position < len(self.data) else None

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def uint(self) -> int:
        value = count = 0
        byte = 0x80
        while byte & 0x80:
            require(count < 10, f"an integer of {self.place} is longer than 10 bytes")
            byte = self.u8()
            value |= (byte & 0x7F) << 7 * count
            count += 1
        require(value < 1 << 64, f"an integer of {self.place} has more than 64 bits")
        require(byte != 0 or count == 1, f"an integer of {self.place} is not in its shortest form")
        return value

    def sint(self) -> int:
        zigzag = self.uint()
        return zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1

    def finish(self) -> None:
        require(self.position == len(self.data), f"{self.place} is not used up")


def unpack_bits(data: bytes) -> Array:
    """The bits of a bit stream, from the least significant of the first byte on."""
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


# ---- 2 The file --------------------------------------------------------------------------------------------

MAGIC = b"\x89FWB"
SECTION_CAP = 1 << 26
VERSIONS = {"lossless": 1, "ecsq": 1, "epr": 2, "miracle": 1, "image": 1, "qswd": 1, "sic": 2, "blockwise": 1}


class File(NamedTuple):
    tensors: list[Tensor]
    methods: list[tuple[str, int]]
    parts: list[Part]
    payloads: list[bytes]
    seed: int
    metadata: dict[str, str]


def read_file(data: bytes, module_tensors: Sequence[tuple[Any, ...]] | None) -> File:
    require(data[:4] == MAGIC[: len(data)], "this is not a fewbits file")  # a prefix of it is Truncated, below
    c = Cursor(data, "the file", at_end="Truncated")
    c.take(4)
    form, flags = c.u8(), c.u8()
    require(form == 1, f"format {form} is not known", "Incompatible")
    require(flags < 4, "a reserved flag is set", "Incompatible")
    if flags & 1:
        require(flags == 1, "a bare file has no header that could be deflated")
        return read_bare(c, module_tensors)

    header_size = size_field(c)
    raw_size = size_field(c) if flags & 2 else header_size
    index_size = size_field(c)
    header, index = c.take(header_size), c.take(index_size)
    covered = c.position
    require(zlib.crc32(data[:covered]) == c.u32(), "the checksum of header and index fails")

    if flags & 2:
        header = inflate(header, raw_size)
    tensors, methods, seed, metadata = parse_header(header)
    total = sum(t.elements * t.reals * t.width // 8 for t in tensors if t.target is None)
    require(total <= SIZE_LIMIT, f"the tensors have {total} bytes, above the limit", "TooLarge")
    ic = Cursor(index, "the index")
    parts = parse_parts(ic, bare=False)
    payloads = [c.take(part.size) for part in parts]
    c.finish()
    for part, payload in zip(parts, payloads, strict=True):
        require(zlib.crc32(payload) == part.check, "the checksum of a payload fails")
    return File(tensors, methods, parts, payloads, seed, metadata)


def size_field(c: Cursor) -> int:
    size = c.uint()
    require(size <= SECTION_CAP, f"a section of {size} bytes is above the cap of 2^26", "TooLarge")
    return size


def inflate(stored: bytes, raw_size: int) -> bytes:
    """A raw deflate stream of exactly `raw_size` bytes, ending with its last byte."""
    inflater = zlib.decompressobj(-15)
    try:
        raw = inflater.decompress(stored, raw_size + 1)
    except zlib.error as error:
        raise DecodeError("Corrupt", "the header is not a deflate stream") from error
    exact = inflater.eof and not inflater.unused_data and not inflater.unconsumed_tail
    require(exact and len(raw) == raw_size, "the deflated header does not end where it should")
    return raw


# ---- 3 The header ------------------------------------------------------------------------------------------

# In the order of their codes; "-" is reserved.
DTYPES = (
    *("float32", "float16", "bfloat16", "float64", "-", "int8", "int16", "int32", "int64", "uint8"),
    *("uint16", "-", "uint32", "uint64", "bool", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn_x2",),
)
TINY = ("float8", "float4")
QUANTISED = ("float32", "float16", "bfloat16", "float64")


# Those with a mantissa, whose bits may be taken apart (docs/payload/lossless.md).
FLOATS = (
    *("float32", "float16", "bfloat16", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
)
MOST_ITEMS, MOST_DEPTH, MOST_DIMENSIONS = 1 << 21, 64, 64


class Tensor(NamedTuple):
    """A stored tensor, or (with `target`, a position) an alias that has its target's dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    target: int | None = None

    @property
    def reals(self) -> int:
        """How many real numbers one element is."""
        return 2 if self.dtype.startswith("complex") else 1

    @property
    def width(self) -> int:
        """Bits of one real number."""
        if self.dtype == "bool" or self.dtype.startswith(TINY):
            return 8
        return int("".join(c for c in self.dtype if c.isdigit())) // self.reals

    @property
    def numpy_dtype(self) -> str:
        """Of the result: the dtype itself, or the unsigned integer of its width where NumPy has none."""
        known = self.dtype not in ("bfloat16", "complex32") and not self.dtype.startswith(TINY)
        return np.dtype(self.dtype).newbyteorder("<").str if known else f"<u{self.width // 8}"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> tuple[int, int]:
        """R and n of section 1."""
        if self.elements == 0:
            return 0, 0
        rows = self.shape[0] if len(self.shape) >= 2 else 1
        return rows, self.elements // rows


def unsigned(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def amount(value: object) -> bool:
    """A float of at least 0, so no NaN."""
    return type(value) is float and value >= 0


def is_array(value: Any, *lengths: int) -> bool:
    return type(value) is list and len(value) in lengths


def is_map(value: Any) -> bool:
    return type(value) is dict and all(type(key) is str for key in value)


def parse_header(raw: bytes) -> tuple[list[Tensor], list[tuple[str, int]], int, dict[str, str]]:
    header: Any
    try:
        header = cbor2.loads(raw)
        # Only text keys occur, so that the order of RFC 7049 and that of RFC 8949, 4.2.1, are the same.
        deterministic = cbor2.dumps(header, canonical=True) == raw
    except Exception as error:  # whatever the CBOR library makes of a hostile header
        raise DecodeError("Corrupt", "the header is not CBOR") from error
    require(deterministic, "the header is not deterministic CBOR")
    require(count_items(header) <= MOST_ITEMS, "the header has too many items", "TooLarge")
    require(is_array(header, 6), "the header is not an array of six elements")
    entries, methods, seed, rate_weight, losses, metadata = header
    good = all(type(value) is list for value in (entries, methods))
    require(good, "the tensor or the method list is not an array")

    tensors: list[Tensor] = []
    for entry in entries:
        tensors.append(parse_tensor(entry, tensors))
    require(len({t.name for t in tensors}) == len(tensors), "a tensor name occurs twice")
    for method in methods:
        good = is_array(method, 3) and type(method[0]) is str and unsigned(method[1]) and is_map(method[2])
        require(good, "a method entry is malformed")
    require(unsigned(seed), "the seed is not unsigned")
    good = rate_weight is None or (amount(rate_weight) and math.isfinite(rate_weight))
    require(good, "the rate weight is not a finite float of at least 0")
    good = losses is None or is_array(losses, len(tensors))
    require(good, "the losses are not one entry a tensor")
    for tensor, loss in zip(tensors, losses or [], strict=False):
        if tensor.target is None:
            good = is_array(loss, 2, 3) and amount(loss[0]) and unsigned(loss[1])
            good = good and all(type(note) is str for note in loss[2:])
        else:
            good = loss is None
        require(good, f"the loss entry of {tensor.name} is malformed")
    good = metadata is None or (is_map(metadata) and all(type(v) is str for v in metadata.values()))
    require(good, "the metadata is not a map of text to text")
    return tensors, [(name, version) for name, version, _ in methods], seed, metadata or {}


def count_items(value: Any, depth: int = 0) -> int:
    """Items of a value made of JSON's types only, arrays and maps and keys counted."""
    if type(value) in (list, dict):
        require(depth < MOST_DEPTH, "the header is nested too deep")
        require(type(value) is list or is_map(value), "a map of the header has a key that is not text")
        keys = len(value) if type(value) is dict else 0
        inner = value.values() if type(value) is dict else value
        return 1 + keys + sum(count_items(item, depth + 1) for item in inner)
    good = value is None or type(value) in (str, bool, float) or unsigned(value)
    good = good or (type(value) is int and -(1 << 64) <= value < 0)
    require(good, "the header has an item that is not of JSON's types")
    return 1


def parse_tensor(entry: Any, earlier: list[Tensor]) -> Tensor:
    require(is_array(entry, 3) and type(entry[0]) is str, "a tensor entry is malformed")
    name, second, third = entry
    require(type(second) is int, f"the entry of {name} has no dtype or target")
    if type(third) is bool:
        require(0 <= second < len(earlier), f"the target of {name} is not an earlier tensor")
        target = earlier[second]
        require(target.target is None, f"the target of {name} is an alias itself")
        return Tensor(name, target.dtype, target.shape, second)
    require(0 <= second < len(DTYPES) and DTYPES[second] != "-", f"the dtype code of {name} is reserved")
    require(type(third) is list and all(unsigned(d) for d in third), f"the shape of {name} is malformed")
    tensor = Tensor(name, DTYPES[second], tuple(third))
    size = math.prod(max(d, 1) for d in third) * tensor.reals * tensor.width // 8
    good = len(third) <= MOST_DIMENSIONS and size < 1 << 63
    require(good, f"{name} has too many dimensions or bytes", "TooLarge")
    return tensor


# ---- 4 The index -------------------------------------------------------------------------------------------

WHOLE, TILE, GROUP = 0, 1, 2
MOST_GROUPS = 1024
MOST_PART_ELEMENTS = 1 << 24


class Part(NamedTuple):
    method: int
    kind: int
    elements: int
    bound_log2: int
    runs: list[tuple[int, int]]  # skip, take
    size: int
    check: int | None


class Piece(NamedTuple):
    """`elements` of a stored tensor from `start` on: all of them, unless the part is a tile."""

    position: int
    start: int
    elements: int


def parse_parts(c: Cursor, *, bare: bool) -> list[Part]:
    parts: list[Part] = []
    for _ in range(c.uint()):
        method, kind = divmod(c.uint(), 4)
        require(kind <= GROUP, "a part is of the reserved kind 3")
        elements = c.uint() if kind == TILE else 0
        require(elements > 0 or kind != TILE, "a tile has no elements")
        num_runs, bound_log2 = divmod(c.uint() if kind == GROUP else 0, 64)
        runs: list[tuple[int, int]] = []
        for i in range(num_runs):
            skip, take = c.uint(), c.uint()
            require(take >= 1 and (skip >= 1 or i == 0), "a run of a group skips or takes nothing")
            runs.append((skip, take))
        size = c.uint()
        parts.append(Part(method, kind, elements, bound_log2, runs, size, None if bare else c.u32()))
    c.finish()
    return parts


def claim(tensors: list[Tensor], parts: list[Part], num_methods: int) -> list[list[Piece]]:
    """The pieces of each part. Groups claim first, one after the other; then whole parts and tiles, in order."""
    used = {part.method for part in parts}
    require(used == set(range(num_methods)), "a part names a method that is not there, or none names one that is")
    groups = sum(part.kind == GROUP for part in parts)
    require(groups <= MOST_GROUPS, f"the index has {groups} groups", "TooLarge")
    free = [i for i, t in enumerate(tensors) if t.target is None]
    members: list[list[int]] = []  # of each group
    for part in parts:
        if part.kind != GROUP:
            continue
        bound = math.inf if part.bound_log2 == 0 else 1 << part.bound_log2
        candidates = [i for i in free if tensors[i].elements < bound]
        taken: list[int] = []
        at = 0
        for skip, take in part.runs or [(0, len(candidates))]:
            taken += candidates[at + skip : at + skip + take]
            at += skip + take
        require(len(taken) > 0 and at <= len(candidates), "a group takes tensors that are not there")
        members.append(taken)
        gone = set(taken)
        free = [i for i in free if i not in gone]

    of_groups, left = iter(members), deque(free)
    pieces: list[list[Piece]] = []
    tiled, start = -1, 0  # the tensor being tiled, and its first element that no tile has yet
    method = -1  # of its tiles
    for part in parts:
        good = tiled < 0 or (part.kind == TILE and part.method == method)
        require(good, "the tiles of a tensor do not follow each other with one method")
        method = part.method
        if part.kind == GROUP:
            pieces.append([Piece(p, 0, tensors[p].elements) for p in next(of_groups)])
            continue
        if tiled < 0:
            require(len(left) > 0, "there are more parts than tensors")
            tiled, start = left.popleft(), 0
        total = tensors[tiled].elements
        elements = part.elements if part.kind == TILE else total
        require(start + elements <= total, f"the tiles of {tensors[tiled].name} have too many elements")
        pieces.append([Piece(tiled, start, elements)])
        start += elements
        tiled = tiled if start < total else -1
    require(tiled < 0 and not left, "a stored tensor is not claimed, or not to its end")
    for held in pieces:
        require(sum(piece.elements for piece in held) <= MOST_PART_ELEMENTS, "a part has too many elements", "TooLarge")
    return pieces


# ---- 5 The bare profile ------------------------------------------------------------------------------------

BARE_CODES = dict(enumerate(("lossless", "ecsq", "epr", "miracle", "image", "qswd", "sic", "blockwise"), start=1))


def read_bare(c: Cursor, module_tensors: Sequence[tuple[Any, ...]] | None) -> File:
    fingerprint, seed = c.u32(), c.uint()
    ic = Cursor(c.take(size_field(c)), "the index")
    methods = [(ic.uint(), ic.uint()) for _ in range(ic.uint())]
    parts = parse_parts(ic, bare=True)
    payloads = [c.take(part.size) for part in parts]
    covered = c.position
    check = c.u32()
    c.finish()
    require(zlib.crc32(c.data[:covered]) == check, "the checksum of the file fails")
    for code, _version in methods:
        require(code in BARE_CODES, f"method code {code} is not known", "Incompatible")
    require(module_tensors is not None, "a bare file needs the tensors of its module", "InvalidArgument")
    tensors = tensors_of_module(module_tensors or ())
    require(fingerprint_of(tensors) == fingerprint, "the file belongs to another module", "InvalidArgument")
    # Aliases of a bare file are its module's ties, which have no part: positions count first names only.
    named = [(BARE_CODES[code], version) for code, version in methods]
    return File(tensors, named, parts, payloads, seed, {})


def tensors_of_module(module_tensors: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """From (name, dtype, shape) of each; a fourth item names the earlier tensor whose memory it shares."""
    tensors: list[Tensor] = []
    positions: dict[str, int] = {}
    for i, (name, dtype, shape, *target) in enumerate(module_tensors):
        positions[name] = i
        shares = positions[target[0]] if target and target[0] is not None else None
        tensors.append(Tensor(name, dtype, tuple(int(d) for d in shape), shares))
    return tensors


def fingerprint_of(tensors: list[Tensor]) -> int:
    crc = 0
    for t in tensors:
        numbers = b"".join(write_uint(v) for v in (len(t.shape), *t.shape))
        crc = zlib.crc32(t.name.encode() + bytes([0, DTYPES.index(t.dtype)]) + numbers, crc)
    return crc


def write_uint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- 6 Probability tables ----------------------------------------------------------------------------------


class Table:
    """Values lo … lo + n - 1 and an escape (symbol n), as symbol and offset of each of the 8192 slots."""

    def __init__(self, lo: int, frequencies: Sequence[int], escape: int) -> None:
        self.lo, self.n = lo, len(frequencies)
        require(1 <= self.n <= 63, "a table has no values, or more than 63")
        require(min(frequencies) >= 1, "a value of a table has frequency 0")
        f = [*frequencies, escape] + [0] * (63 - self.n)
        require(sum(f) == 8192, "the frequencies of a table do not sum to 8192")
        require(max(f) < 8192, "a table has one symbol only")

        left, own, alias = list(f), [0] * 64, list(range(64))
        small = deque(b for b in range(64) if f[b] < 128)
        large = deque(b for b in range(64) if f[b] >= 128)
        while small:
            b, a = small.popleft(), large[0]
            own[b], alias[b] = left[b], a
            left[a] -= 128 - left[b]
            if left[a] < 128:
                small.append(large.popleft())
        for b in large:
            own[b] = 128

        symbol = np.array([b if s < own[b] else alias[b] for b in range(64) for s in range(128)])
        offset = np.zeros(8192, np.int64)
        for b in range(64):
            mine = symbol == b
            offset[mine] = np.arange(np.count_nonzero(mine))
        self.symbol = symbol
        self.offset = offset.astype(np.uint64)
        self.frequency = np.array(f, np.uint64)[symbol]  # of the slot's symbol


@cache
def shipped_table(number: int) -> Table:
    for line in SHIPPED_TABLES.read_text(encoding="ascii").splitlines():
        family, scale, escape, zero, *others = (int(item) for item in line.split(","))
        if (family, scale) == divmod(number, 64):
            return Table(-len(others), [*reversed(others), zero, *others], escape)
    raise LookupError(f"shipped_tables.csv lacks table {number}")


# ---- 7 Integer models --------------------------------------------------------------------------------------


class Model(NamedTuple):
    table: Table | None
    shift: int = 0
    centre: int = 0

    def integers(self, h: Array, low: Array) -> Array:
        """q modulo 2^64; h is 0 where there is no table."""
        return np.uint64(self.centre % (1 << 64)) + (h << np.uint64(self.shift)) + low


SEVERAL_CLASSES = 195
MOST_CLASSES = 4096
MOST_MODELS = 1 << 16  # of a body with chunks: section 10


def read_model(c: Cursor, *, inner: bool = False) -> Model:
    first = c.u8()
    if first <= 191:
        return Model(shipped_table(first))
    if first == 192:
        lo, n = c.sint(), c.uint() + 1
        require(n <= 63, "a histogram has more than 63 values")
        frequencies = [c.uint() for _ in range(n)]
        return Model(Table(lo, frequencies, c.uint()))
    require(first <= 194 and not inner, f"an integer model starts with the byte {first}")
    shift, centre = c.u8(), c.sint()
    require(shift <= 63, "the shift of an integer model is above 63")
    require(first == 193 or shift or centre, "a shifted model has neither shift nor centre")
    return Model(read_model(c, inner=True).table if first == 194 else None, shift, centre)


# ---- 8 Coded arrays ----------------------------------------------------------------------------------------


class CodedArray:
    """R rows of n integers; `classes` (one a row) and `q` (modulo 2^64) are filled in from the body."""

    def __init__(self, rows: int, columns: int, models: list[Model], class_model: Model | None) -> None:
        self.rows, self.columns, self.models, self.class_model = rows, columns, models, class_model
        self.classes = np.zeros(rows, np.int64)
        self.q = self.h = self.low = np.zeros(rows * columns, np.uint64)

    def of_class(self, k: int) -> Array:
        return np.repeat(self.classes == k, self.columns)


class Segment(NamedTuple):
    """Where to put the symbols of a row, or of a whole array, that share one table."""

    table: Table
    h: Array


def read_model_set(c: Cursor, rows: int, columns: int) -> CodedArray:
    if c.peek() != SEVERAL_CLASSES:
        return CodedArray(1, rows * columns, [read_model(c)], None)
    c.u8()
    classes = c.uint() + 2
    require(classes <= MOST_CLASSES, f"a model set has {classes} classes")
    require(rows * columns > 0, "an array without elements has several classes")
    models = [read_model(c) for _ in range(classes)]
    return CodedArray(rows, columns, models, read_model(c))


def decode_body(c: Cursor, arrays: list[CodedArray]) -> None:
    budget = 45_440 * (len(c.data) - c.position + 64)  # of symbols: section 10
    layout = c.u8()
    require(layout <= 1, f"body layout {layout} does not exist")
    models = sum(len(array.models) for array in arrays)
    require(layout == 0 or models <= MOST_MODELS, f"the chunks of a body have {models} integer models")
    lane_size, lane_escape_size = c.uint(), c.uint()
    heads = [(c.uint(), c.uint(), c.uint()) for _ in range(c.uint() if layout == 1 else 0)]
    lane = Lane(c.take(lane_size), c.take(lane_escape_size))
    chunks = [Chunk(*head, c) for head in heads]

    segments: list[Segment] = []
    for array in arrays:
        budget -= decode_classes(c, array, lane, budget)
        array.h, array.low = np.zeros((2, array.rows * array.columns), np.uint64)
        for k, model in enumerate(array.models):
            mine = array.of_class(k)
            array.low[mine] = read_raw(c, int(np.count_nonzero(mine)), model.shift)
        rows = zip(array.classes, array.h.reshape(array.rows, array.columns), strict=True)
        coded = [(array.models[k].table, row) for k, row in rows if row.size]
        own = [Segment(table, row) for table, row in coded if table]
        budget -= sum(segment.h.size for segment in own)
        require(budget >= 0, "a part has more symbols than its bytes can hold")
        if layout == 1:
            segments += own
        else:
            for segment in own:
                lane.decode(segment.table, segment.h)
    c.finish()
    lane.finish()
    decode_chunks(chunks, segments)
    for array in arrays:
        array.q = np.zeros_like(array.h)
        for k, model in enumerate(array.models):
            mine = array.of_class(k)
            array.q[mine] = model.integers(array.h[mine], array.low[mine])


def decode_classes(c: Cursor, array: CodedArray, lane: Lane, budget: int) -> int:
    """Fill in the class of each row; returns the number of symbols that took."""
    model = array.class_model
    if model is None:
        return 0
    symbols = array.rows if model.table else 0
    require(symbols <= budget, "a part has more symbols than its bytes can hold")
    low = read_raw(c, array.rows, model.shift)
    h = np.zeros(array.rows, np.uint64)
    if model.table:
        lane.decode(model.table, h)
    q = model.integers(h, low)
    require(np.all(q < len(array.models)), "a class index is out of range")
    array.classes = q.astype(np.int64)
    return symbols


def read_raw(c: Cursor, count: int, shift: int) -> Array:
    """`count` integers of `shift` bits each, then zero bits to a whole byte."""
    bits = unpack_bits(c.take((count * shift + 7) // 8))
    require(not bits[count * shift :].any(), "padding bits are not zero")
    low = np.zeros(count, np.uint64)
    for i, column in enumerate(bits[: count * shift].reshape(count, shift).T):
        low |= column.astype(np.uint64) << np.uint64(i)
    return low


# ---- 9 Streams ---------------------------------------------------------------------------------------------


class Chunk:
    """9.1: thirty-two lanes, states below 2^32 kept in 64 bits."""

    def __init__(self, symbols: int, words: int, escape_size: int, c: Cursor) -> None:
        require(symbols >= 1, "a chunk has no symbols")
        self.symbols = symbols
        self.x = np.frombuffer(c.take(32 * 4), "<u4").astype(np.uint64)
        require(np.all(self.x >= 1 << 16), "a lane state is below 2^16")
        self.words = np.frombuffer(c.take(2 * words), "<u2").astype(np.uint64)
        self.taken = 0
        self.escapes = Escapes(c.take(escape_size))

    def decode(self, table: Table, h: Array) -> None:
        """One group of at most 32 symbols, written to `h`."""
        x = self.x[: h.size]
        slot = x % 8192
        symbol = table.symbol[slot]
        x[:] = table.frequency[slot] * (x // 8192) + table.offset[slot]
        short = np.flatnonzero(x < 1 << 16)
        require(short.size <= self.words.size - self.taken, "a chunk has too few words")
        x[short] = x[short] << 16 | self.words[self.taken : self.taken + short.size]
        self.taken += short.size
        h[:] = symbol.astype(np.uint64) + np.uint64(table.lo % (1 << 64))
        for j in np.flatnonzero(symbol == table.n):
            h[j] = self.escapes.read(table)

    def finish(self) -> None:
        require(self.taken == self.words.size, "a chunk has words left")
        require(np.all(self.x == 1 << 16), "a lane does not end at 2^16")
        self.escapes.finish()


def decode_chunks(chunks: list[Chunk], segments: list[Segment]) -> None:
    groups: Iterator[tuple[Table, Array]] = (
        (segment.table, segment.h[i : i + 32]) for segment in segments for i in range(0, segment.h.size, 32)
    )
    for chunk in chunks:
        left = chunk.symbols
        while left > 0:
            table, h = next(groups, (None, None))
            if table is None or h is None or h.size > left:
                raise DecodeError("Corrupt", "a chunk does not end with a group")
            chunk.decode(table, h)
            left -= h.size
        chunk.finish()
    require(next(groups, None) is None, "the chunks have too few symbols")


class Lane:
    """9.2: one lane, whose stream begins with its state in as few bytes as it needs."""

    def __init__(self, stream: bytes, escapes: bytes) -> None:
        size = len(stream)
        state_size = size if size <= 2 else 3 if size % 2 else 4
        state = stream[:state_size]
        require(state[-1:] != b"\0", "the state of the single lane ends with a zero byte")
        require(stream != b"\1", "state 1 of the single lane is not written as no bytes")
        self.x = int.from_bytes(state, "little") or 1
        self.words = deque(np.frombuffer(stream[state_size:], "<u2").tolist())
        self.escapes = Escapes(escapes)

    def decode(self, table: Table, h: Array) -> None:
        for i in range(h.size):
            slot = self.x % 8192
            symbol = int(table.symbol[slot])
            self.x = int(table.frequency[slot]) * (self.x // 8192) + int(table.offset[slot])
            if self.x < 1 << 16 and self.words:
                self.x = self.x << 16 | self.words.popleft()
            h[i] = self.escapes.read(table) if symbol == table.n else (table.lo + symbol) % (1 << 64)

    def finish(self) -> None:
        require(not self.words, "the single lane has words left")
        require(self.x == 1, "the single lane does not end at 1")
        self.escapes.finish()


class Escapes:
    """9.3: a bit, then an exponential-Golomb code, for each escaped symbol."""

    def __init__(self, data: bytes) -> None:
        self.bits: list[int] = unpack_bits(data).tolist()
        self.position = 0

    def bit(self) -> int:
        require(self.position < len(self.bits), "the escapes end too early")
        self.position += 1
        return self.bits[self.position - 1]

    def read(self, table: Table) -> int:
        """The next escaped h, modulo 2^64."""
        below = self.bit()
        z = 0
        while self.bit() == 0:
            z += 1
            require(z <= 63, "an escape is longer than 64 bits")
        number = 1  # d + 1, whose first bit ended the zeros
        for _ in range(z):
            number = number << 1 | self.bit()
        d = number - 1
        return (table.lo - 1 - d if below else table.lo + table.n + d) % (1 << 64)

    def finish(self) -> None:
        rest = self.bits[self.position :]
        require(len(rest) < 8, "a stream of escapes is not used up")
        require(not any(rest), "padding bits are not zero")


# ---- Payloads (docs/payload/) ------------------------------------------------------------------------------


# Reads a description: the arrays to be decoded, and what turns their integers into the bits of the real numbers,
# unsigned integers of their width.
Described = tuple[list[CodedArray], Callable[[], Array]]


def array_rows(tensor: Tensor, piece: Piece) -> tuple[int, int]:
    """R and n of a whole tensor or a tile."""
    rows, columns = tensor.rows
    if piece.elements == tensor.elements:
        return rows, columns
    if piece.start % columns == 0 and piece.elements % columns == 0:
        return piece.elements // columns, columns
    return 1, piece.elements


def decode_part(method: str, tensors: list[Tensor], pieces: list[Piece], payload: bytes, seed: int) -> list[Array]:
    """For each piece the bits of its real numbers."""
    c = Cursor(payload, "a payload")
    shaped = [(tensors[p.position], piece_shape(tensors[p.position], p)) for p in pieces]
    if method == "epr":
        return decode_epr(c, shaped)
    if method == "miracle":
        return decode_miracle(c, shaped, seed)
    if method == "image":
        require(len(pieces) == 1, "a part of images holds several tensors")
        return [image_decoder.decode_image(c, tensors[pieces[0].position], pieces[0], seed).ravel()]
    if method == "sic":
        return sic_decoder.decode_sic(c, tensors, pieces)
    if method == "blockwise":
        return blockwise_decoder.decode_blockwise(c, tensors, pieces)
    read = {"lossless": read_lossless, "ecsq": read_ecsq, "qswd": read_qswd}[method]
    described = [read(c, tensors[p.position], *array_rows(tensors[p.position], p)) for p in pieces]
    decode_body(c, [array for arrays, _ in described for array in arrays])
    return [values() for _, values in described]


def read_lossless(c: Cursor, tensor: Tensor, rows: int, columns: int) -> Described:
    transform = c.u8()
    require(transform <= 5, f"transform {transform} does not exist")
    require(transform in (0, 1, 5) or tensor.dtype in FLOATS, f"{tensor.name} is not floating, but coded as if")
    array = read_model_set(c, rows, columns * tensor.reals)
    mask = None
    if transform >= 4:
        mask, num_nonzero = array, c.uint()
        require(num_nonzero <= rows * columns * tensor.reals, "more elements have mask 1 than there are")
        array = read_model_set(c, 1, num_nonzero)
        require(array.class_model is None, "the elements with mask 1 have more than one class")
    drops = [c.u8() for _ in array.models] if transform in (2, 3, 4) else []
    require(max(drops, default=0) <= 63, "a drop is above 63")
    if mask is None:
        return [array], lambda: lossless_bits(tensor, array, transform, drops)
    like = {4: 2, 5: 0}[transform]
    return [mask, array], lambda: sparse_bits(tensor, mask, lossless_bits(tensor, array, like, drops))


def sparse_bits(tensor: Tensor, mask: CodedArray, rest: Array) -> Array:
    """Zeros, with the bits of `rest` where the mask is 1."""
    require(np.all(mask.q <= 1), f"the mask of {tensor.name} is not of zeros and ones")
    require(np.count_nonzero(mask.q) == rest.size, f"the mask of {tensor.name} has another number of ones")
    u = np.zeros(mask.q.size, rest.dtype)
    u[mask.q == 1] = rest
    return u


def lossless_bits(tensor: Tensor, array: CodedArray, transform: int, drops: list[int]) -> Array:
    if transform <= 1:
        u = np.cumsum(array.q, dtype=np.uint64) if transform == 1 else array.q
        u = u & np.uint64((1 << tensor.width) - 1)
    else:
        sign_bits = 1 if transform == 2 else 0
        v = array.q ^ np.uint64(1 << 63 if tensor.width == 64 else 0)
        sign, u = v & np.uint64(sign_bits), v >> np.uint64(sign_bits)
        for k, t in enumerate(drops):
            mine = array.of_class(k)
            most = (1 << tensor.width - sign_bits) - 1 >> t  # u * 2^t must fit without wrapping
            require(np.all(u[mine] <= most), f"a value of {tensor.name} does not fit its dtype")
            u[mine] <<= np.uint64(t)
        u |= sign << np.uint64(tensor.width - 1)
    require(tensor.dtype != "bool" or np.all(u <= 1), f"an element of {tensor.name} is not a bool")
    return u.astype(f"<u{tensor.width // 8}")


def check_quantised(tensor: Tensor) -> None:
    require(tensor.dtype in QUANTISED, f"{tensor.name} has a dtype that is never quantised")


def read_ecsq(c: Cursor, tensor: Tensor, rows: int, columns: int) -> Described:
    check_quantised(tensor)
    step = np.frombuffer(c.take(4), "<f4")[0]
    require(np.isfinite(step) and step > 0, f"the step of {tensor.name} is not finite and above 0")
    flags = c.u8()
    require(flags <= 3, "a reserved flag of ecsq is set")
    if flags & 2:
        corrections = struct.unpack("<4b", c.take(4)) if flags & 1 else (0, 0, 0, 0)
        array = read_model_set(c, rows, columns)
        return [array], lambda: trellis_bits(tensor, array, step, corrections)
    centroids = struct.unpack("<3b", c.take(3)) if flags else (0, 0, 0)
    array = read_model_set(c, rows, columns)
    return [array], lambda: quantised_bits(tensor, array, step, centroids)


def trellis_bits(tensor: Tensor, array: CodedArray, step: np.float32, corrections: tuple[int, ...]) -> Array:
    k = array.q.view(np.int64).ravel().astype(np.int32)
    signs = np.empty(k.size, np.float32)
    states = [0] * 32
    for i, level in enumerate(k.tolist()):
        state = states[i % 32]
        signs[i] = -1 if state & 4 else 1
        states[i % 32] = (2 * state & 7) ^ (3 if state & 4 else 0) ^ 4 * (level & 1)
    c0, c1, c2, c3 = (np.float32(c) for c in corrections)
    c = np.select([k == 0, k == -1, k == 1, k < 0], [c0, -c1, c2, -c3], c3)
    with np.errstate(over="ignore", under="ignore"):
        w = signs * (k.astype(np.float32) + (np.float32(64) + c) / np.float32(256)) * step
    return float_bits(tensor, w)


def quantised_bits(tensor: Tensor, array: CodedArray, step: np.float32, centroids: tuple[int, ...]) -> Array:
    q = array.q.view(np.int64)
    a = q.astype(np.float32)
    # The clip comes before the magnitude, because |q| can be 2^63, which is no int64.
    c = np.array([0, *centroids], np.float32)[np.abs(np.clip(q, -3, 3))] / np.float32(256)
    with np.errstate(over="ignore", under="ignore"):
        w = np.where(q < 0, a - c, a + c) * step
    return float_bits(tensor, w)


def float_bits(tensor: Tensor, w: Array) -> Array:
    """Values (N,) float32 in the tensor's dtype, as unsigned integers of its width."""
    with np.errstate(over="ignore", under="ignore"):
        if tensor.dtype in ("float16", "float64"):
            w = w.astype(tensor.dtype)
    finite = np.isfinite(w).all()
    bits = w.view(f"u{w.itemsize}")
    if tensor.dtype == "bfloat16":
        bits = ((bits + np.uint64(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to nearest even
        finite &= np.all(bits & 0x7F80 != 0x7F80)
    require(finite, f"a value of {tensor.name} is not finite")
    return bits


# ---- docs/payload/qswd.md ----------------------------------------------------------------------------------


def read_qswd(c: Cursor, tensor: Tensor, rows: int, columns: int) -> Described:
    check_quantised(tensor)
    require(columns == tensor.rows[1], f"the tile of {tensor.name} is not of whole rows")
    flags, h, k = c.u8(), c.uint(), c.uint()
    require(flags <= 3, "a reserved flag of qswd is set")
    by_columns, one_hot = flags % 2 == 1, flags >= 2
    along = columns if by_columns else rows
    require(1 <= h <= along and along % h == 0, f"the vectors of {tensor.name} do not divide it")
    big_a, big_b = (rows, columns // h) if by_columns else (rows // h, columns)
    require(1 <= k <= big_a * big_b and (one_hot or k <= 2 * h), f"{tensor.name} has a rank that it cannot have")
    step = np.frombuffer(c.take(4), "<f4")[0]
    require(np.isfinite(step) and step > 0, f"the step of {tensor.name} is not finite and above 0")
    exponents, codebook = read_model_set(c, 1, k), read_model_set(c, k, h)
    if one_hot:
        coefficients = read_model_set(c, 1, big_a * big_b)
    elif big_b >= 32:
        coefficients = read_model_set(c, k * big_a, big_b)
    else:
        coefficients = read_model_set(c, k, big_a * big_b)

    def values() -> Array:
        e, z = exponents.q.view(np.int64), coefficients.q.view(np.int64)
        require(e.min() >= 0 and e.max() <= 30, f"an exponent of {tensor.name} is not from 0 to 30")
        # Python's integers have no end, so that what is too large shows.
        scaled = codebook.q.view(np.int64).reshape(k, h).astype(object) * (2 ** e.astype(object))[:, None]
        if one_hot:
            require(z.min() >= 0 and z.max() < k, f"an index of {tensor.name} is of no column")
            most = np.abs(scaled).max()
        else:
            z = z.reshape(k, big_a * big_b)
            peaks = [max(int(row.max()), -int(row.min())) for row in z]
            most = max(sum(abs(scaled[j, i]) * peaks[j] for j in range(k)) for i in range(h))
        require(most < 1 << 52, f"a product of {tensor.name} is not exact")
        scaled = scaled.astype(np.float64)
        sums = scaled[z] if one_hot else z.T.astype(np.float64) @ scaled  # a vector is a row
        blocks = sums.reshape(big_a, big_b, h)
        matrix = blocks if by_columns else blocks.transpose(0, 2, 1)
        with np.errstate(over="ignore", under="ignore"):
            return float_bits(tensor, matrix.ravel().astype(np.float32) * step)

    return [exponents, codebook, coefficients], values


# ---- docs/payload/epr.md -----------------------------------------------------------------------------------

SCALAR, DFT, MATRIX, GRID, SHARED = range(5)
MOST_STEP_CODE = 2000


class Decoder(NamedTuple):
    """From levels to values; `sides` are those of a kernel, or an image's, its grid's and the margin."""

    kind: int
    steps: Array  # of each coefficient, or one
    sides: tuple[int, ...] = ()
    matrix: Array | None = None

    def values(self, levels: Array) -> Array:
        """Float32 values (N,) of levels (rows, slices, inner)."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            c = levels.astype(np.float32) * self.steps
            if self.kind == SCALAR:
                return c.ravel()
            if self.kind in (DFT, MATRIX):
                basis = dft_basis(*self.sides)[0] if self.matrix is None else self.matrix
                return weighted_sum(c.reshape(-1, len(basis)), basis).ravel()
            h, w, grid_h, grid_w, margin = self.sides
            images: list[Array] = []
            for coefficients in c.reshape(-1, grid_h, grid_w):
                t = weighted_sum(coefficients, bump_basis(w, grid_w, margin))
                images.append(weighted_sum(t.T, bump_basis(h, grid_h, margin)).T)
            return np.concatenate([image.ravel() for image in images] or [np.zeros(0, np.float32)])


def weighted_sum(c: Array, basis: Array) -> Array:
    """c (N, n) times basis rows (n, m), added up from the first on."""
    total = np.outer(c[:, 0], basis[0])
    for k in range(1, len(basis)):
        total = total + np.outer(c[:, k], basis[k])
    return total


class Levels(NamedTuple):
    """One tensor's array of levels and what of it is live."""

    tensor: Tensor
    decoder: Decoder
    full: tuple[int, int, int]
    live: tuple[int, int, int]
    geometry: tuple[int, int, int, int]
    array: CodedArray | None  # with coder 0, if anything is live


def piece_shape(tensor: Tensor, piece: Piece) -> tuple[int, ...]:
    """The shape of what a part has of a tensor: whole rows, or a vector."""
    columns = tensor.rows[1]
    if piece.elements == tensor.elements:
        return tensor.shape
    if len(tensor.shape) >= 2 and piece.start % columns == 0 and piece.elements % columns == 0:
        return (piece.elements // columns, *tensor.shape[1:])
    return (piece.elements,)


def decode_epr(c: Cursor, tensors: list[tuple[Tensor, tuple[int, ...]]]) -> list[Array]:
    coder = c.u8()
    require(coder <= 1, f"an epr payload has coder {coder}")
    found: list[Levels] = []
    units: list[tuple[int, int]] = []  # of each tensor, and how many of them are live
    for tensor, shape in tensors:
        check_quantised(tensor)
        found.append(read_levels(c, coder, tensor, shape, [each.decoder for each in found], units))
    if coder == 0:
        decode_body(c, [each.array for each in found if each.array])
        blocks = [each.array.q.view(np.int64) if each.array else np.zeros(0, np.int64) for each in found]
    else:
        blocks = decode_stream(c.take(len(c.data) - c.position), [each.geometry for each in found])
    values: list[Array] = []
    for each, block in zip(found, blocks, strict=True):
        rows, slices, inner = each.live
        if coder == 0 and each.decoder.kind in (DFT, MATRIX):
            block = block.reshape(inner, rows * slices).T
        levels = np.zeros(each.full, np.int64)
        levels[:rows, :slices] = block.reshape(each.live)
        values.append(float_bits(each.tensor, each.decoder.values(levels)))
    return values


def decode_stream(data: bytes, geometries: list[tuple[int, int, int, int]]) -> list[Array]:
    try:
        decoded = adaptive_decoder.decode(data, geometries)
    except adaptive_decoder.Refused as error:
        raise DecodeError("Corrupt", f"an adaptive stream: {error}") from error
    return [np.array(values, np.int64) for values in decoded]


def read_levels(
    c: Cursor,
    coder: int,
    tensor: Tensor,
    shape: tuple[int, ...],
    before: list[Decoder],
    units: list[tuple[int, int]],
) -> Levels:
    first = c.u8()
    bits = [first >> bit & 1 for bit in range(8)]
    require(first % 8 <= SHARED and not bits[7], f"the description of {tensor.name} has a reserved bit")
    require(coder == 1 or not (bits[5] or bits[6]), f"the tables of {tensor.name} have a geometry")
    decoder = read_decoder(c, first % 8, tensor, shape, before)
    kernels = decoder.kind in (DFT, MATRIX)
    height, width = 1, 1
    if decoder.kind == GRID:
        height, width = decoder.sides[2:4]
        rows, slices, inner = shape[0], 1, height * width
    elif len(shape) < 2:
        rows, slices, inner = 1, math.prod(shape), 1
    else:
        rows, slices, inner = shape[0], shape[1], math.prod(shape[2:])
        if kernels:
            height, width = 1, inner
        elif len(shape) >= 3:
            height, width = math.prod(shape[2:-1]), shape[-1]
    if bits[5]:
        height, width = c.u8(), c.u8()
        good = decoder.kind == SCALAR and len(shape) == 2 and height * width >= 2 and shape[1] % (height * width) == 0
        require(good, f"the columns of {tensor.name} are no images")
        slices, inner = shape[1] // (height * width), height * width
    require(kernels or not bits[6], f"{tensor.name} has no kernels")
    vector = len(shape) < 2
    live_rows = c.uint() if bits[3] else rows
    known = [live for count, live in (units[-1:] if vector else reversed(units)) if count == slices]
    live_slices = c.uint() if bits[4] else (known[0] if known else slices)
    require(live_rows <= rows and live_slices <= slices, f"more of {tensor.name} is live than there is")
    units.append((slices, live_slices) if vector else (rows, live_rows))
    geometry = (live_rows * live_slices, 1, 1, inner) if bits[6] else (live_rows, live_slices, height, width)
    live = live_rows, live_slices, inner
    array = None
    if coder == 0 and math.prod(live):
        of_rows = (inner, live_rows * live_slices) if kernels else (live_rows, live_slices * inner)
        array = read_model_set(c, *of_rows)
    return Levels(tensor, decoder, (rows, slices, inner), live, geometry, array)


def read_decoder(c: Cursor, kind: int, tensor: Tensor, shape: tuple[int, ...], before: list[Decoder]) -> Decoder:
    if kind == SCALAR:
        return Decoder(kind, read_steps(c, 1))
    if kind == SHARED:
        for decoder in reversed(before):
            if decoder.kind == SCALAR or (decoder.kind in (DFT, MATRIX) and shape[2:] == decoder.sides):
                return decoder
        raise DecodeError("Corrupt", f"there is no decoder that {tensor.name} could share")
    if kind == GRID:
        h, w, grid_h, grid_w, margin = sides = tuple(c.take(5))
        good = 1 <= grid_h <= h and 1 <= grid_w <= w and 2 * margin < min(h, w)
        good = good and max(h * grid_h, w * grid_w) <= 1 << 14
        require(good and len(shape) == 2 and shape[1] == h * w, f"the grid of {tensor.name} does not suit it")
        return Decoder(kind, read_steps(c, 1), sides)
    size = math.prod(shape[2:])
    require(len(shape) == 4 and 1 <= size <= 1024, f"{tensor.name} has no kernels that a basis suits")
    if kind == DFT:
        frequency = dft_basis(*shape[2:])[1]
        return Decoder(kind, read_steps(c, frequency[-1] + 1)[frequency], shape[2:])
    steps = read_steps(c, 1)
    matrix = np.frombuffer(c.take(2 * size * size), "<f2").astype(np.float32).reshape(size, size)
    require(np.isfinite(matrix).all(), f"the matrix of {tensor.name} is not finite")
    return Decoder(kind, steps, shape[2:], matrix)


def read_steps(c: Cursor, count: int) -> Array:
    return np.array([read_step(c) for _ in range(count)], np.float32)


def read_step(c: Cursor) -> np.float32:
    code = c.sint()
    require(abs(code) <= MOST_STEP_CODE, "a step is out of range")
    octave, part = divmod(code, 16)
    power = 1 << part + 16 * FIXED
    for _ in range(4):  # the 16th root, by square roots
        power = math.isqrt(power)
    return np.ldexp(rounded(power), octave)


# Real numbers are integers in units of 2^-FIXED: what that loses is far below what a binary64 can tell apart.
FIXED = 400


def rounded(number: int) -> np.float32:
    """To nearest binary64, then to nearest binary32."""
    return np.float32(number / (1 << FIXED))


@cache
def pi() -> int:
    """By Machin's formula."""

    def inverse_tangent(n: int) -> int:
        """Of 1 / n."""
        total, power, k = 0, (1 << FIXED) // n, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power, k = power // (n * n), k + 1
        return total

    return 4 * (4 * inverse_tangent(5) - inverse_tangent(239))


@cache
def cosine(turns: int, whole: int) -> int:
    """Of turns / whole of a turn; from its series within a quarter."""
    turns %= whole
    turns = min(turns, whole - turns)
    if 4 * turns == whole:
        return 0
    if 4 * turns > whole:
        return -cosine(whole - 2 * turns, 2 * whole)
    square = (2 * pi() * turns // whole) ** 2 >> FIXED
    total, term, k = 0, 1 << FIXED, 0
    while term:
        total += term if k % 4 == 0 else -term
        k += 2
        term = (term * square >> FIXED) // (k * (k - 1))
    return total


def exponential(numerator: int, denominator: int) -> int:
    """e^-(numerator / denominator) of what is at least 0; 0 where a binary32 has nothing so small."""
    if numerator > 150 * denominator:
        return 0
    x = ((numerator << FIXED) // denominator) >> 16
    total, term, k = 0, 1 << FIXED, 0
    while term:
        total += term if k % 2 == 0 else -term
        k += 1
        term = (term * x >> FIXED) // k
    for _ in range(16):
        total = total * total >> FIXED
    return total


@cache
def dft_basis(h: int, w: int) -> tuple[Array, list[int]]:
    """The basis, a row for each coefficient, and which frequency each of them has."""
    frequencies: set[tuple[int, int]] = set()
    for u in range(-((h - 1) // 2), h // 2 + 1):
        for v in range(-((w - 1) // 2), w // 2 + 1):
            twin = (u if 2 * u == h else -u, v if 2 * v == w else -v)
            frequencies.add(max((u, v), twin))
    order = sorted(frequencies, key=lambda f: (f[0] ** 2 * w**2 + f[1] ** 2 * h**2, -f[0], -f[1]))
    basis: list[list[np.float32]] = []
    frequency: list[int] = []
    for index, (u, v) in enumerate(order):
        alone = 2 * u % h == 0 and 2 * v % w == 0
        scale = math.isqrt(((1 if alone else 2) << 2 * FIXED) // (h * w))
        turns = [u * y * w + v * x * h for y in range(h) for x in range(w)]  # of h w
        basis.append([rounded(scale * cosine(t, h * w) >> FIXED) for t in turns])
        frequency.append(index)
        if not alone:  # a sine is the cosine of a quarter less
            basis.append([rounded(scale * cosine(4 * t - h * w, 4 * h * w) >> FIXED) for t in turns])
            frequency.append(index)
    return np.array(basis, np.float32), frequency


@cache
def bump_basis(n: int, g: int, margin: int) -> Array:
    """A row for each bump, its heights at the pixels."""
    heights: list[list[int]] = []
    for i in range(g):
        # x minus the centre, and the standard deviation n, both in units of 1 / (2 g).
        distances = [2 * g * x - (2 * i + 1) * (n - 2 * margin) - 2 * g * margin + g for x in range(n)]
        heights.append([exponential(d * d, 2 * n * n) for d in distances])
    mean = sum(map(sum, heights)) // n
    return np.array([[rounded((height << FIXED) // mean) for height in bump] for bump in heights], np.float32)


# ---- 13 Index stream ---------------------------------------------------------------------------------------

DELTA_CODE, OWN_TABLE = 64, 65
HARMONIC = [65536, 54613, 49776, 47538, 46466, 45942, 45683, 45554, 45490, 45458, 45442, 45434, 45430, 45428, 45426]
RATIOS = """
    32768 34708 36589 38402 40144 41811 43400 44910   46341 47693 48968 50167 51292 52346 53331 54251
    55109 55907 56650 57339 57978 58571 59120 59627   60097 60530 60931 61301 61641 61956 62245 62512
    62757 62984 63192 63383 63559 63721 63869 64006   64132 64247 64353 64450 64540 64622 64697 64767
    64830 64888 64942 64991 65036 65077 65115 65150   65182 65211 65238 65263 65286 65306 65325 65343
"""


def octave_table(code: int, cap: int) -> Table:
    octaves = cap.bit_length()
    w: list[int] = []
    h = 1 << 32
    for o in range(octaves):
        if code == DELTA_CODE:
            w.append(1 << 62 - 2 * len(f"{o + 1:b}"))
        else:
            w.append((HARMONIC[min(o, 14)] * h) // (1 << 16))
            h = (h * int(RATIOS.split()[code])) // (1 << 16)
    last = octaves - 1
    w[last] = w[last] * (cap - (1 << last) + 1) // (1 << last)
    f = [1 + (8192 - octaves) * each // sum(w) for each in w]
    f[0] += 8192 - sum(f)
    return Table(0, f, 0)


def read_indices(c: Cursor, count: int, cap: int) -> list[int]:
    """The indices below the cap that fill the rest of what the cursor reads."""
    if count == 0 or cap == 1:
        c.finish()
        return [0] * count
    code = c.u8()
    require(code <= OWN_TABLE, f"the code {code} of an index stream does not exist")
    if code == OWN_TABLE:
        require(c.peek() == 192, "an index stream has no table of its own")
        model = read_model(c)
    else:
        model = Model(octave_table(code, cap))
    array = CodedArray(1, count, [model], None)
    decode_body(Cursor(c.take(c.uint()), "the octaves"), [array])
    octaves = array.q.view(np.int64)
    require(octaves.min() >= 0 and octaves.max() < cap.bit_length(), "an index is beyond its cap")
    starts = np.cumsum(octaves) - octaves
    bits = unpack_bits(c.take((int(octaves.sum()) + 7) // 8)).tolist()
    require(not any(bits[int(octaves.sum()) :]), "padding bits are not zero")
    c.finish()
    indices: list[int] = []
    for octave, start in zip(octaves.tolist(), starts.tolist(), strict=True):
        low = sum(bit << place for place, bit in enumerate(bits[start : start + octave]))
        indices.append((1 << octave) + low - 1)
    require(max(indices) < cap, "an index is beyond its cap")
    return indices


# ---- docs/payload/miracle.md -------------------------------------------------------------------------------

OWN_CANDIDATES, SHARED_CANDIDATES, LATTICE = range(3)
MOST_BLOCK_BITS, MOST_BLOCK_VALUES, MOST_SHARED = 30, 4096, 1 << 16
GREATEST = {"float16": 65504.0}


class Dealt(NamedTuple):
    """One tensor whose values lie in blocks."""

    tensor: Tensor
    shape: tuple[int, ...]
    live: tuple[int, ...]
    share: int
    prior: np.float32 | None  # None: all elements are 0

    @property
    def values(self) -> int:
        return 0 if self.prior is None else -(-math.prod(self.live) // self.share)


def decode_miracle(c: Cursor, tensors: list[tuple[Tensor, tuple[int, ...]]], seed: int) -> list[Array]:
    first, bits, blocks = c.u8(), c.u8(), c.uint()
    kind, coded = first & 3, first >> 2
    good = kind <= LATTICE and (coded == 0 or (coded == 1 and kind == OWN_CANDIDATES))
    require(good, f"a miracle payload starts with {first}")
    require(1 <= bits <= MOST_BLOCK_BITS, f"numbers of candidates have {bits} bits")
    dealt = [read_dealt(c, tensor, shape) for tensor, shape in tensors]
    n = sum(each.values for each in dealt)
    require(blocks <= n <= blocks * MOST_BLOCK_VALUES, f"{n} values are in {blocks} blocks")
    if coded:
        numbers = np.array(read_indices(c, blocks, 1 << bits), np.uint64)
    else:
        numbers = read_raw(c, blocks, bits)
        c.finish()
    values = values_of_blocks(kind, numbers, n, seed)
    found: list[Array] = []
    for position, each in enumerate(dealt):
        own, values = values[: each.values], values[each.values :]
        found.append(float_bits(each.tensor, placed_values(each, own, seed, position)))
    return found


def read_dealt(c: Cursor, tensor: Tensor, shape: tuple[int, ...]) -> Dealt:
    check_quantised(tensor)
    flags = c.u8()
    if flags == 4:
        return Dealt(tensor, shape, shape, 1, None)
    require(flags < 4, f"the description of {tensor.name} starts with {flags}")
    live = tuple(c.uint() for _ in shape) if flags & 1 else shape
    require(all(1 <= a <= b for a, b in zip(live, shape, strict=True)), f"{tensor.name} has not so much live")
    share = c.uint() if flags & 2 else 1
    require(1 <= share <= MOST_SHARED, f"{share} elements of {tensor.name} share a value")
    return Dealt(tensor, shape, live, share, read_step(c))


def values_of_blocks(kind: int, numbers: Array, n: int, seed: int) -> Array:
    """The values of all tensors, (n,) float32, before they are scaled."""
    values = np.zeros(n, np.float32)
    order = shared_randomness.permutation(seed, 0, n)
    for k, number in enumerate(numbers.tolist()):
        mine = order[k * n // len(numbers) : (k + 1) * n // len(numbers)]
        if kind == LATTICE:
            words = shared_randomness.lattice_words(seed, 1, 0, number, len(mine))
        else:
            words = shared_randomness.words(seed, 1, k if kind == OWN_CANDIDATES else 0, number, len(mine))
        values[mine] = shared_randomness.normals(words).astype(np.float32)
    return values


def placed_values(dealt: Dealt, values: Array, seed: int, position: int) -> Array:
    """A tensor's elements (N,) float32 by its values."""
    whole = np.zeros(dealt.shape, np.float32)
    if dealt.prior is None:
        return whole.ravel()
    greatest = np.float32(GREATEST.get(dealt.tensor.dtype, 3e38))
    with np.errstate(over="ignore", under="ignore"):
        elements = np.clip(values * dealt.prior, -greatest, greatest)
    if dealt.share > 1:
        live = math.prod(dealt.live)
        own = np.zeros(live, np.float32)
        own[shared_randomness.permutation(seed, 1 + position, live)] = np.repeat(elements, dealt.share)[:live]
        negative = shared_randomness.sequence(seed, 5, position, live) >= 1 << 31
        elements = np.where(negative, -own, own)
    whole[tuple(slice(size) for size in dealt.live)] = elements.reshape(dealt.live)
    return whole.ravel()


# ---- 10 Limits, and the whole ------------------------------------------------------------------------------


def decode_tensors(file: File) -> list[Array]:
    """The tensors in order; an alias is the array of its target."""
    stored = [t for t in file.tensors if t.target is None]
    total = sum(t.elements * t.reals * t.width // 8 for t in stored)
    require(total <= SIZE_LIMIT, f"the tensors have {total} bytes, above the limit", "TooLarge")
    bits: dict[int, list[Array]] = {}
    claims = claim(file.tensors, file.parts, len(file.methods))
    for part, pieces, payload in zip(file.parts, claims, file.payloads, strict=True):
        method, version = file.methods[part.method]
        known = VERSIONS.get(method) == version
        require(known, f"method {method!r}, payload version {version} is not known", "Incompatible")
        decoded = decode_part(method, file.tensors, pieces, payload, file.seed)
        for piece, values in zip(pieces, decoded, strict=True):
            bits.setdefault(piece.position, []).append(values)

    arrays: list[Array] = []
    for i, tensor in enumerate(file.tensors):
        if tensor.target is not None:
            arrays.append(arrays[tensor.target])
            continue
        shape = (*tensor.shape, 2) if tensor.dtype == "complex32" else tensor.shape
        try:
            arrays.append(np.concatenate(bits[i]).view(tensor.numpy_dtype).reshape(shape))
        except ValueError as error:  # NumPy's own limits: 64 dimensions, each below 2^63
            raise DecodeError("TooLarge", f"NumPy cannot hold the shape of {tensor.name}") from error
    return arrays


def decode_file(data: bytes, *, module_tensors: Sequence[tuple[Any, ...]] | None = None) -> dict[str, Array]:
    """Decode a whole file to its tensors by name, in order, aliases included.

    `bfloat16` and the float8 and float4 kinds come as unsigned integers of the same width, `complex32` as
    uint16 with a last axis of 2, all others as the NumPy dtype of their name.

    Args:
        data: the bytes of the file.
        module_tensors: for a bare file, (name, dtype name, shape) of the module's tensors in `state_dict`
            order; a fourth item, if any and not None, names the earlier tensor whose memory it shares.

    Raises:
        DecodeError: for every violation of the format.
    """
    file = read_file(bytes(data), module_tensors)
    return {t.name: a for t, a in zip(file.tensors, decode_tensors(file), strict=True)}


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python independent_decoder.py FILE", file=sys.stderr)
        return 2
    try:
        file = read_file(Path(arguments[0]).read_bytes(), None)
        arrays = decode_tensors(file)
    except (DecodeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for tensor, array in zip(file.tensors, arrays, strict=True):
        print(f"{tensor.name}\t{tensor.dtype}\t{list(tensor.shape)}\t{zlib.crc32(array.tobytes()):08x}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
