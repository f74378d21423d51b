"""The two streams: what is encoded is decoded, in the bytes of the format, at the cost of the tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.coder.rans import LANES, LOWEST, Groups, LaneDecoder, WideChunk, decode_wide, encode_lane, encode_wide
from fewbits.coder.table import COST_ONE, FREQUENCY_COSTS, TOTAL, Table
from fewbits.errors import Corrupt
from fewbits.models.shipped import LAPLACE, shipped_table
from tests.unit.coder.samples import symbols_of, tables


def chunks_of(segments: list[tuple[Table, int]], cuts: list[int]) -> tuple[Groups, np.ndarray, np.ndarray, list[Table]]:
    lengths = np.array([length for _, length in segments], np.int64)
    groups = Groups.of_segments(lengths, np.arange(lengths.size))
    inner = sorted({cut % max(1, groups.start.size) for cut in cuts} - {0})
    bounds = np.array([0, *inner, groups.start.size], np.int64)
    symbols = np.concatenate([symbols_of(table, length, i) for i, (table, length) in enumerate(segments)])
    return groups, bounds, symbols, [table for table, _ in segments]


@given(
    st.lists(st.tuples(tables(), st.sampled_from([0, 1, 31, 32, 33, 64, 200])), min_size=1, max_size=6).filter(
        lambda segments: sum(length for _, length in segments)
    ),
    st.lists(st.integers(0, 100), max_size=4),
)
def test_wide_chunks_round_trip_with_short_groups_and_empty_segments(
    segments: list[tuple[Table, int]], cuts: list[int]
) -> None:
    groups, bounds, symbols, used = chunks_of(segments, cuts)
    chunks = encode_wide(symbols, groups, bounds, used)
    assert len(chunks) == bounds.size - 1
    assert decode_wide(chunks, groups, bounds, used).tolist() == symbols.tolist()


@given(st.lists(st.tuples(tables(), st.integers(0, 50)), max_size=6))
def test_a_lane_round_trips(segments: list[tuple[Table, int]]) -> None:
    runs = [(table, symbols_of(table, length, i)) for i, (table, length) in enumerate(segments)]
    decoder = LaneDecoder(encode_lane(runs))
    for table, symbols in runs:
        assert decoder.take(table, symbols.size).tolist() == symbols.tolist()
    decoder.finish()


@pytest.mark.parametrize("code", [LAPLACE + 8, LAPLACE + 32, LAPLACE + 56])
def test_sizes_are_the_tables_costs_within_a_thousandth_and_the_states(code: int) -> None:
    table = shipped_table(code)
    symbols = symbols_of(table, 200_000, 1)
    ideal = int(FREQUENCY_COSTS[table.counts][symbols].sum()) / COST_ONE / 8  # bytes
    groups = Groups.of_segments(np.array([symbols.size]), np.zeros(1, np.int64))
    (chunk,) = encode_wide(symbols, groups, np.array([0, groups.start.size]), [table])
    assert ideal - 4 * LANES <= 2 * chunk.words.size + 4 * LANES <= 1.001 * ideal + 4 * LANES
    short = symbols[:20_000]
    ideal = int(FREQUENCY_COSTS[table.counts][short].sum()) / COST_ONE / 8
    assert ideal - 4 <= len(encode_lane([(table, short)])) <= 1.001 * ideal + 4


def test_the_lane_of_the_formats_example() -> None:
    table = shipped_table(32)
    values = np.array([0, -1, 2, 0, 0, 1, -3, 0, 5, -4])
    assert encode_lane([(table, (values - table.low).astype(np.uint8))]).hex() == "928d1ff3ae"


def test_words_are_taken_in_lane_order_group_after_group() -> None:
    """Symbols of 13 bits: every lane sheds 13 bits a symbol, and where its words go is seen in the states."""
    table = Table(0, (1, 1, TOTAL - 2), 0)
    symbols = (np.arange(64) % 2).astype(np.uint8)
    groups = Groups.of_segments(np.array([64]), np.zeros(1, np.int64))
    (chunk,) = encode_wide(symbols, groups, np.array([0, 2]), [table])
    slots = [int(np.flatnonzero(table.symbol_of_slot == symbol)[0]) for symbol in (0, 1)]
    # Each lane codes the same symbol twice, from state 2^16. Coding the second: 2^16 < 2^19, no word; the new
    # state is 2^29 + slot. Coding the first: the low 16 bits go out as a word, and the rest is coded.
    states = [((((LOWEST << 13) + slot) >> 16) << 13) + slot for slot in slots]
    words = [((LOWEST << 13) + slot) & 0xFFFF for slot in slots]
    assert chunk.states.tolist() == states * 16
    assert chunk.words.tolist() == words * 16


def test_the_bytes_of_a_small_chunk_are_pinned() -> None:
    table = shipped_table(40)
    symbols = np.clip(np.arange(70) * 7 % 13 + table.num_values // 2 - 6, 0, table.num_values - 1).astype(np.uint8)
    groups = Groups.of_segments(np.array([40, 30]), np.zeros(2, np.int64))
    (chunk,) = encode_wide(symbols, groups, np.array([0, groups.start.size]), [table])
    data = chunk.states.astype("<u4").tobytes() + chunk.words.astype("<u2").tobytes()
    assert data.hex() == PINNED


PINNED = (
    "9d265a241c5aee2340a0dc15a37f453b7221310d706944619ae12c09cbcbd461b684060200ec3b01d4ae070287ec6b01"
    "02b867018a060d025f793a015b000802f2ea3a01dde00402180939017d420702cce93a01b684060200ec3b01d4ae0702"
    "87ec6b0102b867018a060d025f793a015b000802f2ea3a0191401d0004ab1100"
)


def test_damaged_chunks_are_corrupt() -> None:
    table = shipped_table(40)
    symbols = symbols_of(table, 1000, 0)
    groups = Groups.of_segments(np.array([1000]), np.zeros(1, np.int64))
    bounds = np.array([0, groups.start.size])
    (chunk,) = encode_wide(symbols, groups, bounds, [table])
    damaged = [
        WideChunk(chunk.states, chunk.words[:-1]),
        WideChunk(chunk.states, np.append(chunk.words, np.uint16(0))),
        WideChunk(chunk.states & np.uint32(0xFFFF), chunk.words),
        WideChunk(chunk.states[::-1], chunk.words),
    ]
    for one in damaged:
        with pytest.raises(Corrupt):
            decode_wide([one], groups, bounds, [table])


@pytest.mark.parametrize("stream", ["01", "00", "0500", "010000", "01020300", "000000"])
def test_a_state_that_is_not_in_its_shortest_form_is_corrupt(stream: str) -> None:
    with pytest.raises(Corrupt):
        LaneDecoder(bytes.fromhex(stream))


@pytest.mark.parametrize("stream", ["05", "ffff", "928d1ff3ad", "928d1ff3aeffff"])
def test_a_lane_that_does_not_end_in_its_first_state_is_corrupt(stream: str) -> None:
    decoder = LaneDecoder(bytes.fromhex(stream))
    decoder.take(shipped_table(32), 10)
    with pytest.raises(Corrupt):
        decoder.finish()


def test_a_coded_laplace_stream_is_as_small_as_constrictions() -> None:
    constriction = pytest.importorskip("constriction")
    for code in (LAPLACE + 16, LAPLACE + 32, LAPLACE + 48):
        table = shipped_table(code)
        symbols = symbols_of(table, 100_000, 2)
        counts = table.counts[table.counts > 0]
        dense = np.cumsum(table.counts > 0)[symbols].astype(np.int32) - 1
        model = constriction.stream.model.Categorical(counts / TOTAL, perfect=False)
        coder = constriction.stream.queue.RangeEncoder()
        coder.encode(dense, model)
        groups = Groups.of_segments(np.array([symbols.size]), np.zeros(1, np.int64))
        (chunk,) = encode_wide(symbols, groups, np.array([0, groups.start.size]), [table])
        size = 4 * LANES + 2 * chunk.words.size
        assert size <= 1.003 * 4 * coder.get_compressed().size + 160
