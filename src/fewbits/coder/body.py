"""All integers of a part as bytes: the body of a payload (docs/format.md, section 8).

Class indices, and everything of small parts, share one single-lane stream; the rest goes in 32-lane chunks.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.bits import EscapeReader, pack_escapes, raw_size, unpack_raw
from fewbits.coder.chunks import all_tables, chunk_count, encode_chunks, symbol_bounds
from fewbits.coder.elements import DecodedArray, Elements, Integers
from fewbits.coder.integers import ArraySpec, CodedArray, IntegerModel, ModelSet, SymbolStream, merge, split
from fewbits.coder.leb128 import Bytes, read_uint, write_uint
from fewbits.coder.rans import LANES, Groups, LaneDecoder, WideChunk, decode_wide, encode_lane
from fewbits.coder.table import Table
from fewbits.errors import Corrupt, InvalidArgument
from fewbits.native import core

_MOST_SYMBOLS_PER_BYTE = 45_440  # WIRE: a symbol in chunks costs at least log2(8192 / 8191) bit
_SLACK_BYTES = 64  # WIRE: what the lanes' states can hold without a word
_TOO_SHORT = "a payload is too short for the symbols it declares."
_NO_RAW_BITS = "a body's raw bits run past its end."
_MOST_WIDE_MODELS = 1 << 16  # WIRE: of all arrays of a body in chunks: decoders hold them all at a time

NARROW_BITS = 40  # of a body beyond its symbols: lengths, and what a lane's state holds in vain
_WIDE_BITS = 93 * 8  # what a 32-lane chunk costs more
# Below, 32 lanes would cost more than 0.6 % of the part, and mostly zeros in one lane are quick to decode.
LEAST_WIDE_BITS = 1 << 17


def framing_bits(bits: float) -> int:
    """What a body costs beyond its symbols, of this many bits, if it is wide from LEAST_WIDE_BITS on."""
    if bits < LEAST_WIDE_BITS:
        return NARROW_BITS
    return NARROW_BITS + chunk_count(math.ceil(bits)) * _WIDE_BITS


def encode_body(arrays: Sequence[CodedArray], *, wide: bool, head: bytes = b"") -> bytes:
    """Encode the integers of a part's arrays: a body of docs/format.md, section 8.

    Args:
        wide: 32-lane chunks for the arrays' symbols; else all in one lane, unless section 10 refuses that.
        head: what precedes the body in its payload, and in the bytes returned; no byte of the body depends on it.

    Raises:
        InvalidArgument: there are too many class indices that cost nothing.
    """
    payload, num_symbols = _encode(arrays, wide, head)
    if num_symbols <= _most_symbols(len(payload) - len(head)):
        return payload
    # A lane's symbols may cost nothing, as all of them in a table's first slots. The plans' pools of at most 2^20
    # elements (twice as many symbols, where complex or sparse) are below the limit of an empty body, 2.9 million: only
    # other callers and sparse complex tensors can get here.
    if wide:
        raise InvalidArgument("a part has more classes of rows coded for nothing than a reader would believe.")
    return encode_body(arrays, wide=True, head=head)


def _most_symbols(body_size: int) -> int:
    return _MOST_SYMBOLS_PER_BYTE * (body_size + _SLACK_BYTES)


def _encode(arrays: Sequence[CodedArray], wide: bool, before: bytes) -> tuple[bytes, int]:
    """Return a body after the bytes before it, and how many symbols it holds, class indices included."""
    compiled = core()
    if compiled is not None:
        return compiled.encode_body(list(arrays), wide, 1, before)
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
    num_symbols = sum(symbols.size for _, symbols in lane) + sum(part.symbols.size for part in main)
    stream = encode_lane(lane)
    escapes = pack_escapes(
        np.concatenate([part.distances for part in lane_parts] or [np.zeros(0, np.uint64)]),
        np.concatenate([part.below for part in lane_parts] or [np.zeros(0, np.bool_)]),
    )
    head = bytes([int(wide)]) + write_uint(len(stream)) + write_uint(len(escapes))
    if not wide:
        return b"".join([before, head, stream, escapes, *raw]), num_symbols
    sizes, chunks = encode_chunks(main, [array.models.models for array in arrays])
    return b"".join([before, head, *sizes, stream, escapes, *chunks, *raw]), num_symbols


def _add_runs(lane: list[tuple[Table, NDArray[np.uint8]]], part: SymbolStream, models: Sequence[IntegerModel]) -> None:
    position = 0
    for length, index in zip(part.lengths.tolist(), part.tables.tolist(), strict=True):
        table = models[index].table
        assert table is not None
        lane.append((table, part.symbols[position : position + length]))
        position += length


def decode_body(data: Bytes, specs: Sequence[ArraySpec]) -> list[NDArray[np.int64]]:
    """Decode a body; returns each array's values, (R, n) int64.

    Raises:
        Corrupt: the body breaks a rule of docs/format.md, sections 8 to 10.
    """
    values = [np.empty((spec.num_rows, spec.row_length), np.int64) for spec in specs]
    decode_into(data, specs, [Integers(array) for array in values])
    return values


def check_size(data: Bytes, specs: Sequence[ArraySpec]) -> None:
    """Check that a body can hold the symbols and raw bits of its arrays, as far as that shows before it is read.

    For who takes memory for arrays before they are decoded.

    Raises:
        Corrupt: it cannot.
    """
    one_class = [spec for spec in specs if spec.models.class_model is None]
    sizes = [spec.num_rows * spec.row_length for spec in one_class]
    _check_sizes(len(data), sizes, [spec.models.models[0] for spec in one_class])


def _check_sizes(num_bytes: int, sizes: Sequence[int], models: Sequence[IntegerModel]) -> None:
    num_symbols = num_raw_bytes = 0
    for size, (table, shift, _) in zip(sizes, models, strict=True):
        if table is not None:
            num_symbols += size
        if shift:
            num_raw_bytes += raw_size(size, shift)
    if num_symbols > _most_symbols(num_bytes):
        raise Corrupt(_TOO_SHORT)
    if num_raw_bytes > num_bytes:
        raise Corrupt(_NO_RAW_BITS)


def decode_rows(
    data: Bytes,
    models: Sequence[IntegerModel],
    lengths: NDArray[np.int64],
    *,
    num_threads: int = 1,
    allocate: Callable[[int], NDArray[np.int32]] | None = None,
) -> NDArray[np.int32]:
    """Decode a body of arrays of one row and one model each.

    Args:
        models: of the arrays (M,).
        lengths: elements of each (M,).
        num_threads: as for `decode_into`.
        allocate: gives an array (N,) int32 for them all, if not a fresh one.

    Returns:
        Their values modulo 2^32, array after array; no memory is taken for them if `data` cannot hold them.

    Raises:
        Corrupt: the body breaks a rule of docs/format.md, sections 8 to 10.
    """
    sizes = lengths.tolist()
    _check_sizes(len(data), sizes, models)
    values = (allocate or _fresh)(sum(sizes))
    if compiled := core():
        compiled.decode_rows(data, list(models), lengths, values, num_threads)
        return values
    specs = [ArraySpec(1, size, ModelSet((model,))) for size, model in zip(sizes, models, strict=True)]
    decode_into(data, specs, [Integers(part) for part in np.split(values, np.cumsum(lengths)[:-1])])
    return values


def _fresh(size: int) -> NDArray[np.int32]:
    return np.empty(size, np.int32)


def decode_into(data: Bytes, specs: Sequence[ArraySpec], elements: Sequence[Elements], *, num_threads: int = 1) -> None:
    """Decode a body to where its arrays' elements belong.

    Args:
        num_threads: that the compiled core may use for the chunks of this one body.

    Raises:
        Corrupt: the body breaks a rule of docs/format.md, sections 8 to 10, or an integer is none of an element.
            The elements then hold anything.
    """
    compiled = core()
    if compiled is not None:
        compiled.decode_body(data, list(specs), [each.native(compiled.Output) for each in elements], num_threads)
        return
    for decoded, each in zip(_BodyReader(data, specs).read(), elements, strict=True):
        each.write(decoded)


class _BodyReader:
    """Reads one body: first the sizes of its streams, then array after array."""

    def __init__(self, data: Bytes, specs: Sequence[ArraySpec]) -> None:
        self._data, self._specs = memoryview(data), specs
        if not data or data[0] > 1:
            raise Corrupt("a body's layout is not known.")
        self._wide = data[0] == 1
        if self._wide and sum(len(spec.models.models) for spec in specs) > _MOST_WIDE_MODELS:
            raise Corrupt(f"a body in chunks has more than {_MOST_WIDE_MODELS} models.")
        self._symbols_left = _most_symbols(len(data))
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
        self._lane = LaneDecoder(bytes(data[position : position + lane_size]))
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
            has_table = np.array([model.table is not None for model in spec.models.models])
            self._spend(int(np.count_nonzero(has_table[classes[-1]])) * spec.row_length)
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

    def _spend(self, num_symbols: int) -> None:
        """Count symbols before they are decoded: a few bytes must not stand for any number of them."""
        if num_symbols > self._symbols_left:
            raise Corrupt(_TOO_SHORT)
        self._symbols_left -= num_symbols

    def _classes(self, spec: ArraySpec) -> NDArray[np.int64]:
        model = spec.models.class_model
        if model is None:
            return np.zeros(spec.num_rows, np.int64)
        if spec.num_rows * spec.row_length == 0:
            raise Corrupt("an array without elements has classes of rows.")
        if model.table is not None:
            self._spend(spec.num_rows)
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
        order = np.argsort(classes, kind="stable")
        num_rows = np.bincount(classes, minlength=len(spec.models.models))
        low = np.zeros((spec.num_rows, spec.row_length), np.int64)
        stop = np.cumsum(num_rows)
        for index in np.flatnonzero(num_rows).tolist():
            width = spec.models.models[index].shift
            count = int(num_rows[index]) * spec.row_length
            end = self._raw_at + raw_size(count, width)
            if end > len(self._data):
                raise Corrupt(_NO_RAW_BITS)
            if width:
                values = unpack_raw(self._data[self._raw_at : end], count, width)
                rows = order[stop[index] - num_rows[index] : stop[index]]
                low[rows] = values.view(np.int64).reshape(rows.size, spec.row_length)
            self._raw_at = end
        return low

    def _wide_symbols(
        self, classes: Sequence[NDArray[np.int64]]
    ) -> tuple[list[NDArray[np.uint8]], list[tuple[NDArray[np.uint64], NDArray[np.bool_]]]]:
        """Decode the chunks; returns each array's symbols and escapes."""
        tables, places = all_tables([spec.models.models for spec in self._specs])
        lengths: list[NDArray[np.int64]] = []
        segment_tables: list[NDArray[np.int64]] = []
        for spec, indices, place in zip(self._specs, classes, places, strict=True):
            coded = indices[np.array([model.table is not None for model in spec.models.models])[indices]]
            lengths.append(np.full(coded.size, spec.row_length, np.int64))
            segment_tables.append(place[coded])
        groups = Groups.of_segments(np.concatenate(lengths), np.concatenate(segment_tables))
        sizes = [size for size, _, _ in self._chunk_sizes]
        total = int(groups.length.sum())
        if sum(sizes) != total or 0 in sizes:
            raise Corrupt("a body's chunks do not have the elements it declares.")
        ends = np.cumsum(np.array(sizes, np.int64))
        bounds = np.concatenate([[0], np.searchsorted(groups.start + groups.length, ends) + 1])
        if ends.size and not np.array_equal(symbol_bounds(groups, bounds)[1:], ends):
            raise Corrupt("a chunk does not end with a group.")
        if not total:
            nothing = np.zeros(0, np.uint8)
            return [nothing] * len(classes), [(np.zeros(0, np.uint64), np.zeros(0, np.bool_))] * len(classes)
        chunks, readers = self._chunks()
        symbols = decode_wide(chunks, groups, bounds, tables)
        escape = np.array([table.num_values for table in tables])[np.repeat(groups.table, groups.length)]
        escaped_before = np.concatenate([[0], np.cumsum(symbols == escape)])
        taken: list[tuple[NDArray[np.uint64], NDArray[np.bool_]]] = []
        counts = np.diff(escaped_before[np.concatenate([[0], ends])])
        for reader, count in zip(readers, counts.tolist(), strict=True):
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
