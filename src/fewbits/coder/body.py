"""All integers of a part as bytes: the body of a payload (docs/format.md, section 8).

Class indices, and everything of small parts, share one single-lane stream; the rest goes in 32-lane chunks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.bits import EscapeReader, pack_escapes, raw_size, unpack_raw
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet, SymbolStream, merge, split
from fewbits.coder.leb128 import read_uint, write_uint
from fewbits.coder.rans import LANES, Groups, LaneDecoder, WideChunk, decode_wide, encode_lane, encode_wide
from fewbits.coder.table import FREQUENCY_COSTS, Table
from fewbits.errors import Corrupt

CHUNK_BITS = 1 << 20  # 128 KiB of words: a chunk's 128 bytes of states are then about 0.1 %
_MOST_SYMBOLS_PER_BYTE = 45_440  # a symbol costs at least log2(8192 / 8191) bit
_PLACEHOLDER = Table(0, (4096, 4096), 0)  # stands for a model without a table; no symbol ever uses it


def encode_body(arrays: Sequence[CodedArray], *, wide: bool) -> bytes:
    """Encode the integers of a part's arrays: a body of docs/format.md, section 8.

    Args:
        wide: 32-lane chunks for the arrays' symbols; else all in one lane.
    """
    lane: list[tuple[Table, NDArray[np.uint8]]] = []
    lane_parts: list[SymbolStream] = []
    raw: list[bytes] = []
    main: list[SymbolStream] = []
    for array in arrays:
        if array.classes is not None:
            assert array.models.class_model is not None
            indices = split(CodedArray(array.classes, ModelSet((array.models.class_model,))))
            _add_runs(lane, indices, (array.models.class_model,))
            lane_parts.append(indices)
            raw.append(indices.raw)
        part = split(array)
        raw.append(part.raw)
        if wide:
            main.append(part)
        else:
            _add_runs(lane, part, array.models.models)
            lane_parts.append(part)
    stream = encode_lane(lane)
    escapes = pack_escapes(
        np.concatenate([part.distances for part in lane_parts] or [np.zeros(0, np.uint64)]),
        np.concatenate([part.below for part in lane_parts] or [np.zeros(0, np.bool_)]),
    )
    head = bytes([int(wide)]) + write_uint(len(stream)) + write_uint(len(escapes))
    if not wide:
        return b"".join([head, stream, escapes, *raw])
    sizes, chunks = _encode_chunks(main, [array.models.models for array in arrays])
    return b"".join([head, *sizes, stream, escapes, *chunks, *raw])


def _add_runs(
    lane: list[tuple[Table, NDArray[np.uint8]]], part: SymbolStream, models: Sequence[IntegerModel]
) -> None:
    position = 0
    for length, index in zip(part.lengths.tolist(), part.tables.tolist(), strict=True):
        table = models[index].table
        assert table is not None
        lane.append((table, part.symbols[position : position + length]))
        position += length


def _encode_chunks(
    parts: Sequence[SymbolStream], models: Sequence[Sequence[IntegerModel]]
) -> tuple[list[bytes], list[bytes]]:
    """Return the chunk list's fields and the chunks."""
    symbols = np.concatenate([part.symbols for part in parts])
    tables, offsets = _all_tables(models)
    segment_tables = np.concatenate([offsets[i] + part.tables for i, part in enumerate(parts)])
    # Segment tables index models; models without a table have no symbols and never occur here.
    groups = Groups.of_segments(np.concatenate([part.lengths for part in parts]), segment_tables)
    if symbols.size == 0:
        return [write_uint(0)], []
    bounds = _chunk_bounds(symbols, groups, tables)
    encoded = encode_wide(symbols, groups, bounds, tables)
    firsts = np.cumsum([0] + [part.symbols.size for part in parts])
    escaped = np.concatenate([first + part.escaped for first, part in zip(firsts[:-1], parts, strict=True)])
    distances = np.concatenate([part.distances for part in parts])
    below = np.concatenate([part.below for part in parts])
    edges = _symbol_bounds(groups, bounds)
    cuts = np.searchsorted(escaped, edges)
    sizes = [write_uint(len(encoded))]
    chunks: list[bytes] = []
    for i, chunk in enumerate(encoded):
        escapes = pack_escapes(distances[cuts[i] : cuts[i + 1]], below[cuts[i] : cuts[i + 1]])
        sizes.append(write_uint(int(edges[i + 1] - edges[i])))
        sizes.append(write_uint(chunk.words.size) + write_uint(len(escapes)))
        chunks += [chunk.states.astype("<u4").tobytes(), chunk.words.astype("<u2").tobytes(), escapes]
    return sizes, chunks


def _all_tables(models: Sequence[Sequence[IntegerModel]]) -> tuple[list[Table], list[int]]:
    """All models' tables in one list, and where each array's begin; models without a table hold a place."""
    tables: list[Table] = []
    offsets: list[int] = []
    for set_ in models:
        offsets.append(len(tables))
        tables += [model.table or _PLACEHOLDER for model in set_]
    return tables, offsets


