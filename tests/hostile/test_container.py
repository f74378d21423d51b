"""Damaged and lying files: a named error, quickly, without the memory; never a wrong part."""

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.leb128 import write_uint
from fewbits.container import Reader, fingerprint_of
from fewbits.errors import Corrupt, FewbitsError, Incompatible, InvalidArgument, TooLarge, Truncated
from tests.unit.container.samples import BARE_SPECS, BIAS, SEED, build, chunk, small_bare_file, small_file

MODULE = {"specs": BARE_SPECS, "fingerprint": fingerprint_of(BARE_SPECS)}
FILES = {"full": small_file, "bare": small_bare_file, "plain header": lambda: build([chunk(BIAS)])}


def read_all(data: bytes) -> None:
    """Open as `load` would and read every part."""
    with Reader(data, **(MODULE if len(data) > 5 and data[5] & 1 else {})) as reader:
        for number in range(len(reader.parts)):
            reader.read_chunk(number)


def with_check(first: bytes) -> bytes:
    return first + struct.pack("<I", zlib.crc32(first))


def assemble(
    header: bytes,
    index: bytes,
    payloads: bytes = b"",
    *,
    flags: int = 0,
    header_size: int | None = None,
    raw_size: int | None = None,
    index_size: int | None = None,
) -> bytes:
    """A full file with a true checksum over whatever it declares."""
    sizes = write_uint(len(header) if header_size is None else header_size)
    if raw_size is not None:
        flags, sizes = flags | 2, sizes + write_uint(raw_size)
    sizes += write_uint(len(index) if index_size is None else index_size)
    return with_check(b"\x89FWB\x01" + bytes([flags]) + sizes + header + index) + payloads


def header(
    tensors: Any = (("a", 0, (2,)),),
    methods: Any = (("ecsq", 1, {}),),
    seed: Any = SEED,
    rate_weight: Any = None,
    losses: Any = None,
    metadata: Any = None,
) -> bytes:
    elements = [tensors, methods, seed, rate_weight, losses, metadata]
    return cbor2.dumps(elements, canonical=True)


def entry(what: int, *fields: int, payload: bytes = b"x") -> bytes:
    return b"".join(map(write_uint, (what, *fields, len(payload)))) + struct.pack("<I", zlib.crc32(payload))


def index(*entries: bytes) -> bytes:
    return write_uint(len(entries)) + b"".join(entries)


WHOLE = index(entry(0))


def test_the_attacks_start_from_a_file_that_is_read() -> None:
    read_all(assemble(header(), WHOLE, b"x"))
    raw = header()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    read_all(assemble(compressor.compress(raw) + compressor.flush(), WHOLE, b"x", raw_size=len(raw)))


@pytest.mark.parametrize("kind", FILES)
def test_every_truncation_is_truncated(kind: str) -> None:
    data = FILES[kind]()
    for size in range(len(data)):
        with pytest.raises(Truncated):
            read_all(data[:size])
        with pytest.raises(Truncated):
            Reader.peek(data[:size])


@pytest.mark.parametrize("kind", FILES)
def test_every_flipped_bit_is_refused(kind: str) -> None:
    data = FILES[kind]()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Corrupt, Truncated, TooLarge, Incompatible)):
            read_all(bytes(damaged))
        with pytest.raises((Corrupt, Truncated, TooLarge, Incompatible)):  # noqa: SIM117
            with Reader.peek(bytes(damaged)) as reader:
                reader.check()


@pytest.mark.parametrize("kind", FILES)
def test_every_flipped_payload_bit_is_corrupt_and_only_its_part_is_lost(kind: str) -> None:
    data = FILES[kind]()
    with Reader.peek(data) as reader:
        parts, bare = reader.parts, reader.bare
    for number, part in enumerate(parts):
        for bit in range(8 * part.offset, 8 * (part.offset + part.size)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Corrupt, match="byte offset"):
                read_all(bytes(damaged))
            if bare:
                continue
            with Reader(bytes(damaged)) as reader:
                for other in range(len(parts)):
                    if other != number:
                        reader.read_chunk(other)
                with pytest.raises(Corrupt, match=f"byte offset {part.offset} "):
                    reader.read_chunk(number)
                with pytest.raises(Corrupt):
                    reader.check()


