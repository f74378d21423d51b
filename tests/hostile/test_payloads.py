"""Payloads that are damaged but whose checksums are right: decoders meet them, and must not fail in their own way."""

import itertools
import math
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fewbits
from fewbits.chunk import DTYPES, Chunk, TensorSpec
from fewbits.coder.leb128 import write_sint, write_uint
from fewbits.encode import decode
from fewbits.errors import Corrupt, FewbitsError, InvalidArgument
from fewbits.registry import METHODS, method_class
from fewbits.tensors import LOSSY_DTYPES
from tests.golden.files import golden_paths
from tests.golden.photos import digest_of
from tests.hostile.samples import payloads, repaired, small_file

MEMORY = 200_000_000  # bytes
SECONDS = 2.0  # of one decoding; measured: a few milliseconds


def decode_or_refuse(chunk: Chunk) -> bool:
    """Decode a part; whether it was refused. Anything but a named error or well-formed tensors fails the test."""
    start = time.perf_counter()
    try:
        tensors = decode([chunk])
    except FewbitsError as error:
        assert not isinstance(error, InvalidArgument)
        return True
    finally:
        assert time.perf_counter() - start < SECONDS
    for spec in chunk.tensors:
        tensor = tensors[spec.name]
        assert (str(tensor.dtype), tuple(tensor.shape)) == (f"torch.{spec.dtype}", spec.shape)
        if chunk.method != "lossless":
            # What a tile does not hold, nobody has written: it is anything.
            start, stop = chunk.span or (0, spec.num_elements)
            assert tensor.view(-1)[start:stop].isfinite().all()
    return False