def _chunk_bounds(symbols: NDArray[np.uint8], groups: Groups, tables: Sequence[Table]) -> NDArray[np.int64]:
    """Cut groups into chunks of nearly equal cost, about CHUNK_BITS each."""
    costs = np.stack([FREQUENCY_COSTS[table.counts] for table in tables])
    cost = costs[np.repeat(groups.table, groups.length), symbols]
    total = np.cumsum(cost)[groups.start + groups.length - 1] >> 16  # bits up to and with each group
    num = -(-int(total[-1]) // CHUNK_BITS) or 1
    cuts = np.searchsorted(total, int(total[-1]) * np.arange(1, num) // num) + 1
    return np.unique(np.concatenate([[0], cuts, [groups.start.size]])).astype(np.int64)


def _symbol_bounds(groups: Groups, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.concatenate([groups.start, [groups.start[-1] + groups.length[-1]]])
    return ends[bounds]


class DecodedArray(NamedTuple):
    """One array of a body: values (R, n) int64 and the rows' classes (R,) int64."""

    values: NDArray[np.int64]
    classes: NDArray[np.int64]


def decode_body(data: bytes, specs: Sequence[ArraySpec]) -> list[DecodedArray]:
    """Decode a body.

    Raises:
        Corrupt: the body breaks a rule of docs/format.md, sections 8 to 10.
    """
    return _BodyReader(data, specs).read()


class _BodyReader:
    """Reads one body: first the sizes of its streams, then array after array."""

    def __init__(self, data: bytes, specs: Sequence[ArraySpec]) -> None:
        self._data, self._specs = memoryview(data), specs
        if not data or data[0] > 1:
            raise Corrupt("a body's layout is not known.")
        self._wide = data[0] == 1
        coded = sum(s.num_rows * s.row_length for s in specs if any(m.table for m in s.models.models))
        indices = sum(s.num_rows for s in specs if s.models.class_model is not None)
        if coded + indices > _MOST_SYMBOLS_PER_BYTE * (len(data) + 64):
            raise Corrupt("a payload is too short for the elements it declares.")
        lane_size, position = read_uint(data, 1)
        lane_escape_size, position = read_uint(data, position)
        self._chunk_sizes: list[tuple[int, int, int]] = []
        if self._wide:
            num_chunks, position = read_uint(data, position)
            if num_chunks > len(data):
                raise Corrupt("a body has more chunks than bytes.")
            for _ in range(num_chunks):
                num_symbols, position = read_uint(data, position)
                num_words, position = read_uint(data, position)
                escape_size, position = read_uint(data, position)
                self._chunk_sizes.append((num_symbols, num_words, escape_size))
        chunk_bytes = sum(4 * LANES + 2 * words + escapes for _, words, escapes in self._chunk_sizes)
        if position + lane_size + lane_escape_size + chunk_bytes > len(data):
            raise Corrupt("a body's streams run past its end.")
        self._lane = LaneDecoder(data[position : position + lane_size])
        self._chunks_at = position + lane_size + lane_escape_size
        self._lane_escapes = EscapeReader(self._data[position + lane_size : self._chunks_at])
        self._raw_at = self._chunks_at + chunk_bytes

    def read(self) -> list[DecodedArray]:
        """Read all arrays."""
        classes: list[NDArray[np.int64]] = []
        lows: list[NDArray[np.int64]] = []
        symbols: list[NDArray[np.uint8]] = []
        escapes: list[tuple[NDArray[np.uint64], NDArray[np.bool_]]] = []
        for spec in self._specs:
            classes.append(self._classes(spec))
            if not self._wide:
                symbols.append(self._lane_symbols(spec, classes[-1]))
                escapes.append(self._lane_escapes.take(int(_is_escape(spec, classes[-1], symbols[-1]).sum())))
            lows.append(self._low(spec, classes[-1]))
        self._lane.finish()
        self._lane_escapes.finish()
        if self._raw_at != len(self._data):
            raise Corrupt("bytes are left over at a body's end.")
        if self._wide:
            symbols, escapes = self._wide_symbols(classes)
        return [
            DecodedArray(merge(spec, indices, array, *escaped, low), indices)
            for spec, indices, array, escaped, low in zip(self._specs, classes, symbols, escapes, lows, strict=True)
        ]

    def _classes(self, spec: ArraySpec) -> NDArray[np.int64]:
        model = spec.models.class_model
        if model is None:
            return np.zeros(spec.num_rows, np.int64)
        array = ArraySpec(1, spec.num_rows, ModelSet((model,)))
        one = np.zeros(1, np.int64)
        symbols = self._lane_symbols(array, one)
        distances, below = self._lane_escapes.take(int(_is_escape(array, one, symbols).sum()))
        indices = merge(array, one, symbols, distances, below, self._low(array, one)).ravel()
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= len(spec.models.models)):
            raise Corrupt("a row's class has no model.")
        return indices

    def _lane_symbols(self, spec: ArraySpec, classes: NDArray[np.int64]) -> NDArray[np.uint8]:
        tables = [spec.models.models[index].table for index in classes.tolist()]
        taken = [self._lane.take(table, spec.row_length) for table in tables if table is not None]
        return np.concatenate([np.zeros(0, np.uint8), *taken])

    def _low(self, spec: ArraySpec, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The next array's raw bits, (R, n) int64."""
        rows = [classes == index for index in range(len(spec.models.models))]
        counts = [int(mask.sum()) * spec.row_length for mask in rows]
        widths = [model.shift for model in spec.models.models]
        sizes = [raw_size(count, width) for count, width in zip(counts, widths, strict=True)]
        if self._raw_at + sum(sizes) > len(self._data):
            raise Corrupt("a body's raw bits run past its end.")
        low = np.zeros((spec.num_rows, spec.row_length), np.int64)
        for mask, count, width, size in zip(rows, counts, widths, sizes, strict=True):
            if size:
                values = unpack_raw(self._data[self._raw_at : self._raw_at + size], count, width)
                low[mask] = values.view(np.int64).reshape(-1, spec.row_length)
            self._raw_at += size
        return low

    def _wide_symbols(
        self, classes: Sequence[NDArray[np.int64]]
    ) -> tuple[list[NDArray[np.uint8]], list[tuple[NDArray[np.uint64], NDArray[np.bool_]]]]:
        """Decode the chunks; returns each array's symbols and escapes."""
        tables, offsets = _all_tables([spec.models.models for spec in self._specs])
        lengths: list[NDArray[np.int64]] = []
        segment_tables: list[NDArray[np.int64]] = []
        for spec, indices, offset in zip(self._specs, classes, offsets, strict=True):
            coded = indices[np.array([model.table is not None for model in spec.models.models])[indices]]
            lengths.append(np.full(coded.size, spec.row_length, np.int64))
            segment_tables.append(offset + coded)
        groups = Groups.of_segments(np.concatenate(lengths), np.concatenate(segment_tables))
        ends = np.cumsum([size for size, _, _ in self._chunk_sizes])
        bounds = np.concatenate([[0], np.searchsorted(groups.start + groups.length, ends) + 1]).astype(np.int64)
        total = int(groups.length.sum())
        if (int(ends[-1]) if ends.size else 0) != total or any(size == 0 for size, _, _ in self._chunk_sizes):
            raise Corrupt("a body's chunks do not have the elements it declares.")
        if ends.size and not np.array_equal(_symbol_bounds(groups, bounds)[1:], ends):
            raise Corrupt("a chunk does not end with a group.")
        if not total:
            nothing = np.zeros(0, np.uint8)
            return [nothing] * len(classes), [(np.zeros(0, np.uint64), np.zeros(0, np.bool_))] * len(classes)
        chunks, readers = self._chunks()
        symbols = decode_wide(chunks, groups, bounds, tables)
        escape = np.array([table.num_values for table in tables])[np.repeat(groups.table, groups.length)]
        escaped_before = np.concatenate([[0], np.cumsum(symbols == escape)])
        taken: list[tuple[NDArray[np.uint64], NDArray[np.bool_]]] = []
        for reader, count in zip(readers, np.diff(escaped_before[np.concatenate([[0], ends])]).tolist(), strict=True):
            taken.append(reader.take(count))
            reader.finish()
        distances = np.concatenate([part[0] for part in taken])
        below = np.concatenate([part[1] for part in taken])
        edges = np.cumsum([0] + [int(length.sum()) for length in lengths])
        at = escaped_before[edges]
        spans = range(len(classes))
        return (
            [symbols[edges[i] : edges[i + 1]] for i in spans],
            [(distances[at[i] : at[i + 1]], below[at[i] : at[i + 1]]) for i in spans],
        )

    def _chunks(self) -> tuple[list[WideChunk], list[EscapeReader]]:
        chunks: list[WideChunk] = []
        readers: list[EscapeReader] = []
        position = self._chunks_at
        for _, num_words, escape_size in self._chunk_sizes:
            states = np.frombuffer(self._data, "<u4", LANES, position)
            position += 4 * LANES
            words = np.frombuffer(self._data, "<u2", num_words, position)
            position += 2 * num_words
            chunks.append(WideChunk(states, words))
            readers.append(EscapeReader(self._data[position : position + escape_size]))
            position += escape_size
        return chunks, readers


def _is_escape(spec: ArraySpec, classes: NDArray[np.int64], symbols: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(rows with a table, n) whether each symbol of an array is its table's escape."""
    num_values = [model.table.num_values if model.table else -1 for model in spec.models.models]
    of_rows = np.array(num_values)[classes]
    return symbols.reshape(-1, spec.row_length or 1) == of_rows[of_rows >= 0][:, None]
