"""Payloads of `blockwise` that lie: each is refused by a named error, before memory or time are taken for it."""

import struct
import time
import tracemalloc

import pytest
from torch import Tensor

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.encode import decode
from fewbits.errors import Corrupt, Incompatible
from fewbits.methods.blockwise.payload import LEAST_UNIT, MOST_LENGTH, MOST_SHIFT, MOST_UNIT, PAYLOAD_VERSION
from fewbits.native import core
from fewbits.tensors import LOSSY_DTYPES
from tests.golden.blockwise_decoder import DROPPED, FLOATS, OFFSETS, SIGNED
from tests.golden.handmade_blockwise import blockwise_chunks
from tests.golden.independent_decoder import DecodeError, Piece, decode_part
from tests.golden.independent_decoder import Tensor as Described

SMALL = TensorSpec("weight", "float32", (6, 8))
HUGE = TensorSpec("weight", "float32", (1 << 12, 1 << 12))  # as many elements as a part may have
WIDE = TensorSpec("weight", "float32", (8, 1 << 21))
MEMORY, SECONDS = 1 << 24, 1.0
EMPTY_BODY = bytes(3)
SHIPPED = bytes([32])
BOTH = OFFSETS | FLOATS


def constant(value: int) -> bytes:
    """A model of one integer, which takes no bits."""
    return bytes([193, 0]) + write_sint(value)


ZERO, ONE = constant(0), constant(1)
MANY = constant((1 << 31) - 1)


def raw(bits: int) -> bytes:
    return bytes([193, bits]) + write_sint(0)


def described(
    flags: int = 0,
    *,
    length: int = 4,
    unit: int = 0,
    shift: int = 0,
    levels: bytes = ONE,
    scales: bytes = ONE,
    offsets: bytes = ONE,
    heads: tuple[int, int] = (0, 0),
) -> bytes:
    """A description with fields as the flags have them."""
    exact = flags & FLOATS
    data = bytes([flags]) + write_uint(length - 1)
    data += b"" if exact else write_sint(unit) + write_sint(shift)
    data += levels + (bytes(heads[:1]) if exact else b"") + scales
    return data + ((bytes(heads[1:]) if exact else b"") + offsets if flags & OFFSETS else b"")


def word(value: float) -> bytes:
    """A model whose one integer is the bits of a float32."""
    return constant(struct.unpack("<I", struct.pack("<f", value))[0])


def chunk(data: bytes, spec: TensorSpec, span: tuple[int, int] | None = None) -> Chunk:
    return Chunk("blockwise", PAYLOAD_VERSION, {}, 7, (spec,), data, span)


def accepted(data: bytes, spec: TensorSpec = SMALL, span: tuple[int, int] | None = None) -> Tensor:
    return decode([chunk(data, spec, span)])["weight"]


def refused_by_the_second_decoder(data: bytes, spec: TensorSpec, span: tuple[int, int] | None) -> bool:
    start, stop = span or (0, spec.num_elements)
    try:
        decode_part("blockwise", [Described(*spec)], [Piece(0, start, stop - start)], data, 7)
    except DecodeError as error:
        return error.error == "Corrupt"
    return False