def mutations(payload: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Payloads near a given one: bits flipped, bytes replaced, removed, inserted, ends cut, pieces repeated."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutated = bytearray(payload)
        for _ in range(int(rng.integers(1, 4))):
            # Most damage goes to the front, where the descriptions and sizes are.
            reach = len(mutated) if rng.random() < 0.5 else min(len(mutated), 40)
            place = int(rng.integers(0, max(1, reach)))
            match int(rng.integers(0, 6)):
                case 0 if mutated:
                    mutated[place] ^= 1 << int(rng.integers(0, 8))
                case 1 if mutated:
                    mutated[place] = int(rng.choice([0, 1, 127, 128, 192, 193, 194, 195, 255]))
                case 2:
                    del mutated[place : place + int(rng.integers(1, 4))]
                case 3:
                    mutated[place:place] = rng.integers(0, 256, int(rng.integers(1, 5)), np.uint8).tobytes()
                case 4:
                    del mutated[len(mutated) - int(rng.integers(0, len(mutated) + 1)) :]
                case _:
                    mutated[place:place] = mutated[place : place + 9]
        yield bytes(mutated)


def test_every_flipped_payload_bit_with_its_checksum_repaired_is_refused_or_well_formed(tmp_path: Path) -> None:
    data, path = small_file(), tmp_path / "m.fewbits"
    refused = 0
    for part, payload in enumerate(payloads(data)):
        for bit in range(8 * len(payload)):
            damaged = bytearray(payload)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(repaired(data, part, bytes(damaged)))
            try:
                loaded = fewbits.load(path)
            except Corrupt as error:
                refused += 1
                assert "tensor" in str(error)
            else:
                assert list(loaded) == ["weight", "tied", "bias", "steps", "broken", "empty"]
                assert loaded["weight"].isfinite().all()
    assert refused > 1000


@pytest.mark.parametrize(
    ("id", "case"),
    [
        *itertools.product(
            (id for id in METHODS if id not in ("image", "blockwise")), ["low-entropy", "network", "dtypes"]
        ),
        *((id, "models") for id in METHODS if id not in ("miracle", "image")),
        *(("image", case) for case in ("hyperprior-soft", "factorized-universal", "factorized-straight", "tiles")),
        *(("miracle", case) for case in ("payloads", "own", "lattice", "sharing", "coded", "coded-few")),
        *(("qswd", case) for case in ("kernels", "tilings", "svd", "vq")),
        ("lossless", "sparse"),
        ("lossless", "masks"),
        ("ecsq", "trellis"),
        *(("sic", case) for case in ("edges", "paths", "plain", "rounded", "tiles")),
        *(("blockwise", case) for case in ("exact", "coarse", "tiles")),
    ],
)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_mutated_payloads_of_the_golden_files_are_refused_or_well_formed(id: str, case: str) -> None:
    stem = f"{id}-{method_class(id).payload_version}-{case}"
    path = next(path for path in golden_paths() if path.stem == stem)
    with fewbits.container.Reader(path) as reader:
        chunks = [reader.read_chunk(number) for number in range(len(reader.parts))]
    decode(chunks)  # what is found once, such as an image's codec, is not timed
    refused = [
        decode_or_refuse(chunk._replace(payload=payload))
        for seed, chunk in enumerate(chunks)
        for payload in mutations(chunk.payload, 6 if case == "low-entropy" else 20, seed)
    ]
    assert sum(refused) >= len(refused) // 3


@pytest.mark.parametrize("id", METHODS)
def test_random_payloads_are_refused_or_well_formed(id: str) -> None:
    rng = np.random.default_rng(5)
    dtypes = LOSSY_DTYPES if id != "lossless" else [dtype for dtype in DTYPES if dtype != "complex32"]
    for size, dtype in itertools.product((0, 1, 2, 3, 5, 8, 13, 21, 34, 55), dtypes):
        for _ in range(4):
            payload = rng.integers(0, 256, size, np.uint8).tobytes()
            decode_or_refuse(chunk(id, payload, TensorSpec("weight", dtype, (3, 40))))


def chunk(id: str, payload: bytes, *specs: TensorSpec, span: tuple[int, int] | None = None) -> Chunk:
    return Chunk(id, method_class(id).payload_version, {}, 0, specs, payload, span)


def front(id: str, models: bytes) -> bytes:
    """A description that begins as the method's does."""
    return {
        "lossless": b"\0" + models,
        "ecsq": struct.pack("<fB", 1, 0) + models,
        "epr": bytes(3) + models,  # in tables, a scalar decoder, step 1
        # Own candidates of 2^14, coded, 2^20 blocks, prior 1; then an index stream begins. Its code 32 is no table.
        "miracle": bytes([4, 14])
        + write_uint(1 << 20)
        + bytes(2)
        + (models if models[:1] == SHIPPED else b"A" + models),
        # Rows, height 1, rank 1, step 1, exponent 0, codebook 1.
        "qswd": struct.pack("<3Bf", 0, 1, 1, 1) + NO_TABLE + NO_TABLE[:2] + write_sint(1) + models,
        # One path, one class of rows, one model, of levels that are 0, and steps of 1; then that of column codes.
        "sic": bytes(6) + 2 * NO_TABLE + models,
        # Blocks of one element, unit 1, levels that are 0; then the model of scales.
        "blockwise": bytes(4) + NO_TABLE + models,
        "image": bytes.fromhex(digest_of("hyperprior-soft")) + b"\0" + write_uint(len(models)) + models,
    }[id]


NO_TABLE = bytes([193, 0]) + write_sint(0)
EMPTY_BODY = bytes(3)
HUGE = TensorSpec("huge", "float32", (1 << 14, 1 << 10))  # as many elements as a part may have
SHIPPED = bytes([32])

LYING: dict[str, bytes] = {
    "no bytes": b"",
    "a table and an empty body": SHIPPED + EMPTY_BODY,
    "63 raw bits and an empty body": bytes([193, 63]) + write_sint(0) + EMPTY_BODY,
    "a stream of 2^60 bytes": SHIPPED + b"\0" + write_uint(2**60) + b"\0",
    "escapes of 2^60 bytes": SHIPPED + b"\0\0" + write_uint(2**60),
    "2^60 chunks": SHIPPED + b"\1\0\0" + write_uint(2**60),
    "a chunk of 2^60 symbols": SHIPPED + b"\1\0\0\1" + write_uint(2**60) + b"\0\0" + bytes(128),
    "a chunk of 2^60 words": SHIPPED + b"\1\0\0\1" + write_uint(2**24) + write_uint(2**60) + b"\0" + bytes(128),
    "a chunk of all symbols and no words": SHIPPED + b"\1\0\0\1" + write_uint(2**24) + b"\0\0" + b"\0\0\1\0" * 32,
    "2^60 classes": bytes([195]) + write_uint(2**60) + SHIPPED * 9,
    "4095 classes and no models": bytes([195]) + write_uint(4093),
    "a histogram of 2^60 values": bytes([192, 0]) + write_uint(2**60),
    "an unknown model": bytes([200]),
    "a model within a model within a model": bytes([194, 1, 0]) * 1000 + SHIPPED,
}


@pytest.mark.parametrize("what", LYING)
@pytest.mark.parametrize("id", METHODS)
def test_sizes_that_lie_are_refused_quickly_and_without_the_memory(id: str, what: str) -> None:
    lying = chunk(id, front(id, LYING[what]), HUGE)
    tracemalloc.start()
    try:
        assert decode_or_refuse(lying)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def sparse(mask: bytes, num_nonzero: int, rest: bytes, body: bytes = EMPTY_BODY, transform: int = 5) -> bytes:
    return bytes([transform]) + mask + write_uint(num_nonzero) + rest + body


ONES = bytes([193, 0]) + write_sint(1)  # the mask of a tensor without zeros, and one raw bit for each of 16 elements:
BITS = bytes([193, 1]) + write_sint(0)
RAW_BITS = EMPTY_BODY + b"\x0f\xf0"

SPARSE: dict[str, tuple[bytes, bool]] = {  # of 16 elements of int16; whether it is right
    "no zero": (sparse(ONES, 16, ONES), True),
    "all zero": (sparse(NO_TABLE, 0, ONES), True),
    "all zero, with a table for none": (sparse(NO_TABLE, 0, SHIPPED), True),
    "all zero, with a table for none, in lanes": (sparse(NO_TABLE, 0, SHIPPED, b"\1" + bytes(3)), True),
    "half": (sparse(BITS, 8, ONES, RAW_BITS), True),
    "fewer ones declared": (sparse(BITS, 7, ONES, RAW_BITS), False),
    "more ones declared": (sparse(BITS, 9, ONES, RAW_BITS), False),
    "none declared of all": (sparse(ONES, 0, ONES), False),
    "all declared of none": (sparse(NO_TABLE, 16, ONES), False),
    "more ones than elements": (sparse(ONES, 17, ONES), False),
    "2^60 ones": (sparse(ONES, 2**60, ONES), False),
    "a count that is not in its shortest form": (bytes([5]) + NO_TABLE + b"\x80\0" + ONES + EMPTY_BODY, False),
    "no count": (bytes([5]) + ONES, False),
    "a mask of twos": (sparse(bytes([193, 0]) + write_sint(2), 16, ONES), False),
    "a mask of minus ones": (sparse(bytes([193, 0]) + write_sint(-1), 16, ONES), False),
    "classes after the mask": (sparse(ONES, 16, bytes([195, 0]) + ONES + ONES + NO_TABLE), False),
    "a chunk of symbols for none": (sparse(NO_TABLE, 0, SHIPPED, b"\1\0\0\1\1\0\0" + b"\0\0\1\0" * 32), False),
    "floats": (sparse(ONES, 16, ONES + b"\0", transform=4), False),
    "an unknown transform": (sparse(ONES, 16, ONES, transform=6), False),
}


@pytest.mark.parametrize("what", SPARSE)
def test_a_sparse_tensor_is_refused_where_mask_and_count_disagree(what: str) -> None:
    payload, right = SPARSE[what]
    part = chunk("lossless", payload, TensorSpec("weight", "int16", (4, 4)))
    if right:
        assert not decode_or_refuse(part)
        return
    with pytest.raises(Corrupt):
        decode([part])


def test_a_sparse_tensor_of_too_many_symbols_is_refused_before_they_take_memory() -> None:
    lying = chunk("lossless", sparse(ONES, HUGE.num_elements, SHIPPED), HUGE)
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match="too short"):
            decode([lying])
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


