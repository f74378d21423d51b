import io
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewbits.chunk import DTYPES, Chunk, Loss, TensorSpec
from fewbits.container import Reader, TensorEntry, fingerprint_of, info
from fewbits.errors import Corrupt, InvalidArgument, TooLarge
from tests.unit.container.samples import (
    BARE_SPECS,
    BIAS,
    CHUNKS,
    EMBEDDING,
    LARGE,
    SCALE,
    SEED,
    TENSORS,
    WEIGHT,
    build,
    chunk,
    small_bare_file,
    small_file,
    spec,
)


def read_all(reader: Reader) -> list[Chunk]:
    return [reader.read_chunk(number) for number in range(len(reader.parts))]


def without_losses(one: Chunk) -> Chunk:
    return one._replace(losses=())


def test_all_that_was_written_is_read() -> None:
    with Reader(small_file()) as reader:
        assert read_all(reader) == [without_losses(one) for one in CHUNKS]
        assert reader.header.tensors == TENSORS
        assert (reader.header.seed, reader.header.rate_weight) == (SEED, 0.5)
        assert reader.header.metadata == {"format": "pt"}
        assert [method.id for method in reader.header.methods] == ["lossless", "ecsq"]
        assert not reader.bare
        assert reader.check() == reader.size == len(small_file())


def test_every_dtype_is_kept() -> None:
    tensors = [TensorSpec(f"tensor.{dtype}", dtype, (2,)) for dtype in DTYPES]
    with Reader(build([chunk(*tensors)])) as reader:
        assert [entry.spec for entry in reader.header.tensors] == tensors


@pytest.mark.parametrize("order", list(itertools.permutations(range(len(CHUNKS))))[::7])
def test_any_order_of_chunks_gives_the_same_bytes(order: tuple[int, ...]) -> None:
    assert build([CHUNKS[i] for i in order], TENSORS, metadata={"format": "pt"}) == small_file()


@pytest.mark.parametrize("bare", [False, True])
def test_path_file_object_and_bytes_read_alike(bare: bool, tmp_path: Path) -> None:
    data = small_bare_file() if bare else small_file()
    path = tmp_path / "net.fewbits"
    path.write_bytes(data)
    module = {"specs": BARE_SPECS, "fingerprint": fingerprint_of(BARE_SPECS)} if bare else {}
    for source in (path, str(path), data, io.BytesIO(data)):
        with Reader(source, **module) as reader:
            assert [one.payload for one in read_all(reader)] == [one.payload for one in CHUNKS]


def test_parts_of_names_every_tile_and_follows_aliases() -> None:
    with Reader(small_file()) as reader:
        assert [reader.parts_of(position) for position in range(7)] == [
            (1,), (2,), (0,), (1,), (3, 4), (0,), (0,)
        ]  # fmt: skip
        with pytest.raises(InvalidArgument):
            reader.parts_of(7)
        with pytest.raises(InvalidArgument):
            reader.read_chunk(5)


def test_losses_of_tiles_add_up() -> None:
    tiles = [
        chunk(LARGE, span=(0, 8), losses=(Loss(1.0, 50.0, 10.4, "a"),)),
        chunk(LARGE, span=(8, 20), losses=(Loss(3.0, 14.0, 10.3, "a"),)),
    ]
    with Reader(build(tiles)) as reader:
        assert reader.header.losses is not None
        loss = reader.header.losses[0]
    assert loss is not None
    assert (loss.relative_error, loss.bits, loss.note) == (0.25, 21, "a")


@pytest.mark.parametrize(
    ("loss", "relative_error"),
    [
        (Loss(0.0, 0.0, 1), 0.0),
        (Loss(0.0, math.nan, 1), 0.0),
        (Loss(1.0, 0.0, 1), math.inf),
        (Loss(1.0, 9.0, 1), 85.5 / 256),
    ],
)
def test_relative_error_is_rounded_and_defined_for_zeros(loss: Loss, relative_error: float) -> None:
    with Reader(build([chunk(SCALE, losses=(loss,))])) as reader:
        assert reader.header.losses is not None and reader.header.losses[0] is not None
        assert reader.header.losses[0].relative_error == relative_error