@pytest.mark.parametrize("kind", FILES)
def test_bytes_after_the_end_are_corrupt(kind: str) -> None:
    for tail in (b"\0", b"\xff", bytes(1000)):
        with pytest.raises(Corrupt, match="follow"):
            read_all(FILES[kind]() + tail)


def test_damage_names_the_tensor() -> None:
    data = small_file()
    at = data.index(b"a weight")
    with pytest.raises(Corrupt, match=f"'weight' at byte offset {at} "):
        read_all(data[:at] + b"A" + data[at + 1 :])


@given(st.binary(max_size=200))
def test_any_bytes_after_a_good_start_are_refused(tail: bytes) -> None:
    for start in (b"", b"\x89FWB\x01\x00", b"\x89FWB\x01\x01", b"\x89FWB\x01\x02"):
        with pytest.raises(FewbitsError):
            read_all(start + tail)


@given(st.binary(max_size=60), st.binary(max_size=40))
def test_any_header_and_index_with_a_true_checksum_give_a_named_error_or_parts(head: bytes, tail: bytes) -> None:
    for data in (
        assemble(head, WHOLE, b"x"),
        assemble(header(), tail, b"x"),
        assemble(head, tail, raw_size=60),
    ):
        try:
            read_all(data)
        except FewbitsError as error:
            assert not isinstance(error, InvalidArgument)


def text(encoded: bytes) -> bytes:
    """A header whose first tensor's name `a` is replaced by other CBOR."""
    return header().replace(b"\x61a", encoded)


DEEP = {"k": 0}
for _ in range(100):
    DEEP = {"k": DEEP}

