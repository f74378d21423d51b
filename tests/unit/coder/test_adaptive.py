"""The adaptive stream: exact, the same bytes and refusals by all three decoders, and short."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits.coder import binary
from fewbits.coder.adaptive import Geometry, adaptive_bits, decode_adaptive, encode_adaptive
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.native import core
from tests.golden import adaptive_decoder

MOST = 2**31 - 1
Array = NDArray[np.int64]


@contextmanager
def isa(name: str) -> Iterator[None]:
    with mock.patch.dict(os.environ, {"FEWBITS_ISA": name}):
        yield


WAYS = ["numpy"] if core() is None else ["numpy", ""]  # the specification, and the core


def outcome(data: bytes, geometries: Sequence[Geometry], way: str) -> list[list[int]] | None:
    """What a stream decodes to; None if it is refused."""
    try:
        if way == "page":
            return adaptive_decoder.decode(data, geometries)
        with isa(way):
            return [array.ravel().tolist() for array in decode_adaptive(data, geometries)]
    except (Corrupt, adaptive_decoder.Refused):
        return None


def encoded(arrays: list[Array], geometries: list[Geometry]) -> bytes:
    """The stream, once it is known that all coders agree on it."""
    streams: list[bytes] = []
    for way in WAYS:
        with isa(way):
            streams.append(encode_adaptive(arrays, geometries))
    assert len(set(streams)) == 1
    for way in [*WAYS, "page"]:
        assert outcome(streams[0], geometries, way) == [array.ravel().tolist() for array in arrays]
    return streams[0]


SIDES = st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 3), (1, 5), (5, 5), (8, 9), (12, 6)])
VALUES = st.sampled_from([0, 0, 0, 0, 1, -1, 2, -3, 7, 16, -17, 18, 40, 255, -(10**6), MOST, -MOST])


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Array], list[Geometry]]:
    """Up to four arrays of few elements; some are empty, some have as many slices as another has rows."""
    arrays: list[Array] = []
    geometries: list[Geometry] = []
    for _ in range(draw(st.integers(0, 4))):
        height, width = draw(SIDES)
        most = max(1, min(9, 60 // (height * width)))
        geometry = Geometry(draw(st.integers(0, most)), draw(st.integers(0, min(4, most))), height, width)
        if draw(st.booleans()):
            generator = np.random.default_rng(draw(st.integers(0, 2**32)))
            density, scale = generator.uniform(0, 0.6), generator.uniform(0.3, 5)
            values = np.rint(generator.laplace(0, scale, geometry.size)) * (generator.random(geometry.size) < density)
        else:
            values = np.array(draw(st.lists(VALUES, min_size=geometry.size, max_size=geometry.size)))
        arrays.append(
            values.astype(np.int64).reshape(geometry.rows, -1) if geometry.size else np.empty((0, 3), np.int64)
        )
        geometries.append(geometry)
    return arrays, geometries


@given(networks())
def test_all_coders_agree_and_give_the_integers_back(network: tuple[list[Array], list[Geometry]]) -> None:
    encoded(*network)


@settings(max_examples=20)
@given(networks())
def test_no_shorter_stream_and_no_smaller_number_would_do(network: tuple[list[Array], list[Geometry]]) -> None:
    arrays, geometries = network
    data = encoded(arrays, geometries)
    assert not data.endswith(b"\0")
    if data:
        below = (int.from_bytes(data, "big") - 1).to_bytes(len(data), "big").rstrip(b"\0")
        for other in (data[:-1].rstrip(b"\0"), below):
            for way in WAYS:
                assert outcome(other, geometries, way) != [array.ravel().tolist() for array in arrays]
    for more in (b"\0", b"\1", b"\xff\xff"):
        for way in WAYS:
            assert outcome(data + more, geometries, way) != [array.ravel().tolist() for array in arrays]


@settings(max_examples=100)
@given(st.binary(max_size=12), networks())
def test_any_bytes_are_refused_or_the_one_encoding_of_what_they_give(
    data: bytes, network: tuple[list[Array], list[Geometry]]
) -> None:
    geometries = network[1]
    found = [outcome(data, geometries, way) for way in [*WAYS, "page"]]
    assert all(each == found[0] for each in found)
    if found[0] is not None:
        assert encode_adaptive([np.array(values, np.int64) for values in found[0]], geometries) == data


def small_network() -> tuple[list[Array], list[Geometry]]:
    """A kernel layer and the dense one that reads it, and a vector."""
    generator = np.random.default_rng(4)
    geometries = [Geometry(3, 1, 3, 3), Geometry(4, 3, 1, 1), Geometry(1, 4, 1, 1)]
    arrays = [np.rint(generator.laplace(0, 1.2, (g.rows, g.size // g.rows))).astype(np.int64) for g in geometries]
    return arrays, geometries


def test_every_cut_and_every_flipped_bit_is_refused_or_gives_other_integers() -> None:
    arrays, geometries = small_network()
    data = encoded(arrays, geometries)
    expected = [array.ravel().tolist() for array in arrays]
    damaged = [data[:size] for size in range(len(data))]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for each in damaged:
        found = [outcome(each, geometries, way) for way in [*WAYS, "page"]]
        assert all(other == found[0] for other in found)
        assert found[0] != expected


def test_bytes_that_no_decision_needs_are_refused(isa: str) -> None:
    assert encode_adaptive([], []) == b""
    assert decode_adaptive(b"", []) == []
    empty = Geometry(0, 3, 1, 1)
    assert [array.shape for array in decode_adaptive(b"", [empty])] == [(0, 3)]
    for data in (b"\1", b"\xff" * 5, b"\0"):
        with pytest.raises(Corrupt):
            decode_adaptive(data, [empty])


def test_shapes_are_rows_by_the_rest_and_nothing_is_kept_of_the_caller(isa: str) -> None:
    array = np.arange(-6, 6).reshape(2, 3, 2)[:, ::-1]
    before = array.copy()
    geometry = Geometry(2, 3, 1, 2)
    (back,) = decode_adaptive(encode_adaptive([array], [geometry]), [geometry])
    assert back.shape == (2, 6)
    assert back.dtype == np.int64
    assert np.array_equal(back.ravel(), before.ravel())
    assert np.array_equal(array, before)


def test_integers_of_2_to_the_31_are_refused(isa: str) -> None:
    geometry = Geometry(1, 2, 1, 1)
    for value in (MOST + 1, -MOST - 1, 2**63 - 1, -(2**63)):
        for call in (encode_adaptive, adaptive_bits):
            with pytest.raises(InvalidArgument, match=r"2\^31"):
                call([np.array([0, value])], [geometry])
    with pytest.raises(Corrupt, match=r"2\^31"):
        decode_adaptive(b"\0" * 29 + b"\1", [geometry])  # all decisions 1, at first


def test_a_geometry_that_does_not_fit_is_refused(isa: str) -> None:
    for geometry in (Geometry(2, 2, 1, 1), Geometry(-1, -3, 1, 1), Geometry(0, 3, 1, 1)):
        with pytest.raises(InvalidArgument):
            encode_adaptive([np.zeros(3, np.int64)], [geometry])
    with pytest.raises(InvalidArgument):
        decode_adaptive(b"", [Geometry(1, -1, 1, 1)])
    with pytest.raises(ValueError):
        encode_adaptive([np.zeros(3, np.int64)], [])


def test_more_elements_than_bytes_can_stand_for_are_refused_before_memory_is_taken(isa: str) -> None:
    for geometry in (Geometry(2**40, 2**20, 28, 28), Geometry(1, 66 * 45_500 + 1, 1, 1)):
        with pytest.raises(Corrupt, match="too few bytes"):
            decode_adaptive(b"\x12\x34", [geometry])
    huge_and_empty = Geometry(2**40, 0, 2**40, 2**40)
    assert decode_adaptive(b"", [huge_and_empty])[0].shape == (2**40, 0)


@pytest.mark.skipif(core() is None, reason="the written-out coder takes minutes for millions of decisions")
def test_what_costs_nearly_nothing_stays_within_the_limit() -> None:
    zeros = np.zeros(3_200_000, np.int64)
    geometry = Geometry(800, 4000, 1, 1)
    data = encode_adaptive([zeros], [geometry])
    assert 70 <= len(data) <= 80  # 1/45,446 of a byte each, and what learning costs
    assert not decode_adaptive(data, [geometry])[0].any()
    with pytest.raises(Corrupt):  # decisions, not only elements: reads zeros for ever, which are greatest magnitudes
        decode_adaptive(b"", [Geometry(1, 64 * 45_500, 1, 1)])
    for geometry, value in ((Geometry(1, 300_000, 1, 1), 1), (Geometry(1, 50_000, 1, 1), -MOST)):
        values = np.full(geometry.size, value, np.int64)
        assert np.array_equal(decode_adaptive(encode_adaptive([values], [geometry]), [geometry])[0][0], values)


def test_decisions_that_leave_too_few_bytes_are_refused() -> None:
    encoder = binary.Encoder()
    with mock.patch.object(binary, "SLACK_BYTES", 0):
        encoder.code(1, 65528)  # the lowest part of the interval, which no bytes stand for
        with pytest.raises(InvalidArgument, match="too few bits"):
            encoder.finish()


def test_a_carry_runs_through_many_bytes() -> None:
    decisions = [1] + [0] * 300 + [1, 0, 0, 1]
    for first in (32767, 32768, 32769):
        probabilities = [first] + [8] * 40 + [32768] * 264
        encoder = binary.Encoder()
        for bit, probability in zip(decisions, probabilities, strict=True):
            encoder.code(bit, probability)
        decoder = binary.Decoder(encoder.finish())
        assert [decoder.code(0, probability) for probability in probabilities] == decisions
        decoder.check_end()


@settings(max_examples=20)
@given(networks())
def test_estimates_are_the_sizes(network: tuple[list[Array], list[Geometry]]) -> None:
    arrays, geometries = network
    data = encode_adaptive(arrays, geometries)
    shares: list[list[float]] = []
    for way in WAYS:
        with isa(way):
            shares.append(adaptive_bits(arrays, geometries))
    assert len(shares[0]) == len(arrays)
    assert np.allclose(shares, shares[0], rtol=1e-12)
    assert all(share == 0 for share, array in zip(shares[0], arrays, strict=True) if array.size == 0)
    total = sum(shares[0])
    assert abs(total - 8 * len(data)) <= 0.01 * total + 16


def order_0_bits(values: Array) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float(-(counts * np.log2(counts / values.size)).sum())


def sparse(rows: NDArray[np.float64], columns: NDArray[np.float64], seed: int) -> Array:
    """Integers whose density is a product of a row's and a column's."""
    generator = np.random.default_rng(seed)
    dense = generator.random((rows.size, columns.size)) < np.outer(rows, columns)
    return dense * generator.choice([-2, -1, -1, 1, 1, 2], dense.shape)


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_and_columns_pay(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = sparse(np.sort(generator.random(60) ** 2)[::-1], generator.random(150) ** 2, seed)
    assert sum(adaptive_bits([values], [Geometry(60, 150, 1, 1)])) < 0.92 * order_0_bits(values)


@pytest.mark.parametrize("density", [0.005, 0.05, 0.5])
def test_without_any_structure_little_is_lost(density: float) -> None:
    values = sparse(np.ones(50), np.full(200, density), 3)
    for geometry in (Geometry(50, 200, 1, 1), Geometry(50, 8, 5, 5), Geometry(50, 1, 10, 20)):
        assert sum(adaptive_bits([values], [geometry])) < 1.08 * order_0_bits(values) + 60


def test_images_pay() -> None:
    generator = np.random.default_rng(5)
    values = np.zeros((40, 20, 20), np.int64)
    for image in values:
        for _ in range(3):  # short strokes of one sign and size
            y, x, sign = generator.integers(0, 14), generator.integers(0, 14), generator.choice([-1, 1])
            size = int(generator.integers(1, 5))
            image[y, x : x + 6] = image[y + 1, x : x + 5] = sign * size
    flat = values.reshape(40, -1)
    assert sum(adaptive_bits([flat], [Geometry(40, 1, 20, 20)])) < 0.5 * order_0_bits(flat)


def test_dead_rows_and_columns_cost_little() -> None:
    alive = sparse(np.full(20, 0.4), np.ones(30), 6)
    padded = np.zeros((100, 300), np.int64)
    padded[:20, :30] = alive
    bits = adaptive_bits([padded], [Geometry(100, 300, 1, 1)])[0]
    assert bits < sum(adaptive_bits([alive], [Geometry(20, 30, 1, 1)])) + 8 * 45


def test_the_layer_before_tells_which_columns_are_dense() -> None:
    generator = np.random.default_rng(7)
    units = generator.random(120) ** 3
    first, second = sparse(units, np.ones(100), 7), sparse(np.ones(12), units, 8)
    alone = adaptive_bits([second], [Geometry(12, 120, 1, 1)])[0]
    linked = adaptive_bits([first, second], [Geometry(120, 100, 1, 1), Geometry(12, 120, 1, 1)])[1]
    assert linked < 0.97 * alone


def test_the_pages_example(repository: Path) -> None:
    page = (repository / "docs" / "format.md").read_text("utf-8")
    arrays = [np.array([[0, 0, 3, -1, 0, 0], [0, 2, 2, 0, 0, -1]]), np.array([[1, 0], [-20, 0], [0, 4]])]
    data = encoded(arrays, [Geometry(2, 1, 2, 3), Geometry(3, 2, 1, 1)])
    assert f"{len(data)} bytes\n`{data.hex()}`" in page


def test_the_tables_are_what_the_page_says_they_are() -> None:
    assert [round(1024 * math.log2(1 + i / 16)) for i in range(17)] == adaptive_decoder.A
    assert [round(65536 / (1 + 2 ** (-i / 2))) for i in range(27)] == adaptive_decoder.B
