"""The 32-lane chunks of a body: which table codes which symbols, where chunks are cut (docs/format.md, section 8)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewbits.coder.bits import pack_escapes
from fewbits.coder.integers import IntegerModel, SymbolStream
from fewbits.coder.leb128 import write_uint
from fewbits.coder.rans import LANES, Groups, encode_wide
from fewbits.coder.table import FREQUENCY_COSTS, Table

CHUNK_BITS = 1 << 20  # 128 KiB of words: a chunk's 128 bytes of states are then about 0.1 %
LOCKSTEP = 6  # chunks that the widest decoder takes at a time
_WHOLE_ROW = 4096  # symbols of a segment that no chunk ends within: segments then end in lockstep
_PLACEHOLDER = Table(0, (4096, 4096), 0)  # stands for a model without a table; no symbol ever uses it


def encode_chunks(
    parts: Sequence[SymbolStream], models: Sequence[Sequence[IntegerModel]]
) -> tuple[list[bytes], list[bytes]]:
    """Return the chunk list's fields and the chunks."""
    symbols = np.concatenate([part.symbols for part in parts])
    tables, indices = all_tables(models)
    segment_tables = np.concatenate([indices[i][part.tables] for i, part in enumerate(parts)])
    lengths = np.concatenate([part.lengths for part in parts])
    groups = Groups.of_segments(lengths, segment_tables)
    if symbols.size == 0:
        return [write_uint(0)], []
    raw_bits = sum(8 * len(part.raw) for part in parts)
    bounds = _whole_rows(_chunk_bounds(symbols, groups, tables, raw_bits), lengths)
    encoded = encode_wide(symbols, groups, bounds, tables)
    firsts = np.cumsum([0] + [part.symbols.size for part in parts])
    escaped = np.concatenate([first + part.escaped for first, part in zip(firsts[:-1], parts, strict=True)])
    distances = np.concatenate([part.distances for part in parts])
    below = np.concatenate([part.below for part in parts])
    edges = symbol_bounds(groups, bounds)
    cuts = np.searchsorted(escaped, edges)
    sizes = [write_uint(len(encoded))]
    chunks: list[bytes] = []
    for i, chunk in enumerate(encoded):
        escapes = pack_escapes(distances[cuts[i] : cuts[i + 1]], below[cuts[i] : cuts[i + 1]])
        sizes.append(write_uint(int(edges[i + 1] - edges[i])))
        sizes.append(write_uint(chunk.words.size) + write_uint(len(escapes)))
        chunks += [chunk.states.astype("<u4").tobytes(), chunk.words.astype("<u2").tobytes(), escapes]
    return sizes, chunks


def all_tables(models: Sequence[Sequence[IntegerModel]]) -> tuple[list[Table], list[NDArray[np.int64]]]:
    """All different tables in one list, and for each array its models' places in it.

    A model without a table has a place as well; no segment ever uses it.
    """
    places: dict[Table, int] = {}
    indices = [
        np.array([places.setdefault(model.table or _PLACEHOLDER, len(places)) for model in set_], np.int64)
        for set_ in models
    ]
    return list(places), indices


def chunk_count(bits: int, raw_bits: int = 0) -> int:
    """Into how many chunks this many bits of symbols are cut, of about CHUNK_BITS each.

    More than LOCKSTEP are a multiple of it: a decoder would be slower with the few that it would end with otherwise.
    Beside many raw bits there are more, up to LOCKSTEP, whose states are nothing there.
    """
    chunks = -(-bits // CHUNK_BITS) or 1
    if chunks > LOCKSTEP:
        chunks = (chunks + LOCKSTEP // 2) // LOCKSTEP * LOCKSTEP
    return max(chunks, min(LOCKSTEP, -(-(bits + raw_bits) // CHUNK_BITS)))


def _chunk_bounds(
    symbols: NDArray[np.uint8], groups: Groups, tables: Sequence[Table], raw_bits: int
) -> NDArray[np.int64]:
    """Cut groups into chunks of nearly equal cost."""
    costs = np.stack([FREQUENCY_COSTS[table.counts] for table in tables])
    cost = costs[np.repeat(groups.table, groups.length), symbols]
    total = np.cumsum(cost)[groups.start + groups.length - 1] >> 16  # bits up to and with each group
    num = chunk_count(int(total[-1]), raw_bits)
    cuts = np.searchsorted(total, int(total[-1]) * np.arange(1, num) // num) + 1
    return np.unique(np.concatenate([[0], cuts, [groups.start.size]])).astype(np.int64)


def _whole_rows(bounds: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move bounds, counted in groups, from within short segments (S,) to their ends."""
    ends = np.cumsum(-(-lengths // LANES))  # of segments, in groups
    within = bounds[1:-1]
    segment = np.searchsorted(ends, within)  # the one that ends there, or goes on
    within = np.where(lengths[segment] <= _WHOLE_ROW, ends[segment], within)
    return np.unique(np.concatenate([bounds[:1], within, bounds[-1:]]))


def symbol_bounds(groups: Groups, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.concatenate([groups.start, [groups.start[-1] + groups.length[-1]]])
    return ends[bounds]