def test_chunks_without_losses_give_a_file_without_losses() -> None:
    with Reader(build([without_losses(one) for one in CHUNKS], TENSORS)) as reader:
        assert reader.header.losses is None


def test_an_empty_file_round_trips() -> None:
    with Reader(build([])) as reader:
        assert reader.parts == reader.header.tensors == ()
    with Reader(build([], bare=True), specs=(), fingerprint=0) as reader:
        assert reader.parts == ()


def test_an_empty_payload_and_an_empty_tensor_round_trip() -> None:
    one = chunk(spec("nothing", 0, 7), payload=b"")
    with Reader(build([one])) as reader:
        assert read_all(reader) == [without_losses(one)]


@pytest.mark.parametrize("bare", [False, True])
def test_interleaved_groups_stand_in_the_order_of_their_bounds(bare: bool) -> None:
    tensors = [spec(f"t{i}", i) for i in range(9)]
    chunks = [chunk(*(tensors[i] for i in group)) for group in ((0, 8), (1, 2, 4, 7), (3, 5, 6))]
    entries = [TensorEntry(tensor) for tensor in tensors]
    data = build(chunks, entries, bare=bare)
    with Reader(data, specs=tensors, fingerprint=fingerprint_of(tensors)) as reader:
        assert [part.tensors for part in reader.parts] == [(1, 2, 4, 7), (3, 5, 6), (0, 8)]


def framing(tensors: list[TensorSpec], groups: list[list[int]]) -> tuple[int, int]:
    """Bytes of the file beyond names, shapes, configuration, losses and payload, and its number of parts."""
    grouped = {position for group in groups for position in group}
    chunks = [chunk(*(tensors[i] for i in group), payload=bytes(1000)) for group in groups]
    alone = [tensor for i, tensor in enumerate(tensors) if i not in grouped]
    chunks += [chunk(tensor, payload=bytes(100_000)) for tensor in alone]
    data = build(chunks, [TensorEntry(tensor) for tensor in tensors])
    with Reader(data) as reader:
        held = sorted(part.tensors for part in reader.parts)
        assert held == sorted(
            [tuple(group) for group in groups] + [(i,) for i in range(len(tensors)) if i not in grouped]
        )
    found = info(data)
    return found.overhead["other"], found.num_parts


def test_ten_thousand_tiny_tensors_in_several_groups_cost_64_bytes_and_8_a_part() -> None:
    tensors = [spec(f"layers.{i}.weight", i % 7, 3) for i in range(10_000)]
    for groups in (
        [(0, 10_000)],
        [(0, 4000), (4000, 9000), (9000, 10_000)],
        [(i, i + 2000) for i in range(0, 10_000, 2000)],
    ):
        size, num_parts = framing(tensors, [list(range(*group)) for group in groups])
        assert size <= 64 + 8 * num_parts


def test_small_tensors_among_large_ones_cost_no_list() -> None:
    layers = [
        tensor
        for i in range(48)
        for tensor in (
            spec(f"{i}.weight", 384, 384),
            spec(f"{i}.bias", 384),
            spec(f"{i}.norm", 384),
            spec(f"{i}.steps", dtype="int64"),
        )
    ]
    floats = [i for i, tensor in enumerate(layers) if tensor.num_elements == 384]
    scalars = [i for i, tensor in enumerate(layers) if not tensor.shape]
    size, num_parts = framing(layers, [floats, scalars])
    assert num_parts == 50
    assert size <= 64 + 8 * num_parts


def test_a_group_that_no_bound_parts_from_the_others_lists_runs() -> None:
    tensors = [spec(f"t{i}", 5) for i in range(10)]
    chunks = [chunk(*(tensors[i] for i in (1, 2, 5))), *(chunk(tensors[i]) for i in (0, 3, 4, 6, 7, 8, 9))]
    data = build(chunks, [TensorEntry(tensor) for tensor in tensors], bare=True)
    assert bytes([2, 2 * 64 & 127 | 128, 2 * 64 >> 7, 1, 2, 2, 1, 7]) in data


def test_ten_thousand_tiny_tensors_in_one_group_are_quick() -> None:
    tensors = [spec(f"layers.{i}.weight", i % 7, 3) for i in range(10_000)]
    start = time.perf_counter()
    data = build([chunk(*tensors)])
    with Reader(data) as reader:
        assert reader.read_chunk(0).tensors == tuple(tensors)
        assert reader.parts_of(9_999) == (0,)
    assert time.perf_counter() - start < 5  # measured: 0.4 s


