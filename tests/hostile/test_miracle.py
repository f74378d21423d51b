"""Payloads of `miracle` that lie: each is refused by a named error, before memory or time are taken for it."""

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from fewbits.channel.index_code import decode_indices, encode_indices
from fewbits.chunk import Chunk, TensorSpec
from fewbits.coder.bits import pack_raw, raw_size
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.encode import decode
from fewbits.errors import Corrupt
from fewbits.methods.miracle.layout import MOST_SHARED, Piece
from fewbits.methods.miracle.payload import MOST_BITS, MOST_WIDTH, Part, decode_part, encode_part
from fewbits.quantize.parameter_decoders import MOST_CODE

OWN, SHARED, LATTICE, CODED = 0, 1, 2, 4
PLAIN, ZERO = bytes([0]) + write_sint(-16), bytes([4])  # descriptions: of prior 1/2; of zeros
SMALL = TensorSpec("weight", "float32", (6, 8))
HUGE = TensorSpec("weight", "float32", (1 << 12, 1 << 12))  # as many elements as a part may have
MEMORY, SECONDS = 1 << 24, 1.0


def head(first: int, bits: int, num_blocks: int, described: bytes = PLAIN) -> bytes:
    return bytes([first, bits]) + write_uint(num_blocks) + described


def live(*sizes: int) -> bytes:
    return bytes([1]) + b"".join(map(write_uint, sizes)) + write_sint(-16)


def shared(share: int) -> bytes:
    return bytes([2]) + write_uint(share) + write_sint(-16)


def refused(payload: bytes, spec: TensorSpec, *, match: str = "weight") -> None:
    part = Chunk("miracle", 1, {}, 7, (spec,), payload)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(Corrupt, match=match):
            decode([part])
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


FOUR = bytes(4)  # numbers of four blocks of 8 bits

REFUSED: dict[str, bytes] = {
    "nothing at all": b"",
    "one byte": bytes([OWN]),
    "no blocks": bytes([OWN, 8]),
    "no description": head(OWN, 8, 4, b""),
    "kind 3": head(3, 8, 4) + FOUR,
    "bit 3": head(8, 8, 4) + FOUR,
    "bit 7": head(128, 8, 4) + FOUR,
    "shared candidates with coded numbers": head(SHARED | CODED, 8, 4) + FOUR,
    "a lattice with coded numbers": head(LATTICE | CODED, 8, 4) + FOUR,
    "no bits": head(OWN, 0, 4),
    "31 bits": head(LATTICE, MOST_BITS + 1, 4) + bytes(16),
    "255 bits": head(OWN, 255, 4) + bytes(128),
    "no blocks for values": head(OWN, 8, 0),
    "blocks for no values": head(OWN, 8, 4, ZERO) + FOUR,
    "more blocks than values": head(OWN, 8, 49) + bytes(49),
    "more blocks than shared values": head(OWN, 8, 25, shared(2)) + bytes(25),
    "more blocks than live values": head(OWN, 8, 5, live(2, 2)) + bytes(5),
    "2^60 blocks": head(OWN, 8, 1 << 60) + FOUR,
    "2^64 - 1 blocks": head(OWN, 1, (1 << 64) - 1) + FOUR,
    "2^60 blocks, coded": head(CODED, 8, 1 << 60) + FOUR,
    "blocks in more than 64 bits": bytes([OWN, 8]) + b"\xff" * 10 + PLAIN + FOUR,
    "one number too few": head(OWN, 8, 4) + bytes(3),
    "one number too many": head(OWN, 8, 4) + bytes(5),
    "padding that is not zero": head(OWN, 3, 1) + b"\x08",
    "flags 8": head(OWN, 8, 4, bytes([8]) + write_sint(0)) + FOUR,
    "zeros and live sizes": head(OWN, 8, 4, bytes([5, 6, 8]) + write_sint(0)) + FOUR,
    "zeros that share": head(OWN, 8, 4, bytes([6, 2]) + write_sint(0)) + FOUR,
    "more live rows than rows": head(OWN, 8, 4, live(7, 8)) + FOUR,
    "more live columns than columns": head(OWN, 8, 4, live(6, 9)) + FOUR,
    "2^60 live columns": head(OWN, 8, 4, live(6, 1 << 60)) + FOUR,
    "no live column": head(OWN, 8, 0, live(6, 0)),
    "live sizes cut short": head(OWN, 8, 4, bytes([1, 6])),
    "shared by none": head(OWN, 8, 4, shared(0)) + FOUR,
    "shared by too many": head(OWN, 8, 1, shared(MOST_SHARED + 1)) + b"\0",
    "shared by 2^60": head(OWN, 8, 1, shared(1 << 60)) + b"\0",
    "too great a prior": head(OWN, 8, 4, bytes([0]) + write_sint(MOST_CODE + 1)) + FOUR,
    "too small a prior": head(OWN, 8, 4, bytes([0]) + write_sint(-MOST_CODE - 1)) + FOUR,
    "a prior of 2^62": head(OWN, 8, 4, bytes([0]) + write_sint(2**62)) + FOUR,
    "no prior": head(OWN, 8, 4, bytes([0])),
    "no index stream": head(CODED, 8, 4),
    "an index stream of another code": head(CODED, 8, 4) + bytes([66]) + bytes(8),
    "an index stream cut short": head(CODED, 8, 4) + bytes([32]) + write_uint(1 << 60),
    "an index stream for no block": head(CODED, 8, 0, ZERO) + bytes([32]),
}

