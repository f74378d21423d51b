"""The payload of `epr`: what is written comes back whatever the decoder, damage is refused, and so is each thing the
page refuses."""

import math
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.coder.adaptive import Geometry, encode_adaptive
from fewbits.coder.leb128 import write_sint
from fewbits.errors import Corrupt
from fewbits.methods.epr import payload as payload_module
from fewbits.methods.epr.frames import LevelTensor, framed, level_shape
from fewbits.methods.epr.payload import decode_levels, encode_levels
from fewbits.quantize.parameter_decoders import Grid, Kernels, ParameterDecoder, Scalar, dft
from tests.unit.methods.payloads import (
    ADAPTIVE,
    DFT,
    GRID,
    IMAGE,
    KERNEL_ROWS,
    MATRIX,
    ROWS,
    SCALAR,
    SHARED,
    SLICES,
    TABLES,
    assert_round_trip,
    encoded,
    shaped,
    specs_of,
)

MEMORY = 50_000_000  # bytes
SECONDS = 2.0


# ---- what comes back


def codes(draw: st.DrawFn, count: int) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(-1600, 1600), min_size=count, max_size=count)))


@st.composite
def tensor_of(draw: st.DrawFn, kernel: tuple[int, int], units: Sequence[int]) -> LevelTensor:
    """A tensor with any decoder that suits its shape, of these numbers of units; dead rows and slices among them."""
    rows, slices = draw(st.sampled_from(units)), draw(st.sampled_from(units))
    kind = draw(
        st.sampled_from(["0-d", "vector", "matrix of scalars", "image", "scalar kernels", "dft", "matrix", "grid"])
    )
    decoder: ParameterDecoder = Scalar(codes(draw, 1))
    shape: tuple[int, ...] = (rows, slices)
    if kind == "0-d":
        shape = ()
    elif kind == "vector":
        shape = (rows,)
    elif kind == "image":
        shape = (rows, slices * draw(st.sampled_from([4, 9, 16])))
    elif kind == "scalar kernels":
        shape = (rows, slices, *draw(st.sampled_from([(3,), kernel, (2, 1, 3)])))
    elif kind in ("dft", "matrix"):
        shape = (rows, slices, *kernel)
        count = math.prod(kernel)
        if kind == "dft":
            decoder = Kernels(codes(draw, int(dft(*kernel).classes[-1]) + 1), kernel)
        else:
            rng = np.random.default_rng(draw(st.integers(0, 3)))
            decoder = Kernels(codes(draw, 1), kernel, rng.standard_normal((count, count)).astype("<f2").tobytes())
    elif kind == "grid":
        image, size = draw(st.sampled_from([((4, 5), (2, 3)), ((6, 6), (6, 6)), ((3, 8), (1, 1))]))
        shape, decoder = (rows, math.prod(image)), Grid(codes(draw, 1), size, image, draw(st.integers(0, 1)))
    return LevelTensor(shape, drawn_levels(draw, level_shape(shape, decoder)), decoder)


def drawn_levels(draw: st.DrawFn, full: tuple[int, int, int]) -> NDArray[np.int64]:
    """Mostly zeros, some rows and slices dead, at the ends more than elsewhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([0, 1, 1, 3, 50, 1 << 24]))
    levels = rng.integers(-reach, reach + 1, full) * (rng.random(full) < draw(st.sampled_from([0.05, 0.4, 1.0])))
    for axis in (0, 1):
        if draw(st.booleans()) and full[axis]:
            live = draw(st.integers(0, full[axis]))
            dead = np.arange(full[axis]) >= live if draw(st.booleans()) else rng.random(full[axis]) < 0.5
            levels[(slice(None),) * axis + (dead,)] = 0
    return levels


@st.composite
def networks(draw: st.DrawFn) -> list[LevelTensor]:
    """Some tensors whose rows and slices are often of the same number, and whose decoders are often the same."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 4), (1, 5)]))
    units = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)) + draw(st.sampled_from([[], [], [0]]))
    tensors: list[LevelTensor] = []
    for _ in range(draw(st.integers(1, 5))):
        tensor = draw(tensor_of(kernel, units))
        shareable = [t.decoder for t in tensors if type(t.decoder) is type(tensor.decoder) is not Grid]
        if shareable and draw(st.booleans()):
            other = draw(st.sampled_from(shareable))
            if level_shape(tensor.shape, other) == level_shape(tensor.shape, tensor.decoder):
                tensor = tensor._replace(decoder=other)
        tensors.append(tensor)
    return tensors