STEPS = {"zero": 0.0, "negative": -1.0, "NaN": float("nan"), "infinite": float("inf")}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_that_is_not_finite_and_above_0_is_corrupt(what: str) -> None:
    payload = struct.pack("<f", STEPS[what]) + front("ecsq", NO_TABLE + EMPTY_BODY)[4:]
    with pytest.raises(Corrupt, match="weight"):
        decode([chunk("ecsq", payload, TensorSpec("weight", "float32", (3,)))])


@pytest.mark.parametrize(("dtype", "step"), [("float16", 70000.0), ("bfloat16", 3.4e38), ("float32", 3.4e38)])
@pytest.mark.parametrize("id", ["ecsq", "epr"])
def test_values_that_overflow_are_corrupt(id: str, dtype: str, step: float) -> None:
    levels = 2 if id == "ecsq" else 2000
    payload = front(id, bytes([193, 0]) + write_sint(levels) + EMPTY_BODY)
    if id == "ecsq":
        payload = struct.pack("<f", step) + payload[4:]
    else:  # a sixteenth of an octave below: 2000 levels of it are too many
        payload = payload[:2] + write_sint(int(16 * math.log2(step)) - 16) + payload[3:]
    with pytest.raises(Corrupt, match="weight"):
        decode([chunk(id, payload, TensorSpec("weight", dtype, (3,)))])


