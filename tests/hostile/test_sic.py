"""Payloads of `sic` that lie: each is refused by a named error, before memory or time are taken for it."""

import time
import tracemalloc

import numpy as np
import pytest

from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.encode import decode
from fewbits.errors import Corrupt
from fewbits.methods.sic.payload import MOST_CODE, MOST_MODELS, MOST_SCALE_CODE, PAYLOAD_VERSION
from fewbits.native import core
from fewbits.tensors import LOSSY_DTYPES
from tests.golden.handmade_sic import Described, sic_chunk

SMALL = TensorSpec("weight", "float32", (6, 8))
HUGE = TensorSpec("weight", "float32", (1 << 12, 1 << 12))  # as many elements as a part may have
WIDE = TensorSpec("weight", "float32", (1, 1 << 24))
MEMORY, SECONDS = 1 << 24, 1.0
EMPTY_BODY = bytes(3)
SHIPPED = bytes([32])
NO_TRELLIS = 6


def constant(value: int) -> bytes:
    """A model of one integer, which takes no bits."""
    return bytes([193, 0]) + write_sint(value)


ZERO = constant(0)


def raw(bits: int) -> bytes:
    return bytes([193, bits]) + write_sint(0)


def described(
    *,
    paths: int = 0,
    classes: bytes = bytes(3),
    corrected: int = 0,
    corrections: bytes = b"",
    levels: bytes = b"\0" + ZERO,
) -> bytes:
    """What stands before the models of side arrays; `levels` begin with how many models there are, less one."""
    return bytes([paths]) + classes + levels[:1] + write_uint(corrected) + corrections + levels[1:]


def payload(
    head: bytes | None = None, *, side_models: bytes = ZERO + ZERO, side: bytes = EMPTY_BODY, main: bytes = EMPTY_BODY
) -> bytes:
    return (described() if head is None else head) + side_models + write_uint(len(side)) + side + main


def class_of(scale_code: int, model_code: int) -> bytes:
    """One class of rows."""
    return b"\0" + write_sint(scale_code) + write_sint(model_code)


def counted(field: int, count: int) -> bytes:
    """A description whose number of classes (0) or models (1) is this, and so much of both."""
    classes = write_uint(count - 1) + bytes(2 * min(count, 5000)) if field == 0 else bytes(3)
    models = write_uint(count - 1) + b"\0" + ZERO * min(count, 5000) if field == 1 else b"\0\0" + ZERO
    return b"\0" + classes + models


def refused(data: bytes, spec: TensorSpec, *, match: str = "weight", span: tuple[int, int] | None = None) -> None:
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(Corrupt, match=match) as caught:
            decode([Chunk("sic", PAYLOAD_VERSION, {}, 7, (spec,), data, span)])
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "'weight'" in message and message.endswith(".") and "cannot be decoded" not in message