BROKEN_HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "a name that is not UTF-8": text(b"\x61\xff"),
    "a name with a surrogate": text(b"\x63\xed\xa0\x80"),
    "a name of bytes": text(b"\x41a"),
    "a name in another form": text(b"\x78\x01a"),
    "an indefinite name": text(b"\x7f\x61a\xff"),
    "an indefinite array": b"\x9f" + header()[1:] + b"\xff",
    "five elements": b"\x85" + header()[1:-1],
    "seven elements": b"\x87" + header()[1:] + b"\xf6",
    "a byte after it": header() + b"\0",
    "a map": b"\xa0",
    "an integer in another form": header().replace(b"\x07\xf6", b"\x18\x07\xf6"),
    "a tag": b"\xd8\x1c" + header(),
    "a huge bigfloat": header(methods=(("ecsq", 1, {"k": 1}),)).replace(
        b"\x61k\x01", b"\x61k\xc5\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x03"
    ),
    "a shared reference": header(methods=(("ecsq", 1, {"k": 1}),)).replace(b"\x61k\x01", b"\x61k\xd8\x1d\x00"),
    "deep nesting": header(methods=(("ecsq", 1, DEEP),)),
    "very deep nesting": b"\x81" * 1_000_000 + b"\x00",
    "a duplicate key": header(methods=(("ecsq", 1, {"k": 1, "l": 1}),)).replace(b"\x61l", b"\x61k"),
    "keys out of order": header(methods=(("ecsq", 1, {"k": 1, "l": 1}),))
    .replace(b"\x61k", b"\x61z")
    .replace(b"\x61l", b"\x61a"),
    "a key that is not text": header(methods=(("ecsq", 1, {"k": {1: 2}}),)),
    "a config that is no map": header(methods=(("ecsq", 1, []),)),
    "a version that is text": header(methods=(("ecsq", "1", {}),)),
    "a negative version": header(methods=(("ecsq", -1, {}),)),
    "a method entry that is no array": header(methods=(1,)),
    "methods that are no array": header(methods=None),
    "tensors that are no array": header(tensors={}),
    "a tensor entry that is no array": header(tensors=(None,)),
    "a tensor entry of two": header(tensors=(("a", 0),)),
    "duplicate names": header(tensors=(("a", 0, (2,)), ("a", 0, (2,)))),
    "an alias with a taken name": header(tensors=(("a", 0, (2,)), ("a", 0, True))),
    "a reserved dtype 4": header(tensors=(("a", 4, (2,)),)),
    "a reserved dtype 11": header(tensors=(("a", 11, (2,)),)),
    "an unknown dtype": header(tensors=(("a", 24, (2,)),)),
    "a boolean dtype": header(tensors=(("a", False, (2,)),)),
    "a negative dimension": header(tensors=(("a", 0, (-2,)),)),
    "a fractional dimension": header(tensors=(("a", 0, (2.0,)),)),
    "a boolean dimension": header(tensors=(("a", 0, (True,)),)),
    "an alias of itself": header(tensors=(("a", 0, (2,)), ("b", 1, True))),
    "an alias of a later tensor": header(tensors=(("b", 1, True), ("a", 0, (2,)))),
    "an alias of an alias": header(tensors=(("a", 0, (2,)), ("b", 0, True), ("c", 1, True))),
    "an alias of a negative position": header(tensors=(("a", 0, (2,)), ("b", -1, True))),
    "a negative seed": header(seed=-1),
    "a seed beyond 64 bits": header(seed=2**64),
    "a float seed": header(seed=1.0),
    "an integer rate weight": header(rate_weight=1),
    "a rate weight that is no number": header(rate_weight=float("nan")),
    "a negative rate weight": header(rate_weight=-1.0),
    "an integer error": header(losses=((0, 1),)),
    "fractional bits": header(losses=((0.0, 1.0),)),
    "undefined": header().replace(b"\x07\xf6", b"\x07\xf7"),
    "a method that no part uses": header(methods=(("ecsq", 1, {}), ("lossless", 1, {}))),
    "an infinite rate weight": header(rate_weight=float("inf")),
    "too few losses": header(losses=()),
    "a null loss of a stored tensor": header(losses=(None,)),
    "a loss of an alias": header(tensors=(("a", 0, (2,)), ("b", 0, True)), losses=((0.0, 1),) * 2),
    "a negative error": header(losses=((-1.0, 1),)),
    "an error that is no number": header(losses=((float("nan"), 1),)),
    "negative bits": header(losses=((0.0, -1),)),
    "a note that is no text": header(losses=((0.0, 1, 2),)),
    "losses that are no array": header(losses={}),
    "metadata of numbers": header(metadata={"a": 1}),
    "metadata that is no map": header(metadata=[]),
}


@pytest.mark.parametrize("what", BROKEN_HEADERS)
def test_a_broken_header_with_a_true_checksum_is_corrupt(what: str) -> None:
    assert BROKEN_HEADERS[what] != header()
    with pytest.raises(Corrupt):
        read_all(assemble(BROKEN_HEADERS[what], WHOLE, b"x"))