@settings(max_examples=300)
@given(networks())
def test_levels_and_decoders_come_back_by_both_coders(tensors: list[LevelTensor]) -> None:
    sizes = []
    for coder in (TABLES, ADAPTIVE):
        data = encoded(tensors, coder)
        assert data[0] == coder
        assert_round_trip(data, tensors)
        sizes.append(len(data))
    chosen = encode_levels(tensors)
    assert len(chosen) <= min(sizes)  # each tensor's best frame alone is not the best of all
    assert_round_trip(chosen, tensors)


def test_a_frame_that_suits_a_tensor_alone_is_weighed_beside_the_others() -> None:
    generator = np.random.default_rng(5)
    often = [np.linspace(0.4, 0, columns) ** 2 for columns in (90, 100, 52)]  # by column, as units are sorted
    sparse = [(generator.random((60, len(each))) < each).astype(np.int64) for each in often]
    tensors = [LevelTensor(levels.shape, levels, Scalar((0,))) for levels in sparse]
    plain = [framed(tensor.shape, tensor.decoder, None) for tensor in tensors]
    images = framed(tensors[1].shape, tensors[1].decoder, (10, 10))  # which its rows are not
    with mock.patch.object(payload_module, "_best_frame", side_effect=[plain[0], images, plain[2]]):
        data = encode_levels(tensors)
    assert data == payload_module._encode(tensors, plain, ADAPTIVE)
    assert len(data) < len(payload_module._encode(tensors, [plain[0], images, plain[2]], ADAPTIVE))


def test_a_large_payload_is_in_tables() -> None:
    levels = np.random.default_rng(0).integers(-100, 100, (1000, 300, 1))
    tensor = LevelTensor((1000, 300), levels, Scalar((0,)))
    with mock.patch.object(payload_module, "encode_adaptive", side_effect=AssertionError):
        data = encode_levels([tensor])
    assert data[0] == TABLES and len(data) > 1 << 18
    assert_round_trip(data, [tensor])


def test_tables_have_classes_of_rows_and_one_row_for_each_coefficient() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([300, 40, 40, 5, 5, 1, 1, 0, 0])
    kernels = np.rint(rng.standard_normal((60, 40, 9)) * scales).astype(np.int64)
    rows = np.rint(rng.standard_normal((50, 400, 1)) * np.repeat([0.2, 50], 25)[:, None, None]).astype(np.int64)
    tensors = [
        LevelTensor((60, 40, 3, 3), kernels, Kernels((0,) * 5, (3, 3))),
        LevelTensor((50, 400), rows, Scalar((3,))),
    ]
    data = encoded(tensors, TABLES)
    assert_round_trip(data, tensors)
    flat = [tensor._replace(decoder=Scalar((0,)), shape=(tensor.levels.size,)) for tensor in tensors]
    assert len(data) < 0.8 * len(encoded(flat, TABLES))


# ---- what is written, byte for byte


def stream(*arrays: tuple[NDArray[np.int64], Geometry]) -> bytes:
    return encode_adaptive([a.reshape(g.rows, -1) for a, g in arrays], [g for _, g in arrays])


def test_a_description_is_the_page_s() -> None:
    levels = np.array([[1, 0, -2], [0, 0, 3]])
    expected = bytes([ADAPTIVE, SCALAR]) + write_sint(-20) + stream((levels, Geometry(2, 3, 1, 1)))
    assert encoded([LevelTensor((2, 3), levels, Scalar((-20,)))], ADAPTIVE) == expected