def refused(data: bytes, spec: TensorSpec = SMALL, *, match: str, span: tuple[int, int] | None = None) -> None:
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(Corrupt, match=match) as caught:
            decode([chunk(data, spec, span)])
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "'weight'" in message and message.endswith(".") and "cannot be decoded" not in message
    assert spec.num_elements >= 1 << 20 or refused_by_the_second_decoder(data, spec, span)


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "runs past"),
    "flags only": (b"\0", "weight"),
    **{f"flags {flags}": (described(flags) + EMPTY_BODY, "unknown blockwise flags") for flags in (4, 7, 8, 128, 255)},
    "blocks longer than a row": (described(length=16) + EMPTY_BODY, "whole blocks"),
    "blocks of all rows": (described(length=48) + EMPTY_BODY, "whole blocks"),
    "blocks of no divisor": (described(length=3) + EMPTY_BODY, "whole blocks"),
    "blocks of 2^64 elements": (described(length=1 << 64) + EMPTY_BODY, "whole blocks"),
    "no length in its shortest form": (b"\0\x83\0" + described()[2:] + EMPTY_BODY, "weight"),
    "too small a unit": (described(unit=LEAST_UNIT - 1) + EMPTY_BODY, "unit out of range"),
    "too great a unit": (described(unit=MOST_UNIT + 1) + EMPTY_BODY, "unit out of range"),
    "a unit of 2^63": (described(unit=-(1 << 63)) + EMPTY_BODY, "unit out of range"),
    "too small a shift": (described(shift=-MOST_SHIFT - 1) + EMPTY_BODY, "unit out of range"),
    "too great a shift": (described(shift=MOST_SHIFT + 1) + EMPTY_BODY, "unit out of range"),
    "a shift of 2^63": (described(shift=-(1 << 63)) + EMPTY_BODY, "unit out of range"),
    **{
        f"a head {head:#x} of {kind}": (described(BOTH, heads=heads) + EMPTY_BODY, "unknown kind")
        for head in (0x20, 0x40, 0xE0)
        for kind, heads in (("scales", (head, 0)), ("offsets", (0, head)))
    },
    "no model of levels": (described()[:4], "weight"),
    "no head of scales": (described(FLOATS)[:-4], "runs past"),
    "no head of offsets": (described(BOTH)[:-4], "runs past"),
    "no model of offsets": (described(BOTH)[:-3], "weight"),
    "an unknown model": (described(levels=bytes([200])) + EMPTY_BODY, "model"),
    "several classes of levels": (described(levels=bytes([195, 0]) + ONE * 3) + EMPTY_BODY, "model"),
    "several classes of scales": (described(scales=bytes([195, 0]) + ONE * 3) + EMPTY_BODY, "model"),
    "a model within a model": (described(offsets=bytes([194, 1, 0]) * 900 + SHIPPED, flags=1) + EMPTY_BODY, "weight"),
    "no body": (described(), "layout"),
    "a body of another layout": (described() + b"\2\0\0", "layout"),
    "bytes left over": (described() + EMPTY_BODY + b"\0", "left over"),
    "too few raw bits of levels": (described(levels=raw(3)) + EMPTY_BODY + bytes(17), "raw bits"),
    "too few raw bits of scales": (described(scales=raw(8)) + EMPTY_BODY + bytes(11), "raw bits"),
    "too few raw bits of offsets": (described(BOTH, offsets=raw(8)) + EMPTY_BODY + bytes(11), "raw bits"),
    "too many raw bits of offsets": (described(BOTH, offsets=raw(8)) + EMPTY_BODY + bytes(13), "left over"),
    "padding that is not zero": (described(scales=raw(1)) + EMPTY_BODY + b"\0\x10", "padding"),
    "no stream of levels": (described(levels=SHIPPED) + EMPTY_BODY, "single-lane"),
    "no chunks of scales": (described(scales=SHIPPED) + b"\1\0\0\0", "chunks"),
    "a scale of too many units": (described(scales=constant(-(1 << 31))) + EMPTY_BODY, "out of range"),
    "a level of too many units": (described(levels=constant(-(1 << 31))) + EMPTY_BODY, "out of range"),
    "an offset of too many units": (
        described(OFFSETS, levels=ZERO, offsets=constant(-(1 << 31))) + EMPTY_BODY,
        "out of range",
    ),
    "products of too many units": (
        described(levels=constant(1 << 16), scales=constant(1 << 15)) + EMPTY_BODY,
        "out of range",
    ),
    "products and offsets of too many units": (described(OFFSETS, scales=MANY) + EMPTY_BODY, "out of range"),
    "products shifted too far": (described(shift=16, scales=constant(1 << 15)) + EMPTY_BODY, "out of range"),
    "offsets shifted too far": (
        described(OFFSETS, shift=-16, levels=ZERO, offsets=constant(-(1 << 15))) + EMPTY_BODY,
        "out of range",
    ),
    "the greatest of all": (
        described(shift=16, levels=constant(-(1 << 31)), scales=constant(-(1 << 31))) + EMPTY_BODY,
        "out of range",
    ),
    "too wide a scale": (described(FLOATS, scales=constant(1 << 31), heads=(1, 0)) + EMPTY_BODY, "too wide"),
    "too wide an offset": (described(BOTH, offsets=constant(2), heads=(0, DROPPED)) + EMPTY_BODY, "too wide"),
    "too wide a magnitude": (
        described(FLOATS, scales=constant(1 << 31), heads=(SIGNED | 1, 0)) + EMPTY_BODY,
        "too wide",
    ),
    "a magnitude dropped altogether": (
        described(FLOATS, scales=constant(2), heads=(SIGNED | DROPPED, 0)) + EMPTY_BODY,
        "too wide",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_page_does_not_allow_is_refused(what: str) -> None:
    data, match = REFUSED[what]
    refused(data, match=match)


def test_what_these_are_made_of_is_right() -> None:
    for data, value in (
        (described(), 1.0),
        (described(length=1), 1.0),
        (described(length=8, unit=MOST_UNIT), 2.0**MOST_UNIT),
        (described(unit=LEAST_UNIT), 2.0**LEAST_UNIT),
        (described(OFFSETS, shift=MOST_SHIFT), 65537.0),
        (described(OFFSETS, shift=-MOST_SHIFT, offsets=constant(-1)), -65535.0),
        (described(levels=constant((1 << 32) + 1), scales=MANY), 2.0**31),
        (described(OFFSETS, scales=constant((1 << 31) - 2)), 2.0**31),
        (described(levels=ZERO, scales=constant(-(1 << 31)), shift=16), 0.0),
        (described(scales=ZERO, levels=constant(-(1 << 31))), 0.0),
        (described(FLOATS, scales=word(-1.5)), -1.5),
        (described(BOTH, scales=word(0.5), offsets=constant(0x101), heads=(0, SIGNED | 23)), -1.5),
        (described(FLOATS, scales=constant(1), heads=(DROPPED, 0)), 0.0),
        (described(FLOATS, scales=constant(1), heads=(SIGNED | DROPPED, 0)), 0.0),
    ):
        assert (accepted(data + EMPTY_BODY) == value).all()
        assert not refused_by_the_second_decoder(data + EMPTY_BODY, SMALL, None)


@pytest.mark.parametrize(
    "spec",
    [
        *(SMALL._replace(dtype=dtype) for dtype in ("int32", "bool", "float8_e4m3fn", "complex64")),
        *(SMALL._replace(shape=shape) for shape in ((0,), (0, 8), (6, 0), (6, 8, 0))),
    ],
)
def test_tensors_that_are_not_floats_or_have_no_elements_are_refused(spec: TensorSpec) -> None:
    refused(described(length=1) + EMPTY_BODY, spec, match="cannot have")


@pytest.mark.parametrize(("span", "length"), [((0, 16), 16), ((8, 15), 8), ((4, 12), 3), ((1, 48), 8)])
def test_tiles_that_are_not_of_whole_blocks_are_refused(span: tuple[int, int], length: int) -> None:
    refused(described(length=length) + EMPTY_BODY, match="whole blocks", span=span)
    accepted(described(length=1) + EMPTY_BODY, span=span)


def test_a_tile_without_elements_is_refused() -> None:
    refused(described(length=1) + EMPTY_BODY, match="cannot have", span=(8, 8))


def test_blocks_are_no_longer_than_the_page_says() -> None:
    accepted(described(length=MOST_LENGTH) + EMPTY_BODY, WIDE)
    refused(described(length=2 * MOST_LENGTH) + EMPTY_BODY, WIDE, match="whole blocks")


def test_another_version_is_incompatible() -> None:
    for version in (0, PAYLOAD_VERSION + 1):
        with pytest.raises(Incompatible, match="weight"):
            decode([chunk(described() + EMPTY_BODY, SMALL)._replace(payload_version=version)])


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_values_that_are_not_finite_are_refused(dtype: str) -> None:
    spec = SMALL._replace(dtype=dtype)
    octaves = 16 if dtype == "float16" else 128  # 2^octaves is beyond
    accepted(described(unit=octaves - 1) + EMPTY_BODY, spec)
    refused(described(unit=octaves - 1, levels=constant(2)) + EMPTY_BODY, spec, match="not finite")
    great = word(1.5 * 2.0 ** (octaves - 1))
    accepted(described(FLOATS, scales=great) + EMPTY_BODY, spec)
    refused(described(FLOATS, scales=great, levels=constant(-2)) + EMPTY_BODY, spec, match="not finite")
    refused(described(BOTH, scales=great, offsets=great) + EMPTY_BODY, spec, match="not finite")
    # On its way a value may not be beyond float32 either, whatever its offset makes of it.
    far = described(BOTH, levels=constant(2), scales=word(3e38), offsets=word(-3e38))
    refused(far + EMPTY_BODY, spec, match="not finite")


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0x7FFF8000, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_scales_and_offsets_that_are_not_finite_are_refused(dtype: str, bits: int) -> None:
    spec = SMALL._replace(dtype=dtype)
    for levels in (ZERO, ONE):
        refused(described(FLOATS, levels=levels, scales=constant(bits)) + EMPTY_BODY, spec, match="not finite")
        refused(described(BOTH, levels=levels, offsets=constant(bits)) + EMPTY_BODY, spec, match="not finite")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_values_that_are_not_finite_after_rounding_are_refused(dtype: str) -> None:
    least = {"float16": 65520.0, "bfloat16": 3.3961775292304957e38}[dtype]  # halfway beyond the greatest
    below = {"float16": 65519.99609375, "bfloat16": 3.3961773267654e38}[dtype]
    spec = SMALL._replace(dtype=dtype)
    assert accepted(described(FLOATS, scales=word(below)) + EMPTY_BODY, spec).isfinite().all()
    refused(described(FLOATS, scales=word(least)) + EMPTY_BODY, spec, match="not finite")


MANY_SYMBOLS = b"\1\0\0\1" + write_uint(1 << 24) + b"\0\0" + b"\0\0\1\0" * 32  # a chunk of all, without words
LYING: dict[str, bytes] = {  # with as many elements as there may be
    "levels with a table and an empty body": described(levels=SHIPPED) + EMPTY_BODY,
    "levels of 63 raw bits": described(levels=raw(63)) + EMPTY_BODY,
    "scales with a table and an empty body": described(length=1, scales=SHIPPED) + EMPTY_BODY,
    "scales of 63 raw bits": described(length=1, scales=raw(63)) + EMPTY_BODY,
    "offsets with a table and an empty body": described(BOTH, length=1, offsets=SHIPPED) + EMPTY_BODY,
    "offsets of 63 raw bits": described(BOTH, length=1, offsets=raw(63)) + EMPTY_BODY,
    "a stream of 2^60 bytes": described(levels=SHIPPED) + b"\0" + write_uint(1 << 60) + b"\0",
    "escapes of 2^60 bytes": described(levels=SHIPPED) + b"\0\0" + write_uint(1 << 60),
    "2^60 chunks": described(levels=SHIPPED) + b"\1\0\0" + write_uint(1 << 60),
    "a chunk of all symbols and no words": described(levels=SHIPPED) + MANY_SYMBOLS,
}


@pytest.mark.parametrize("what", LYING)
def test_sizes_that_lie_are_refused_without_the_memory(what: str) -> None:
    refused(LYING[what], HUGE, match="weight")


@pytest.mark.skipif(core() is None, reason="what is written out takes more")
@pytest.mark.parametrize("flags", range(4))
def test_elements_that_cost_nothing_take_about_as_much_memory_as_they_are(flags: int) -> None:
    tracemalloc.start()
    try:
        tensor = accepted(described(flags, length=16) + EMPTY_BODY, HUGE)
        assert tensor.isfinite().all()
        assert tracemalloc.get_traced_memory()[1] < 8 * HUGE.num_elements
    finally:
        tracemalloc.stop()


CHUNKS = {part.tensors[0].name + f" {place}": part for place, part in enumerate(blockwise_chunks())}


@pytest.mark.parametrize("name", CHUNKS)
def test_every_prefix_and_every_longer_payload_is_refused(name: str) -> None:
    whole = CHUNKS[name]
    decode([whole])
    for end in range(len(whole.payload)):
        with pytest.raises(Corrupt):
            decode([whole._replace(payload=whole.payload[:end])])
    with pytest.raises(Corrupt):
        decode([whole._replace(payload=whole.payload + b"\0")])


@pytest.mark.parametrize("name", CHUNKS)
def test_every_flipped_bit_gives_a_named_error_or_finite_values(name: str) -> None:
    whole, num_refused = CHUNKS[name], 0
    start, stop = whole.span or (0, None)
    for bit in range(8 * len(whole.payload)):
        damaged = bytearray(whole.payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            tensors = decode([whole._replace(payload=bytes(damaged))])
        except Corrupt as error:
            num_refused += 1
            assert "cannot be decoded" not in str(error)
        else:
            assert all(tensor.view(-1)[start:stop].isfinite().all() for tensor in tensors.values())
    assert num_refused > 2 * len(whole.payload)


def test_a_payload_of_other_tensors_is_refused() -> None:
    data = described(length=8, levels=raw(2)) + EMPTY_BODY + bytes(12)
    accepted(data)
    for shape in ((8, 6), (6, 7), (7, 8), (6, 16), (3, 8), (5, 8), (48, 1)):
        refused(data, SMALL._replace(shape=shape), match="weight")
    with pytest.raises(Corrupt, match="weight"):
        decode([chunk(data, SMALL)._replace(tensors=(SMALL, SMALL._replace(name="another")))])