TWO = header(tensors=(("a", 0, (2,)), ("b", 0, (6,))))
BROKEN_INDEXES: dict[str, tuple[bytes, bytes]] = {
    "nothing": (header(), b""),
    "no part": (header(), index()),
    "a part too many": (header(), index(entry(0), entry(0))),
    "a part that is not there": (header(), write_uint(2) + entry(0)),
    "2^63 parts": (header(), write_uint(2**63) + entry(0)),
    "a byte after it": (header(), WHOLE + b"\0"),
    "a reserved kind": (header(), index(entry(3))),
    "an unknown method": (header(), index(entry(4))),
    "an integer in another form": (header(), b"\x81\x00" + entry(0)),
    "a tile of nothing": (header(), index(entry(1, 0))),
    "a tile beyond the tensor": (header(), index(entry(1, 3))),
    "tiles beyond the tensor": (header(), index(entry(1, 1), entry(1, 2))),
    "tiles that end early": (header(), index(entry(1, 1))),
    "tiles broken by a whole part": (TWO, index(entry(1, 1), entry(0), entry(1, 1))),
    "tiles broken by a group": (TWO, index(entry(1, 1), entry(2, 64, 1, 1), entry(1, 1))),
    "tiles of two methods": (
        header(methods=(("ecsq", 1, {}), ("lossless", 1, {}))),
        index(entry(1, 1), entry(5, 1)),
    ),
    "a tile of an empty tensor": (header(tensors=(("a", 0, (0,)),)), index(entry(1, 1))),
    "a group with a hole": (TWO, index(entry(2, 64, 0, 1))),
    "a group of a tensor that is not there": (TWO, index(entry(2, 64, 0, 3))),
    "a group that skips all": (TWO, index(entry(2, 64, 2, 1))),
    "a group of a far tensor": (TWO, index(entry(2, 64, 2**64 - 1, 2**64 - 1))),
    "a run that takes nothing": (TWO, index(entry(2, 64, 0, 0))),
    "a second run that skips nothing": (TWO, index(entry(2, 128, 0, 1, 0, 1))),
    "two groups of one tensor": (TWO, index(entry(2, 64, 0, 2), entry(2, 64, 0, 1))),
    "a group of an alias": (header(tensors=(("a", 0, (2,)), ("b", 0, True))), index(entry(2, 64, 0, 2))),
    "a group of what is left, which is nothing": (TWO, index(entry(2, 64, 0, 2), entry(2, 0))),
    "two groups of all": (TWO, index(entry(2, 0), entry(2, 0))),
    "a group under a bound that nothing is under": (TWO, index(entry(2, 1), entry(0), entry(0))),
    "a group of all beside a whole part": (TWO, index(entry(2, 0), entry(0))),
    "2^40 runs": (TWO, index(entry(2, 2**46, 0, 2))),
}


@pytest.mark.parametrize("what", BROKEN_INDEXES)
def test_a_broken_index_with_a_true_checksum_is_corrupt(what: str) -> None:
    with pytest.raises(Corrupt):
        read_all(assemble(*BROKEN_INDEXES[what], b"xxx"))


def bare(methods: bytes, entries: bytes, payloads: bytes) -> bytes:
    declared = methods + entries
    first = b"\x89FWB\x01\x01" + struct.pack("<I", int(MODULE["fingerprint"])) + write_uint(SEED)
    return with_check(first + write_uint(len(declared)) + declared + payloads)


def test_a_bare_file_with_an_unknown_method_names_its_code() -> None:
    entries = b"\x01\x02\x00\x01"  # one part: a group of all tensors, one byte
    read_all(bare(b"\x01\x01\x01", entries, b"x"))
    with pytest.raises(Incompatible, match="code 99"):
        read_all(bare(b"\x01\x63\x01", entries, b"x"))
    with pytest.raises(Corrupt):
        read_all(bare(b"\xff\xff\xff\xff\x01\x01\x01", entries, b"x"))
    with pytest.raises(Corrupt, match="follow"):
        read_all(bare(b"\x01\x01\x01", entries, b"xx"))
    with pytest.raises(Truncated):
        read_all(bare(b"\x01\x01\x01", entries, b""))


def test_unknown_formats_and_flags_are_incompatible_and_contradicting_flags_corrupt() -> None:
    data = small_file()
    for number in (0, 2, 255):
        with pytest.raises(Incompatible):
            read_all(data[:4] + bytes([number]) + data[5:])
    for bit in range(2, 8):
        with pytest.raises(Incompatible):
            read_all(data[:5] + bytes([data[5] | 1 << bit]) + data[6:])
    with pytest.raises(Corrupt):
        read_all(data[:5] + b"\x03" + data[6:])


CAP = 1 << 26
bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
LISTS = bomb.compress(b"\x9a" + (CAP - 5).to_bytes(4, "big") + b"\x80" * (CAP - 5)) + bomb.flush()
small = zlib.compressobj(9, zlib.DEFLATED, -15)
SMALL = small.compress(bytes(1000)) + small.flush()