TWO = b"\1" + bytes(4)  # classes, both of codes 0
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing at all": (b"", "runs past"),
    "paths only": (b"\0", "weight"),
    "128 paths": (payload(described(paths=7)), "paths"),
    "paths 255": (payload(described(paths=255)), "paths"),
    "4097 classes": (payload(counted(0, MOST_MODELS + 1)), "classes"),
    "2^60 classes": (payload(counted(0, 1 << 60)), "classes"),
    "4096 classes and no more": (b"\0" + write_uint(MOST_MODELS - 1), "weight"),
    "4097 models": (payload(counted(1, MOST_MODELS + 1)), "too many models"),
    "2^60 models": (payload(counted(1, 1 << 60)), "too many models"),
    "4096 models and no more": (bytes(4) + write_uint(MOST_MODELS - 1) + b"\0", "weight"),
    "too great a row scale": (payload(described(classes=class_of(MOST_SCALE_CODE + 1, 0))), "class of rows"),
    "too small a row scale": (payload(described(classes=class_of(-MOST_SCALE_CODE - 1, 0))), "class of rows"),
    "a row scale of 2^32": (payload(described(classes=class_of(1 << 32, 0))), "class of rows"),
    "too great a model code": (payload(described(classes=class_of(0, MOST_CODE + 1))), "class of rows"),
    "too small a model code": (payload(described(classes=class_of(0, -MOST_CODE - 1))), "class of rows"),
    "the least model code there is": (payload(described(classes=class_of(0, -(1 << 63)))), "class of rows"),
    "more corrections than models": (payload(described(corrected=2, corrections=bytes(8))), "corrections"),
    "2^60 corrections": (payload(described(corrected=1 << 60)), "corrections"),
    "corrections cut short": (described(corrected=1, corrections=bytes(3))[:8], "runs past"),
    "several classes of levels": (payload(described(levels=bytes([0, 195, 0]) + ZERO * 3)), "model"),
    "an unknown model": (payload(described(levels=bytes([0, 200]))), "model"),
    "a model within a model": (payload(described(levels=bytes([0]) + bytes([194, 1, 0]) * 900 + SHIPPED)), "weight"),
    "a model cut short": (described(levels=bytes([0, 193])), "weight"),
    "no models of side arrays": (described(), "weight"),
    "several classes of column steps": (payload(side_models=bytes([195, 0]) + ZERO * 4), "model"),
    "too great a column step": (payload(side_models=constant(MOST_SCALE_CODE + 1) + ZERO), "a step out of range"),
    "too small a column step": (payload(side_models=constant(-MOST_SCALE_CODE - 1) + ZERO), "a step out of range"),
    "a column step of 2^32": (payload(side_models=constant(1 << 32) + ZERO), "a step out of range"),
    "too great a column code": (payload(side_models=ZERO + constant(MOST_CODE + 1)), "column's code"),
    "too small a column code": (payload(side_models=ZERO + constant(-MOST_CODE - 1)), "column's code"),
    "a column code of 2^32": (payload(side_models=ZERO + constant(1 << 32)), "column's code"),
    "a row of no class": (payload(described(classes=TWO), side_models=ZERO + ZERO + constant(2)), "of no class"),
    "a row of class -1": (payload(described(classes=TWO), side_models=ZERO + ZERO + constant(-1)), "of no class"),
    "a row of class 2^32": (
        payload(described(classes=TWO), side_models=ZERO + ZERO + constant(1 << 32)),
        "of no class",
    ),
    "no side body": (described() + ZERO + ZERO, "weight"),
    "a side body past the end": (described() + ZERO + ZERO + write_uint(7) + EMPTY_BODY * 2, "runs past"),
    "a side body of 2^60 bytes": (described() + ZERO + ZERO + write_uint(1 << 60) + EMPTY_BODY * 2, "runs past"),
    "a side body of no bytes": (payload(side=b""), "layout"),
    "a side body of another layout": (payload(side=b"\2\0\0"), "layout"),
    "bytes left over in the side body": (payload(side=EMPTY_BODY + b"\0"), "left over"),
    "too few raw bits of column steps": (payload(side_models=raw(9) + ZERO, side=EMPTY_BODY + bytes(8)), "raw bits"),
    "no stream of column codes": (payload(side_models=ZERO + SHIPPED), "single-lane"),
    "no main body": (payload(main=b""), "layout"),
    "bytes left over at the end": (payload(main=EMPTY_BODY + b"\0"), "left over"),
    "too few raw bits of levels": (payload(described(levels=b"\0" + raw(3)), main=EMPTY_BODY + bytes(17)), "raw bits"),
    "too many raw bits of levels": (
        payload(described(levels=b"\0" + raw(3)), main=EMPTY_BODY + bytes(19)),
        "left over",
    ),
    "padding that is not zero": (
        payload(described(classes=TWO), side_models=ZERO + ZERO + raw(1), side=EMPTY_BODY + b"\x40"),
        "padding",
    ),
    "no stream of levels": (payload(described(levels=b"\0" + SHIPPED)), "single-lane"),
    "no chunks of levels": (payload(described(levels=b"\0" + SHIPPED), main=b"\1\0\0\0"), "chunks"),
    "levels of a model that has none": (
        payload(described(levels=b"\1" + raw(3) + raw(5)), main=EMPTY_BODY + bytes(30)),
        "raw bits|left over",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_page_does_not_allow_is_refused(what: str) -> None:
    data, match = REFUSED[what]
    refused(data, SMALL, match=match)


def test_what_these_are_made_of_is_right() -> None:
    for head, side_models in (
        (described(paths=5), ZERO + ZERO),
        (described(paths=NO_TRELLIS, classes=TWO), ZERO * 3),
        (described(classes=class_of(MOST_SCALE_CODE, MOST_CODE)), constant(-MOST_SCALE_CODE) + constant(-MOST_CODE)),
        (described(corrected=1, corrections=bytes(4)), constant(-7) + constant(MOST_CODE)),
        (counted(0, MOST_MODELS), ZERO * 3),
        (counted(1, MOST_MODELS), ZERO * 2),
    ):
        (tensor,) = decode(
            [Chunk("sic", PAYLOAD_VERSION, {}, 7, (SMALL,), payload(head, side_models=side_models))]
        ).values()
        assert tensor.shape == SMALL.shape and tensor.isfinite().all()


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        (SMALL._replace(dtype="int32"), "dtype int32"),
        (SMALL._replace(dtype="bool"), "dtype bool"),
        (SMALL._replace(dtype="float8_e4m3fn"), "dtype float8"),
        (SMALL._replace(dtype="complex64"), "dtype complex64"),
        (SMALL._replace(shape=()), "cannot have"),
        (SMALL._replace(shape=(48,)), "cannot have"),
        (SMALL._replace(shape=(0, 8)), "cannot have"),
        (SMALL._replace(shape=(6, 0)), "cannot have"),
        (SMALL._replace(shape=(6, 8, 0)), "cannot have"),
    ],
)
def test_tensors_that_are_no_matrix_of_floats_are_refused(spec: TensorSpec, match: str) -> None:
    refused(payload(), spec, match=match)