@pytest.mark.parametrize(("dtype", "step"), [("float16", 40000.0), ("bfloat16", 3e38), ("float32", 3e38)])
def test_values_of_a_trellis_that_overflow_are_corrupt(dtype: str, step: float) -> None:
    payload = struct.pack("<fB", step, 2) + bytes([193, 0]) + write_sint(2) + EMPTY_BODY
    with pytest.raises(Corrupt, match="weight"):
        decode([chunk("ecsq", payload, TensorSpec("weight", dtype, (3,)))])
    fine = struct.pack("<fB", 1.5, 2) + payload[5:]
    values = decode([chunk("ecsq", fine, TensorSpec("weight", dtype, (3,)))])["weight"]
    assert values.tolist() == [3.375] * 3


@pytest.mark.parametrize("flags", [4, 8, 128, 255])
def test_flags_without_a_meaning_are_corrupt(flags: int) -> None:
    payload = struct.pack("<fB", 1.0, flags) + bytes(4) + NO_TABLE + EMPTY_BODY
    with pytest.raises(Corrupt, match="flags"):
        decode([chunk("ecsq", payload, TensorSpec("weight", "float32", (3,)))])


@pytest.mark.parametrize("id", ["ecsq", "epr", "miracle", "sic", "blockwise"])
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64", "float8_e4m3fn"])
def test_a_lossy_payload_of_another_dtype_is_corrupt(id: str, dtype: str) -> None:
    with pytest.raises(Corrupt, match="weight"):
        decode([chunk(id, front(id, NO_TABLE + EMPTY_BODY), TensorSpec("weight", dtype, (3,)))])


PROGRAM = """
import resource, sys, time
import torch, fewbits
from fewbits.errors import FewbitsError
fewbits.load  # loaded before the limit is set
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {memory}, used + {memory}))
start = time.perf_counter()
try:
    fewbits.load(sys.argv[1])
except FewbitsError as error:
    print(type(error).__name__, time.perf_counter() - start < 2.0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space through /proc")
def test_a_file_of_a_few_bytes_that_declares_millions_of_elements_is_refused_in_little_memory(tmp_path: Path) -> None:
    payload = front("ecsq", SHIPPED + b"\1\0\0\1" + write_uint(2**24) + b"\0\0" + b"\0\0\1\0" * 32)
    path = tmp_path / "bomb.fewbits"
    path.write_bytes(
        fewbits.container.file_bytes(
            chunks=[chunk("ecsq", payload, HUGE)],
            tensors=[fewbits.container.TensorEntry(HUGE)],
            seed=0,
            rate_weight=None,
            metadata=None,
        )
    )
    program = PROGRAM.format(memory=MEMORY)
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["Corrupt", "True"], result.stderr
