"""Shared randomness: published answers, what is drawn has the law it says, and the same bits on every path."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewbits import random
from fewbits.errors import InvalidArgument
from fewbits.native import core

UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
EDGES = np.array([0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1], np.uint32)
ENDS_OF_CENTRE = np.array([0.075, 0.925]).repeat(9) + np.tile(np.arange(-4, 5) * 2.0**-53, 2)


def by_numpy(call: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """What a call returns where NumPy serves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWBITS_ISA", "numpy")
        return call()


def assert_same_bits(call: Callable[[], NDArray[Any]]) -> None:
    found, expected = call(), by_numpy(call)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(
        np.atleast_1d(found).view(f"u{found.itemsize}"), np.atleast_1d(expected).view(f"u{found.itemsize}")
    )


@pytest.mark.parametrize(
    ("counter", "seed", "expected"),
    [
        ([0] * 4, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0A4093822,
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_published_answers_of_philox(counter: list[int], seed: int, expected: list[int]) -> None:
    words = random.philox(seed, tuple(np.array(word, np.uint64) for word in counter))
    assert [int(word) for word in words] == expected


def test_published_answer_of_every_path(isa: str) -> None:
    found = random.words(0, 0, np.array(0), np.array([0]), 4)
    np.testing.assert_array_equal(found, [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]])


def test_an_item_and_a_place_are_where_they_are_said_to_be_in_the_counter(isa: str) -> None:
    counter = (0x89ABCDEF, 0x01234567, 42, (random.DITHER << 24) + 2)
    expected = random.philox(99, tuple(np.array(word, np.uint64) for word in counter))
    found = random.words(99, random.DITHER, np.array(42), np.array([0x0123456789ABCDEF]), 11)
    np.testing.assert_array_equal(found[0, 8:], [int(word) for word in expected[:3]])


@given(UINT64, st.integers(0, 255), UINT32, st.lists(UINT64, min_size=1, max_size=300), st.integers(1, 9))
def test_words_of_one_stream(seed: int, purpose: int, number: int, items: list[int], num_places: int) -> None:
    each = np.array(items, np.uint64)
    assert_same_bits(lambda: random.words(seed, purpose, np.array(number), each, num_places))


def test_words_of_many_streams_on_every_path(isa: str) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, 2**32, (5, 1))
    for length in (1, 127, 128, 129, 700):
        items = generator.integers(0, 2**64, length, dtype=np.uint64)
        for num_places in (1, 4, 6, 40):
            assert_same_bits(lambda n=num_places, i=items: random.words(9, random.SIGNS, numbers, i, n))
            assert_same_bits(lambda n=num_places, i=items: random.words(9, random.SIGNS, numbers[0], i, n))
    assert_same_bits(lambda: random.words(9, 1, np.arange(6), np.arange(12).reshape(2, 6)[:, ::-1], 3))


def test_no_words_of_no_items_or_no_places(isa: str) -> None:
    assert random.Stream(1, 2).sequence(7, 0).shape == (0,)
    assert random.words(1, 2, np.array(3), np.arange(5), 0).shape == (5, 0)
    assert random.permutation(1, 2, 0).shape == (0,)


def test_an_item_has_a_word_at_every_place_but_none_behind(isa: str) -> None:
    with pytest.raises(InvalidArgument):
        random.words(1, 2, np.array(3), np.arange(1), random.MOST_PLACES + 1)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 511])
def test_a_sequence_is_the_same_from_anywhere(start: int, isa: str) -> None:
    stream = random.Stream(7, random.DITHER, 3)
    np.testing.assert_array_equal(stream.sequence(start, 600), stream.sequence(0, 1200)[start : start + 600])