@given(st.data())
def test_any_cut_into_parts_round_trips(data: st.DataObject) -> None:
    tensors = [spec(f"t{i}", *data.draw(st.lists(st.integers(0, 5), max_size=3))) for i in range(6)]
    owner = data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))
    chunks: list[Chunk] = []
    for group in sorted(set(owner)):
        members = [tensor for tensor, number in zip(tensors, owner, strict=True) if number == group]
        if len(members) == 1 and members[0].num_elements > 1:
            cut = data.draw(st.integers(1, members[0].num_elements - 1))
            spans = [(0, cut), (cut, members[0].num_elements)]
            chunks += [chunk(*members, payload=bytes([*span]), span=span) for span in spans]
        else:
            chunks.append(chunk(*members, payload=bytes([group])))
    with Reader(build(chunks, [TensorEntry(tensor) for tensor in tensors])) as reader:
        found = [one._replace(payload=bytes(one.payload)) for one in read_all(reader)]
        assert sorted(map(repr, found)) == sorted(repr(without_losses(one)) for one in chunks)


def test_payloads_of_bytes_are_views_of_them(tmp_path: Path) -> None:
    data = build([chunk(spec("a", 3), payload=b"payload")])
    path = tmp_path / "a.fewbits"
    path.write_bytes(data)
    with Reader(data) as reader:
        payload = reader.read_chunk(0).payload
        assert isinstance(payload, memoryview) and payload.obj is data and payload == b"payload"
    with pytest.raises(ValueError, match="closed"):
        reader.read_chunk(0)
    for source in (path, io.BytesIO(data)):
        with Reader(source) as reader:
            assert reader.read_chunk(0) == without_losses(chunk(spec("a", 3), payload=b"payload"))