def test_dead_rows_and_slices_at_the_end_are_cut_off_and_what_follows_needs_not_say_so() -> None:
    first, bias, second = np.zeros((5, 3), np.int64), np.zeros(5, np.int64), np.zeros((2, 5), np.int64)
    first[1, 1], bias[0], second[0, 1], second[1, 0] = 4, 1, -1, 2
    bias[1] = 1
    tensors = [LevelTensor(array.shape, array, Scalar((7,))) for array in (first, bias, second)]
    head = bytes([ADAPTIVE, SCALAR | ROWS | SLICES]) + write_sint(7) + bytes([2, 2, SHARED, SHARED])
    body = stream(
        (first[:2, :2], Geometry(2, 2, 1, 1)), (bias[:2], Geometry(1, 2, 1, 1)), (second[:, :2], Geometry(2, 2, 1, 1))
    )
    assert encoded(tensors, ADAPTIVE) == head + body
    assert_round_trip(head + body, tensors)


def test_a_vector_looks_at_the_tensor_before_it_and_no_further() -> None:
    one = np.zeros((4, 2), np.int64)
    one[0] = 1
    other = np.ones((3, 2), np.int64)
    bias = np.array([1, 0, 0, 0])
    tensors = [LevelTensor(a.shape, a, Scalar((0,))) for a in (one, other, bias)]
    # By a matrix of 3 units before it the vector of 4 is not known: its live elements are said.
    assert encoded(tensors, ADAPTIVE).startswith(bytes([1, ROWS, 0, 1, SHARED, SHARED | SLICES, 1]))
    after = [tensors[0], tensors[2], tensors[2]]
    assert encoded(after, ADAPTIVE).startswith(bytes([1, ROWS, 0, 1, SHARED, SHARED]))


def test_a_matrix_looks_at_the_last_tensor_of_as_many_units() -> None:
    one, other = np.zeros((4, 2), np.int64), np.ones((3, 2), np.int64)
    one[:2] = 1
    wide = np.zeros((2, 4), np.int64)
    wide[:, :2] = -1
    tensors = [LevelTensor(a.shape, a, Scalar((0,))) for a in (one, other, wide)]
    assert encoded(tensors, ADAPTIVE).startswith(bytes([1, ROWS, 0, 2, SHARED, SHARED]))
    assert_round_trip(encoded(tensors, ADAPTIVE), tensors)


def described(kind: int, *fields: bytes) -> bytes:
    return bytes([kind]) + b"".join(fields)