def test_floats_on_every_path(isa: str) -> None:
    generator = np.random.default_rng(1)
    for size in (0, 1, 127, 128, 129, 100_003):
        words = np.append(EDGES, generator.integers(0, 2**32, size, dtype=np.uint32))[-max(size, len(EDGES)) :]
        assert_same_bits(lambda w=words: random.normals(w))
        p = random.uniforms(words)
        assert_same_bits(lambda p=p: random.normal_quantile(p))
        assert_same_bits(lambda p=p: random.log(p))
    p = np.concatenate([10.0 ** -generator.uniform(0, 19, 3000), 1 - 2.0 ** -np.arange(1.0, 54), ENDS_OF_CENTRE])
    assert_same_bits(lambda: random.normal_quantile(p.astype(np.float64)))
    # Any positive normal number: random bits, powers of two, and where the mantissa is divided.
    x = generator.integers(1 << 52, 0x7FF << 52, 30_000).view(np.float64)
    roots = np.array([np.sqrt(0.5)]).view(np.int64) + np.arange(-3, 4)
    every = np.concatenate([x, 2.0 ** np.arange(-1022.0, 1024), roots.view(np.float64), [1.0]])
    assert_same_bits(lambda: random.log(every))


def test_numbers_in_a_tail_only(isa: str) -> None:
    words = np.arange(0, 2**32, 2**32 // 999, dtype=np.uint64).astype(np.uint32)
    for side in (words // 16, ~(words // 16)):
        assert_same_bits(lambda w=side: random.normals(w))


def test_any_shape_and_layout(isa: str) -> None:
    words = np.random.default_rng(2).integers(0, 2**32, (6, 10), dtype=np.uint32)
    np.testing.assert_array_equal(random.normals(words.T), random.normals(words).T)
    np.testing.assert_array_equal(random.log(random.uniforms(words)[::2]), random.log(random.uniforms(words))[::2])
    unaligned = np.frombuffer(b"\0" + words.tobytes(), np.uint8)[1:].view(np.uint32).reshape(words.shape)
    np.testing.assert_array_equal(random.normals(unaligned), random.normals(words))
    assert float(random.normal_quantile(np.array(0.5))) == 0.0
    assert random.log(np.array(1.0)).shape == ()


def test_normal_quantiles_and_logarithms_are_near_the_true_ones(isa: str) -> None:
    true = statistics.NormalDist()
    p = np.concatenate([np.arange(1, 2000) / 2000, 10.0 ** -np.arange(4.0, 16)])
    errors = random.normal_quantile(p) - [true.inv_cdf(float(each)) for each in p]
    assert np.abs(errors).max() < 2e-8
    np.testing.assert_allclose(random.log(p), np.log(p), rtol=1e-14)


def test_permutations_are_permutations_and_differ() -> None:
    found = [random.permutation(5, number, 1000) for number in range(3)]
    for each in found:
        np.testing.assert_array_equal(np.sort(each), np.arange(1000))
    assert (found[0] != found[1]).any()
    assert (found[1] != found[2]).any()


def test_the_core_refuses_arrays_that_do_not_fit() -> None:
    native = core()
    assert native is not None
    items, numbers = np.zeros(3, np.uint64), np.zeros(1, np.uint32)
    with pytest.raises(InvalidArgument):
        native.random_words(0, 1, numbers, items, 2, np.zeros(5, np.uint32))
    with pytest.raises(InvalidArgument):
        native.random_words(0, 1, np.zeros(2, np.uint32), items, 2, np.zeros(6, np.uint32))
    with pytest.raises(InvalidArgument):
        native.random_words(0, 256, numbers, items, 2, np.zeros(6, np.uint32))
    with pytest.raises(InvalidArgument):
        native.random_words(0, 1, numbers, items, 2**26 + 1, np.zeros(6, np.uint32))
    with pytest.raises(InvalidArgument):
        native.random_normals(np.zeros(3, np.uint32), np.zeros(2))
    with pytest.raises(InvalidArgument):
        native.random_logs(np.ones(3), np.zeros(4))
    unaligned = np.zeros(17, np.uint8)[1:].view(np.float64)
    with pytest.raises(InvalidArgument):
        native.normal_quantiles(unaligned, np.zeros(2))