LYING: dict[str, bytes] = {  # with as many elements as there may be
    "one block, its own": head(OWN, 8, 1) + b"\1",
    "one block, shared": head(SHARED, 8, 1) + b"\1",
    "one block of a lattice": head(LATTICE, 30, 1) + FOUR,
    "blocks one value too wide": head(LATTICE, 30, 4095) + bytes(raw_size(4095, 30)),
    "a live corner in one block": head(OWN, 8, 1, live(65, 64)) + b"\1",
    "a block for each element": head(OWN, 30, 1 << 24) + bytes(100),
    "a share that leaves too much": head(OWN, 8, 1, shared(4095)) + b"\1",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_page_does_not_allow_is_refused(what: str) -> None:
    refused(REFUSED[what], SMALL)


@pytest.mark.parametrize("what", LYING)
def test_sizes_that_lie_are_refused_before_anything_is_made(what: str) -> None:
    refused(LYING[what], HUGE)


def test_blocks_of_the_greatest_width_are_read_with_little_beyond_what_they_hold() -> None:
    spec = TensorSpec("weight", "float16", (128, MOST_WIDTH))
    payload = head(LATTICE, MOST_BITS, 128) + bytes(raw_size(128, MOST_BITS))
    tracemalloc.start()
    try:
        tensor = decode([Chunk("miracle", 1, {}, 7, (spec,), payload)])["weight"]
        assert tensor.isfinite().all() and tracemalloc.get_traced_memory()[1] < 40 * tensor.numel()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_a_tensor_without_elements_has_nothing_live(shape: tuple[int, ...]) -> None:
    spec = TensorSpec("weight", "float32", shape)
    refused(head(OWN, 8, 0), spec)
    assert decode([Chunk("miracle", 1, {}, 7, (spec,), head(OWN, 8, 0, ZERO))])["weight"].shape == shape


def whole() -> Iterator[bytes]:
    """Payloads that are right, of a tensor of (6, 8)."""
    piece = Piece((6, 8), (5, 8), 3)
    for kind, coded in (("own", False), ("shared", False), ("lattice", False), ("own", True)):
        indices = np.array([0, 511, 3, 77, 3, 0, 12])
        yield encode_part(Part((piece,), (-40,), kind, 9, coded, indices))


@pytest.mark.parametrize("payload", list(whole()), ids=["own", "shared", "lattice", "coded"])
def test_every_prefix_and_every_longer_payload_is_refused(payload: bytes) -> None:
    decode([Chunk("miracle", 1, {}, 7, (SMALL,), payload)])
    for end in range(len(payload)):
        refused(payload[:end], SMALL)
    refused(payload + b"\0", SMALL)


@pytest.mark.parametrize("payload", list(whole()), ids=["own", "shared", "lattice", "coded"])
def test_every_flipped_bit_gives_a_named_error_or_finite_values(payload: bytes) -> None:
    num_refused = 0
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            tensor = decode([Chunk("miracle", 1, {}, 7, (SMALL,), bytes(damaged))])["weight"]
        except Corrupt:
            num_refused += 1
        else:
            assert tensor.shape == (6, 8) and tensor.isfinite().all()
    assert num_refused > 20


def test_an_index_past_the_cap_is_refused() -> None:
    """A stream of indices below 2^9 that is read as one below 2^8: the number 511 is past the cap."""
    payload = bytearray(list(whole())[3])
    assert decode_part(bytes(payload), [(6, 8)]).indices.max() == 511
    payload[1] = 8
    refused(bytes(payload), SMALL)


def test_coded_numbers_past_a_cap_that_is_no_power_of_two_are_refused() -> None:
    data = encode_indices(np.array([9, 3, 0]), 1 << 4, 12)
    np.testing.assert_array_equal(decode_indices(data, 3, 1 << 4), [9, 3, 0])
    with pytest.raises(Corrupt):
        decode_indices(encode_indices(np.array([1023]), 1 << 10, 64), 1, 1000)


def test_raw_numbers_are_all_below_the_cap() -> None:
    """Of raw bits every pattern is a candidate: what `bits` says is what there is."""
    numbers = np.array([(1 << 30) - 1] * 4, np.uint64)
    tensor = decode([Chunk("miracle", 1, {}, 7, (SMALL,), head(OWN, 30, 4) + pack_raw(numbers, 30))])["weight"]
    assert tensor.isfinite().all() and tensor.std() > 0.2