@pytest.mark.parametrize("span", [(0, 7), (8, 15), (1, 9), (4, 12), (3, 48), (0, 0)])
def test_tiles_that_are_not_of_whole_rows_are_refused(span: tuple[int, int]) -> None:
    refused(payload(), SMALL, match="whole rows|cannot have", span=span)


@pytest.mark.parametrize("paths", [0, NO_TRELLIS])
@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_values_that_are_not_finite_are_refused(dtype: str, paths: int) -> None:
    limit = 16 if dtype == "float16" else 128  # 2^limit is beyond
    fine, far = (described(paths=paths, levels=b"\0" + constant(level)) for level in (7, 8))
    steps = constant(8 * (limit - 3)) + ZERO
    spec = SMALL._replace(dtype=dtype)
    decode([Chunk("sic", PAYLOAD_VERSION, {}, 7, (spec,), payload(fine, side_models=steps))])
    refused(payload(far, side_models=steps), spec, match="not finite")
    # On its way a value may not be beyond float32 either, whatever its row's scale makes of it.
    small = described(paths=paths, classes=class_of(-999, 0), levels=b"\0" + constant(1000))
    refused(payload(small, side_models=constant(1000) + ZERO), spec, match="not finite")


MANY = b"\1\0\0\1" + write_uint(1 << 24) + b"\0\0" + b"\0\0\1\0" * 32  # a chunk of all symbols, without words
LYING: dict[str, bytes] = {  # with as many elements as there may be
    "levels with a table and an empty body": payload(described(levels=b"\0" + SHIPPED)),
    "levels of 63 raw bits": payload(described(levels=b"\0" + raw(63))),
    "a stream of 2^60 bytes": payload(described(levels=b"\0" + SHIPPED), main=b"\0" + write_uint(1 << 60) + b"\0"),
    "escapes of 2^60 bytes": payload(described(levels=b"\0" + SHIPPED), main=b"\0\0" + write_uint(1 << 60)),
    "2^60 chunks": payload(described(levels=b"\0" + SHIPPED), main=b"\1\0\0" + write_uint(1 << 60)),
    "a chunk of all symbols and no words": payload(described(levels=b"\0" + SHIPPED), main=MANY),
    "column steps of 63 raw bits": payload(side_models=raw(63) + ZERO),
    "a stream of side arrays of 2^60 bytes": payload(
        side_models=SHIPPED + ZERO, side=b"\0" + write_uint(1 << 60) + b"\0"
    ),
    "a chunk of side arrays of all symbols and no words": payload(side_models=SHIPPED + ZERO, side=MANY),
    "4096 models with tables": payload(bytes(4) + write_uint(MOST_MODELS - 1) + b"\0" + SHIPPED * MOST_MODELS),
}