def test_every_geometry_is_the_page_s() -> None:
    """Streams built by hand in the geometries that the page names decode to the levels."""
    rng = np.random.default_rng(0)
    step = write_sint(5)
    matrix = rng.standard_normal((4, 4)).astype("<f2").tobytes()
    dft_codes = (1, 2, 3, 4)  # a 2 × 2 kernel has four frequencies
    dft_fields = b"".join(map(write_sint, dft_codes))
    grid = bytes([5, 6, 2, 3, 1])
    cases: list[tuple[tuple[int, ...], bytes, ParameterDecoder, Geometry]] = [
        ((), described(SCALAR, step), Scalar((5,)), Geometry(1, 1, 1, 1)),
        ((7,), described(SCALAR, step), Scalar((5,)), Geometry(1, 7, 1, 1)),
        ((3, 8), described(SCALAR, step), Scalar((5,)), Geometry(3, 8, 1, 1)),
        ((3, 8), described(SCALAR | IMAGE, step, bytes([2, 2])), Scalar((5,)), Geometry(3, 2, 2, 2)),
        ((3, 8), described(SCALAR | IMAGE, step, bytes([1, 8])), Scalar((5,)), Geometry(3, 1, 1, 8)),
        ((3, 2, 4), described(SCALAR, step), Scalar((5,)), Geometry(3, 2, 1, 4)),
        ((3, 2, 4, 5), described(SCALAR, step), Scalar((5,)), Geometry(3, 2, 4, 5)),
        ((3, 2, 4, 5, 2), described(SCALAR, step), Scalar((5,)), Geometry(3, 2, 20, 2)),
        ((3, 4, 2, 2), described(DFT, dft_fields), Kernels(dft_codes, (2, 2)), Geometry(3, 4, 1, 4)),
        ((3, 4, 2, 2), described(DFT | KERNEL_ROWS, dft_fields), Kernels(dft_codes, (2, 2)), Geometry(12, 1, 1, 4)),
        ((3, 4, 2, 2), described(MATRIX, step, matrix), Kernels((5,), (2, 2), matrix), Geometry(3, 4, 1, 4)),
        (
            (3, 4, 2, 2),
            described(MATRIX | KERNEL_ROWS, step, matrix),
            Kernels((5,), (2, 2), matrix),
            Geometry(12, 1, 1, 4),
        ),
        ((3, 30), described(GRID, grid, step), Grid((5,), (2, 3), (5, 6), 1), Geometry(3, 1, 2, 3)),
    ]
    for shape, description, decoder, geometry in cases:
        levels = rng.integers(-2, 3, level_shape(shape, decoder))
        data = bytes([ADAPTIVE]) + description + stream((levels, geometry))
        assert_round_trip(data, [LevelTensor(shape, levels, decoder)])


def test_a_shared_decoder_is_the_last_that_suits() -> None:
    """Past grids and kernels of another size, to a scalar one or to kernels of this size."""
    codes = b"".join(map(write_sint, (1, 2, 3, 4)))
    tensors: list[tuple[tuple[int, ...], bytes, Geometry]] = [
        ((2, 3), described(SCALAR, write_sint(9)), Geometry(2, 3, 1, 1)),
        ((2, 2, 2, 2), described(DFT, codes), Geometry(2, 2, 1, 4)),
        ((2, 30), described(GRID, bytes([5, 6, 2, 3, 1]), write_sint(-3)), Geometry(2, 1, 2, 3)),
        ((2, 1, 2, 2), described(SHARED | KERNEL_ROWS), Geometry(2, 1, 1, 4)),
        ((2, 1, 3, 3), described(SHARED), Geometry(2, 1, 3, 3)),
        ((2, 8), described(SHARED | IMAGE, bytes([2, 4])), Geometry(2, 1, 2, 4)),
        ((2, 1, 2, 2), described(SHARED), Geometry(2, 1, 2, 2)),
    ]
    arrays = [(np.ones(math.prod(geometry), np.int64), geometry) for _, _, geometry in tensors]
    data = bytes([ADAPTIVE]) + b"".join(description for _, description, _ in tensors) + stream(*arrays)
    found = [tensor.decoder for tensor in decode_levels(data, shaped(*(shape for shape, _, _ in tensors)))]
    assert found[3] == found[1] == Kernels((1, 2, 3, 4), (2, 2))
    assert found[4] == found[5] == found[6] == Scalar((9,))


def test_a_decoder_is_shared_only_if_it_is_the_very_one() -> None:
    ones = np.ones((2, 2), np.int64)
    for code, first in ((4, SHARED), (5, SCALAR)):
        tensors = [LevelTensor((2, 2), ones, Scalar((4,))), LevelTensor((2, 2), ones, Scalar((code,)))]
        data = encoded(tensors, ADAPTIVE)
        assert data[3] == first
        assert_round_trip(data, tensors)


def test_nothing_live_is_nothing_but_descriptions() -> None:
    tensors = [LevelTensor(shape, np.zeros(shape, np.int64), Scalar((0,))) for shape in ((4, 5), (4,), (0, 3), ())]
    for coder in (TABLES, ADAPTIVE):
        data = encoded(tensors, coder)
        assert_round_trip(data, tensors)
        assert len(data) < 16


