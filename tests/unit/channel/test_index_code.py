"""Indices as bytes: they come back, cost about what they tell, and damage is named."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.channel.index_code import (
    DELTA,
    NUM_EXPONENTS,
    OWN,
    decode_indices,
    encode_indices,
    exponent_for,
    octave_table,
)
from fewbits.coder.table import TOTAL
from fewbits.errors import Corrupt, InvalidArgument

EXPONENTS = st.none() | st.integers(0, DELTA)
GREATEST = (1 << 63) - 1


@given(st.data(), st.sampled_from([1, 2, 3, 5, 1000, 1 << 16, 1 << 31, (1 << 41) - 1, GREATEST]), EXPONENTS)
def test_indices_come_back(data: st.DataObject, cap: int, exponent: int | None) -> None:
    index = st.integers(0, cap - 1) | st.integers(0, min(cap - 1, 9)) | st.just(cap - 1)
    indices = np.array(data.draw(st.lists(index, max_size=60)), np.int64)
    coded = encode_indices(indices, cap, exponent)
    found = decode_indices(coded, len(indices), cap)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, indices)


def test_many_indices_of_every_octave_come_back() -> None:
    octaves = np.arange(20_000) % 63
    indices = ((np.uint64(1) << octaves.astype(np.uint64)) - np.uint64(1)).astype(np.int64)
    np.testing.assert_array_equal(decode_indices(encode_indices(indices, GREATEST), len(indices), GREATEST), indices)


def test_nothing_to_tell_takes_no_bytes() -> None:
    assert encode_indices(np.zeros(1000, np.int64), 1) == b""
    assert encode_indices(np.zeros(0, np.int64), 1 << 20) == b""
    for count, cap in ((1000, 1), (0, 1 << 20)):
        with pytest.raises(Corrupt, match="no index needs any"):
            decode_indices(b"\0", count, cap)


@pytest.mark.parametrize("exponent", [0, 8, 20, 31, 63, DELTA, None])
def test_damage_is_named_or_gives_other_indices_below_the_cap(exponent: int | None) -> None:
    cap, indices = 3000, np.random.default_rng(0).zipf(1.4, 40).clip(1, 3000) - 1
    if exponent is None:
        indices = np.random.default_rng(0).geometric(1 / 200, 400).clip(1, 3000) - 1
    coded = encode_indices(indices, cap, exponent)
    assert coded[0] == (OWN if exponent is None else exponent)
    damaged = [coded[:size] for size in range(len(coded))]
    flipped = [bytearray(coded) for _ in range(8 * len(coded))]
    for bit, each in enumerate(flipped):
        each[bit // 8] ^= 1 << bit % 8
    refused = 0
    for data in (*damaged, *map(bytes, flipped), coded + b"\0"):
        try:
            found = decode_indices(data, len(indices), cap)
        except Corrupt:
            refused += 1
            continue
        assert len(data) == len(coded)  # neither shorter nor longer ones are taken
        assert found.shape == indices.shape and found.min() >= 0 and found.max() < cap
        assert (found != indices).any() or data[0] != coded[0]
    assert refused > len(damaged)


def test_an_index_beyond_the_cap_is_corrupt() -> None:
    coded = bytearray(encode_indices(np.array([4, 1499, 0]), 1500, 30))
    assert decode_indices(bytes(coded), 3, 1500).tolist() == [4, 1499, 0]
    coded[-2:] = b"\xff\x0f"  # the raw bits of 5 and 1500: all set, 7 and 2047
    with pytest.raises(Corrupt, match="beyond the cap of 1500"):
        decode_indices(bytes(coded), 3, 1500)


def test_an_octave_beyond_the_cap_is_corrupt() -> None:
    indices = np.full(3000, 1500)
    indices[::3] = 4
    coded = encode_indices(indices, 1 << 20)
    assert coded[0] == OWN
    assert (decode_indices(coded, 3000, 1501) == indices).all()  # its own table is the same for every cap
    for cap in (1500, 1000):
        with pytest.raises(Corrupt, match=f"beyond the cap of {cap}"):
            decode_indices(coded, 3000, cap)


def test_a_table_of_its_own_serves_where_there_are_many_indices_unlike_any_power() -> None:
    few, many = (np.random.default_rng(6).geometric(1 / 200, size) - 1 for size in (20, 20_000))
    assert encode_indices(few, 1024 << 3)[0] <= DELTA
    coded = encode_indices(many, 1024 << 3)
    assert coded[0] == OWN
    shares, size = np.exp(-np.arange(8192) / 199.5), len(many)
    assert 8 * len(coded) < -np.log2(shares[many] / shares.sum()).sum() + 0.12 * size
    assert len(coded) < len(encode_indices(many, 1024 << 3, coded[0] - OWN + 40)) - 0.3 * size / 8
    for other in (
        bytes([OWN]),
        bytes([OWN, 193]) + coded[2:],
        bytes([OWN, 33]) + coded[2:],
        bytes([OWN + 1]) + coded[1:],
    ):
        with pytest.raises(Corrupt):
            decode_indices(other, size, 1024 << 3)


@pytest.mark.parametrize("indices", [[-1], [5, 100], [1 << 40]])
def test_indices_out_of_range_are_refused(indices: list[int]) -> None:
    with pytest.raises(InvalidArgument, match="an index is not from 0 to 99"):
        encode_indices(np.array(indices), 100)


@pytest.mark.parametrize("exponent", [-1, DELTA + 1])
def test_exponents_out_of_range_are_refused(exponent: int) -> None:
    with pytest.raises(InvalidArgument, match="an exponent is from 0 to 64"):
        encode_indices(np.array([0]), 100, exponent)


@pytest.mark.parametrize("cap", [0, -5, 1 << 63])
def test_caps_out_of_range_are_refused(cap: int) -> None:
    for call in (lambda: encode_indices(np.zeros(0, np.int64), cap), lambda: decode_indices(b"", 0, cap)):
        with pytest.raises(InvalidArgument, match="a cap is from 1"):
            call()


# ---- tables


@pytest.mark.parametrize("cap", [2, 3, 4, 1024, 1 << 16, 1 << 31, (1 << 41) - 1, GREATEST])
def test_tables_have_every_octave(cap: int) -> None:
    for exponent in range(DELTA + 1):
        frequencies = octave_table(exponent, cap).frequencies
        assert len(frequencies) == cap.bit_length() and sum(frequencies) == TOTAL and min(frequencies) >= 1


@pytest.mark.parametrize("exponent", [0, 5, 11, 20, 30, 45, 63])
def test_tables_are_zipfs(exponent: int) -> None:
    power, num_octaves = 1 + 2 ** (-exponent / 8), 16
    starts = [1 << octave for octave in range(num_octaves)]
    exact = np.add.reduceat(np.arange(1, 1 << num_octaves, dtype=np.float64) ** -power, np.array(starts) - 1)
    used = np.array(octave_table(exponent, (1 << num_octaves) - 1).frequencies) / TOTAL
    exact /= exact.sum()
    # In bits an octave's number costs more than by the exact probabilities:
    assert float((exact * np.log2(exact / used)).sum()) < 0.012


def test_the_last_octave_counts_as_far_as_it_goes() -> None:
    for exponent in (20, DELTA):
        whole, part = (octave_table(exponent, cap).frequencies for cap in (2047, 1024))
        assert part[-1] <= whole[-1] / 1024 + 2
        np.testing.assert_allclose(part[0], whole[0] / (1 - whole[-1] / TOTAL), rtol=0.02)


def test_deltas_table_is_that_of_elias() -> None:
    lengths = [2 * ((octave + 1).bit_length() - 1) + 1 for octave in range(31)]  # less the octave's raw bits
    shares = np.array([2.0**-length for length in lengths])
    used = np.array(octave_table(DELTA, (1 << 31) - 1).frequencies)
    np.testing.assert_allclose(used, 1 + (TOTAL - 31) * shares / shares.sum(), atol=31)


def test_the_exponent_is_the_one_of_the_bound() -> None:
    for bits in (0.0, 1.0, 5.83, 12.0, 40.0):
        wanted = 1 / (bits + math.log2(math.e) / math.e + 1)
        assert abs(8 * math.log2(2 ** (-exponent_for(bits) / 8) / wanted)) <= 0.5
    assert exponent_for(1e9) == NUM_EXPONENTS - 1


# ---- cost


@pytest.mark.parametrize("power", [1.08, 1.15, 1.3, 1.5, 1.8])
def test_a_zipf_source_costs_its_entropy_and_a_tenth_of_a_bit(power: float) -> None:
    cap, count = 1 << 20, 20_000
    shares = np.arange(1, cap + 1, dtype=np.float64) ** -power
    shares /= shares.sum()
    drawn = np.random.default_rng(3).choice(cap, count, p=shares)
    ideal = float(-np.log2(shares[drawn]).sum())
    coded = 8 * len(encode_indices(drawn, cap))
    assert 0.97 * ideal < coded < ideal + 0.1 * count + 64
    told = 8 * len(encode_indices(drawn, cap, round(-8 * math.log2(power - 1))))
    assert coded <= told < ideal + 0.12 * count + 64


def test_delta_serves_what_is_unlike_any_power() -> None:
    indices = np.random.default_rng(4).integers(0, 1 << 30, 500)
    assert 8 * len(encode_indices(indices, 1 << 30, DELTA)) < 500 * (30 + 2 * math.log2(30) + 2)


def test_the_tables_are_those_of_the_format() -> None:
    total = 0
    for exponent in range(DELTA + 1):
        for cap in (2, 1024, 1_000_003, (1 << 41) - 1):
            total = zlib.crc32(np.array(octave_table(exponent, cap).frequencies, "<u2").tobytes(), total)
    assert total == 0x6FD880BC


def test_the_example_of_the_format() -> None:
    coded = encode_indices(np.array([0, 3, 1, 9, 0, 122]), 1024, 20)
    assert coded.hex() == "1406000300012751d00e"
    assert octave_table(20, 1024).frequencies == (1723, 1265, 1020, 862, 746, 652, 574, 506, 447, 396, 1)