LYING: dict[str, tuple[Callable[[], bytes], type[FewbitsError]]] = {
    "too many dimensions": (lambda: assemble(header(tensors=(("a", 0, (1,) * 65),)), WHOLE, b"x"), TooLarge),
    "too many bytes": (lambda: assemble(header(tensors=(("a", 0, (2**32, 2**29)),)), WHOLE, b"x"), TooLarge),
    "too many bytes beside an empty dimension": (
        lambda: assemble(header(tensors=(("a", 0, (0, 2**32, 2**29)),)), WHOLE, b"x"),
        TooLarge,
    ),
    "too many groups": (lambda: assemble(header(), index(*[entry(2, 0)] * 1025), b"x" * 1025), TooLarge),
    "a header beyond the cap": (lambda: assemble(header(), WHOLE, header_size=CAP + 1), TooLarge),
    "a header of 2^63 bytes": (lambda: assemble(header(), WHOLE, header_size=2**63), TooLarge),
    "a header of the cap": (lambda: assemble(header(), WHOLE, header_size=CAP), Truncated),
    "an index beyond the cap": (lambda: assemble(header(), WHOLE, index_size=CAP + 1), TooLarge),
    "an index of the cap": (lambda: assemble(header(), WHOLE, index_size=CAP), Truncated),
    "an inflated header beyond the cap": (lambda: assemble(SMALL, WHOLE, raw_size=CAP + 1), TooLarge),
    "an inflated header of the cap": (lambda: assemble(SMALL, WHOLE, raw_size=CAP), Corrupt),
    "an inflated header of one byte less": (lambda: assemble(SMALL, WHOLE, raw_size=999), Corrupt),
    "an inflated header of one byte more": (lambda: assemble(SMALL, WHOLE, raw_size=1001), Corrupt),
    "a deflate stream with bytes after it": (lambda: assemble(SMALL + b"\0", WHOLE, raw_size=1000), Corrupt),
    "a deflate stream that is cut": (lambda: assemble(SMALL[:-1], WHOLE, raw_size=1000), Corrupt),
    "no deflate stream": (lambda: assemble(b"\xff" * 9, WHOLE, raw_size=1000), Corrupt),
    "a payload of 2^64 - 1 bytes": (
        lambda: assemble(header(), index(write_uint(0) + write_uint(2**64 - 1) + bytes(4)), b"x"),
        Truncated,
    ),
    "a tensor of 2^62 elements": (
        lambda: assemble(header(tensors=(("a", 0, (2**62,)),)), WHOLE, b"x"),
        TooLarge,
    ),
    "a thousand copies of a tensor": (
        lambda: assemble(
            header(tensors=(("a", 9, (2**24,)), *((f"b{i}", 0, False) for i in range(1000)))), WHOLE, b"x"
        ),
        TooLarge,
    ),
    "a CBOR array of 2^32 items": (lambda: assemble(b"\x9a\xff\xff\xff\xff", WHOLE, b"x"), Corrupt),
    "a CBOR text of 2^63 bytes": (lambda: assemble(b"\x81\x7b\x7f" + b"\xff" * 7, WHOLE, b"x"), Corrupt),
}


@pytest.mark.parametrize("what", LYING)
def test_sizes_that_lie_are_refused_quickly_and_without_the_memory(what: str) -> None:
    make, error = LYING[what]
    data = make()
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(error):
            read_all(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # bytes
    assert time.perf_counter() - start < 2


def test_a_header_that_inflates_to_millions_of_lists_is_too_large() -> None:
    data = assemble(LISTS, WHOLE, b"x", raw_size=CAP)
    assert len(data) < 100_000
    start = time.perf_counter()
    with pytest.raises(TooLarge, match="items"):
        read_all(data)
    assert time.perf_counter() - start < 2  # measured: 0.1 s


def test_groups_claim_what_earlier_ones_left() -> None:
    tensors = tuple((name, 0, (size,)) for name, size in zip("abcdefg", (9, 1, 9, 2, 9, 1, 9), strict=True))
    entries = index(entry(2, 1), entry(2, 128, 1, 1, 1, 2), entry(2, 5))
    data = assemble(header(tensors=tensors), entries, b"xxx")
    with Reader(data) as reader:
        assert [part.tensors for part in reader.parts] == [(1, 5), (2, 4, 6), (0, 3)]