@pytest.mark.parametrize("what", LYING)
def test_sizes_that_lie_are_refused_without_the_memory(what: str) -> None:
    refused(LYING[what], HUGE)


@pytest.mark.parametrize("which", ["column steps", "column codes"])
def test_side_arrays_of_too_many_symbols_are_refused_before_they_take_memory(which: str) -> None:
    refused(payload(side_models=SHIPPED + ZERO if which == "column steps" else ZERO + SHIPPED), WIDE, match="too short")


@pytest.mark.skipif(core() is None, reason="what is written out takes more, and minutes")
def test_codes_that_all_differ_take_no_more_memory_than_the_elements() -> None:
    rows, columns = HUGE.shape
    spread = 2 * MOST_CODE // rows
    classes = b"".join(write_sint(0) + write_sint(spread * k - MOST_CODE) for k in range(rows))
    head = b"\0" + write_uint(rows - 1) + classes + write_uint(MOST_MODELS - 1) + b"\0" + ZERO * MOST_MODELS
    codes = np.arange(columns) * 16
    bits = np.unpackbits(codes.astype("<u4").view(np.uint8).reshape(columns, 4), axis=1, bitorder="little")[:, :17]
    packed = np.packbits(bits, bitorder="little").tobytes()
    of_rows = np.unpackbits(np.arange(rows).astype("<u2").view(np.uint8).reshape(rows, 2), axis=1, bitorder="little")
    packed += np.packbits(of_rows[:, :12], bitorder="little").tobytes()
    side_models = ZERO + bytes([193, 17]) + write_sint(-MOST_CODE // 2) + raw(12)
    data = payload(head, side_models=side_models, side=EMPTY_BODY + packed)
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        tensor = decode([Chunk("sic", PAYLOAD_VERSION, {}, 7, (HUGE,), data)])["weight"]
        assert tensor.abs().min() == tensor.abs().max() == 0.25
        assert tracemalloc.get_traced_memory()[1] < 6 * HUGE.num_elements
    finally:
        tracemalloc.stop()


MIXED = ((-3, -2), (0, 0), (5, 1))
WHOLE = {
    paths: sic_chunk([Described("weight", "float32", (6, 8), paths, MIXED, (-2, 8), (-9, 9), ((-64, 1, 2, 3),))])
    for paths in (0, 1, 8)
}


@pytest.mark.parametrize("paths", WHOLE)
def test_every_prefix_and_every_longer_payload_is_refused(paths: int) -> None:
    chunk = WHOLE[paths]
    decode([chunk])
    for end in range(len(chunk.payload)):
        with pytest.raises(Corrupt, match="weight"):
            decode([chunk._replace(payload=chunk.payload[:end])])
    refused(chunk.payload + b"\0", SMALL)


@pytest.mark.parametrize("paths", WHOLE)
def test_every_flipped_bit_gives_a_named_error_or_finite_values(paths: int) -> None:
    chunk, num_refused = WHOLE[paths], 0
    for bit in range(8 * len(chunk.payload)):
        damaged = bytearray(chunk.payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            tensor = decode([chunk._replace(payload=bytes(damaged))])["weight"]
        except Corrupt as error:
            num_refused += 1
            assert "cannot be decoded" not in str(error)
        else:
            assert tensor.shape == (6, 8) and tensor.isfinite().all()
    assert num_refused > 2 * len(chunk.payload)


def test_a_payload_of_other_tensors_is_refused() -> None:
    chunk = WHOLE[1]
    for shape in ((8, 6), (6, 7), (7, 8), (6, 9), (3, 16), (48, 1), (1, 48)):
        refused(chunk.payload, SMALL._replace(shape=shape))
    with pytest.raises(Corrupt, match="another"):
        decode([chunk._replace(tensors=(SMALL, SMALL._replace(name="another")))])