# ---- damage

VECTOR, MATRIX_SHAPE, KERNELS = (6,), (2, 12), (2, 3, 2, 2)


def small_network() -> list[LevelTensor]:
    """One tensor for each kind of decoder, with dead units."""
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((4, 4)).astype("<f2").tobytes()

    def sparse(*full: int) -> NDArray[np.int64]:
        levels = rng.integers(-2, 3, full) * (rng.random(full) < 0.5)
        levels[-1:] = 0
        return levels

    return [
        LevelTensor((4, 30), sparse(4, 1, 6), Grid((-9,), (2, 3), (5, 6), 1)),
        LevelTensor((4,), np.array([1, -1, 0, 0]), Scalar((-40,))),
        LevelTensor((3, 4), sparse(3, 4, 1), Scalar((-40,))),
        LevelTensor((3, 2, 2, 2), sparse(3, 2, 4), Kernels((1, 2, 3, 4), (2, 2))),
        LevelTensor((2, 3, 2, 2), sparse(2, 3, 4), Kernels((7,), (2, 2), matrix)),
        LevelTensor((2, 8), sparse(2, 8, 1), Scalar((3,))),
        LevelTensor((), np.array(300), Scalar((3,))),
    ]


def damaged(data: bytes) -> Iterator[bytes]:
    """Every truncation, every flipped bit, and every byte at its ends and inverted; some bytes more."""
    yield from (data[:size] for size in range(len(data)))
    yield from (data + more for more in (b"\0", b"\1", b"\xff" * 9))
    for place in range(len(data)):
        for other in {*(data[place] ^ 1 << bit for bit in range(8)), 0, 255, data[place] ^ 255} - {data[place]}:
            yield data[:place] + bytes([other]) + data[place + 1 :]


@pytest.mark.parametrize("coder", [TABLES, ADAPTIVE])
def test_damage_is_refused_or_gives_other_levels_in_little_memory(coder: int) -> None:
    tensors = small_network()
    data = encoded(tensors, coder)
    specs = specs_of(tensors)
    decode_levels(data, specs)  # whatever it keeps for later is not the damage's
    refused = 0
    tracemalloc.start()
    try:
        for changed in damaged(data):
            tracemalloc.reset_peak()
            start = time.perf_counter()
            try:
                found = decode_levels(changed, specs)
            except Corrupt:
                refused += 1
            else:
                for one, tensor in zip(found, tensors, strict=True):
                    assert one.levels.size == math.prod(level_shape(tensor.shape, one.decoder))
                    assert one.decoder.decode(one.levels.reshape(-1, one.levels.shape[-1])).size == math.prod(
                        tensor.shape
                    )
            assert time.perf_counter() - start < SECONDS
            assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert refused > len(data)


@given(
    st.integers(0, 1),
    st.binary(max_size=60),
    st.sampled_from([VECTOR, MATRIX_SHAPE, KERNELS, (), (0, 3), (2, 0, 3, 3)]),
)
def test_any_bytes_are_levels_or_corrupt(coder: int, data: bytes, shape: tuple[int, ...]) -> None:
    try:
        found = decode_levels(bytes([coder]) + data, shaped(shape, shape))
    except Corrupt:
        return
    assert [tensor.shape for tensor in found] == [shape, shape]


@pytest.mark.parametrize(("coder", "memory"), [(TABLES, 4 * MEMORY), (ADAPTIVE, MEMORY)])
def test_a_few_bytes_do_not_stand_for_the_most_levels_that_a_part_may_have(coder: int, memory: int) -> None:
    shape = (1 << 12, 1 << 12)
    head = bytes([coder, SCALAR]) + write_sint(3) + (b"\x20" if coder == TABLES else b"")
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(Corrupt):
            decode_levels(head + b"\0\0\0" if coder == TABLES else head + b"\x01", shaped(shape))
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < SECONDS