REFUSED: dict[str, Callable[[], bytes]] = {
    "a tensor without chunk": lambda: build(CHUNKS[1:], TENSORS),
    "a tensor in two chunks": lambda: build([*CHUNKS, chunk(WEIGHT)], TENSORS),
    "a tensor whole and in tiles": lambda: build([*CHUNKS, chunk(LARGE)], TENSORS),
    "a hole between tiles": lambda: build([chunk(LARGE, span=(0, 8)), chunk(LARGE, span=(9, 20))]),
    "tiles of two methods": lambda: build(
        [chunk(LARGE, span=(0, 8)), chunk(LARGE, span=(8, 20), method="lossless")]
    ),
    "overlapping tiles": lambda: build([chunk(LARGE, span=(0, 8)), chunk(LARGE, span=(7, 20))]),
    "tiles that end early": lambda: build([chunk(LARGE, span=(0, 8))]),
    "tiles that end late": lambda: build([chunk(LARGE, span=(0, 21))]),
    "an empty tile": lambda: build([chunk(spec("empty", 0), span=(0, 0))]),
    "a tile of two tensors": lambda: build([chunk(WEIGHT, BIAS, span=(0, 16))]),
    "a chunk without tensors": lambda: build([chunk()]),
    "a group in another order": lambda: build([chunk(SCALE, BIAS)], [TensorEntry(BIAS), TensorEntry(SCALE)]),
    "a chunk of an alias": lambda: build([*CHUNKS, chunk(TENSORS[3].spec)], TENSORS),
    "a chunk with another shape": lambda: build([chunk(spec("bias", 5))], [TensorEntry(BIAS)]),
    "a chunk with another seed": lambda: build([chunk(BIAS, seed=8)]),
    "losses of some chunks only": lambda: build([chunk(BIAS), chunk(SCALE, losses=())]),
    "a loss that is no number": lambda: build([chunk(BIAS, losses=(Loss(math.nan, 1, 1),))]),
    "a duplicate name": lambda: build([chunk(BIAS)], [TensorEntry(BIAS), TensorEntry(BIAS)]),
    "a name that is not Unicode": lambda: build([chunk(spec("\ud800", 4))]),
    "metadata that is not Unicode": lambda: build([chunk(BIAS)], metadata={"key": "\ud800"}),
    "a config that is not JSON": lambda: build([chunk(BIAS, config={"key": b"bytes"})]),
    "a config with a huge integer": lambda: build([chunk(BIAS, config={"key": 2**64})]),
    "an unknown dtype": lambda: build([chunk(spec("odd", 4, dtype="int7"))]),
    "a negative dimension": lambda: build([chunk(spec("odd", -4))]),
    "too many elements": lambda: build([chunk(spec("odd", 2**32, 2**32))]),
    "an alias of a later tensor": lambda: build(
        [chunk(BIAS)], [TensorEntry(spec("tie", 4), 1), TensorEntry(BIAS)]
    ),
    "an alias of another shape": lambda: build(
        [chunk(BIAS)], [TensorEntry(BIAS), TensorEntry(spec("tie", 5), 0)]
    ),
    "a seed of 65 bits": lambda: build([chunk(BIAS, seed=2**64)], seed=2**64),
    "a negative rate weight": lambda: build([chunk(BIAS)], rate_weight=-1.0),
    "too many dimensions": lambda: build([chunk(spec("odd", *(1,) * 65))]),
    "an infinite rate weight": lambda: build([chunk(BIAS)], rate_weight=math.inf),
    "a fingerprint of a full file": lambda: build([chunk(BIAS)], fingerprint=1),
    "bare metadata": lambda: build([chunk(BIAS)], metadata={"format": "pt"}, bare=True),
    "a bare copy": lambda: build(CHUNKS, TENSORS, bare=True),
    "a bare unknown method": lambda: build([chunk(BIAS, method="unknown")], bare=True),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_the_writer_refuses(what: str) -> None:
    with pytest.raises(InvalidArgument):
        REFUSED[what]()


def test_a_bare_file_needs_its_module() -> None:
    data = small_bare_file()
    with pytest.raises(InvalidArgument, match="into="):
        Reader(data)
    with pytest.raises(InvalidArgument, match="another module"):
        Reader(data, specs=BARE_SPECS, fingerprint=fingerprint_of(BARE_SPECS[1:]))
    with Reader.peek(data) as reader:
        assert reader.bare and reader.fingerprint == fingerprint_of(BARE_SPECS)
        with pytest.raises(InvalidArgument, match="into="):
            reader.read_chunk(0)


def test_a_tie_counts_in_the_fingerprint_of_a_bare_file_and_is_stored_once() -> None:
    tie = TensorEntry(spec("tie", 4), 0, True)
    data = build([chunk(BIAS)], [TensorEntry(BIAS), tie], bare=True)
    with Reader(data, specs=[BIAS], fingerprint=fingerprint_of([BIAS, tie.spec])) as reader:
        assert reader.read_chunk(0).tensors == (BIAS,)


def test_a_bare_file_whose_parts_do_not_fit_the_module_is_corrupt() -> None:
    for specs in (BARE_SPECS[1:], (*BARE_SPECS, WEIGHT)):
        with pytest.raises(Corrupt):
            Reader(small_bare_file(), specs=specs, fingerprint=fingerprint_of(BARE_SPECS))


def test_the_limit_bounds_all_decoded_bytes_and_the_error_says_how_to_raise_it() -> None:
    decoded = 30 + 48 + 16 + 80 + 4 + 16  # the tie takes no memory of its own
    Reader(small_file(), limit=decoded).close()
    with pytest.raises(TooLarge, match="limit="):
        Reader(small_file(), limit=decoded - 1)
    with pytest.raises(TooLarge, match="--limit"):
        Reader(build([chunk(spec(f"large {i}", 2**24)) for i in range(17)]))
    assert EMBEDDING.num_bytes == 30


def test_a_part_of_more_than_2_to_the_24_elements_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    large = chunk(spec("large", 2**24 + 1))
    with pytest.raises(InvalidArgument, match="'large'"):
        build([large])
    monkeypatch.setattr("fewbits.container.placement.MAX_PART_ELEMENTS", 2**25)
    with pytest.raises(TooLarge, match="'large'"):
        Reader(build([large]))


def test_a_file_that_cannot_be_read_is_an_invalid_argument(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.fewbits", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(InvalidArgument, match="cannot read"):
            Reader(path)
