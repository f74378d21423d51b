#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include "bits.h"
#include "body.h"
#include "isa.h"
#include "lane.h"
#include "leb128.h"
#include "parallel.h"
#include "split.h"
#include "wide.h"

namespace fewbits {
namespace {

constexpr size_t kCostBlock = 2048;  // symbols whose costs are looked up at a time; a multiple of 32

// What a table takes to encode with, and what its symbols cost.
struct CodingTable {
    explicit CodingTable(const Table& table) {
        fill_encode(alias_table(table), encode);
        for (int s = 0; s < kMaxSymbols; ++s) {
            const uint16_t count = table.counts[static_cast<size_t>(s)];
            costs.set(s, count == 0 ? 0 : static_cast<uint64_t>(frequency_costs()[count]));
        }
    }

    EncodeTable encode;
    SymbolMap costs;  // in 1/65536 bit, below 2^20 each; 0 for what cannot occur
};

// Tables of all classes of some arrays, made when they are first asked for.
class CodingTables {
public:
    explicit CodingTables(const std::vector<IntegerModel>& models) : models_(models), tables_(models.size()) {}

    const CodingTable& of(size_t index) {
        if (!tables_[index]) tables_[index] = std::make_unique<CodingTable>(models_[index].table);
        return *tables_[index];
    }

private:
    std::vector<IntegerModel> models_;
    std::vector<std::unique_ptr<CodingTable>> tables_;
};

// All symbols of a wide body as rows, and where its groups lie: the plan that chunks are cut from.
struct Row {
    const uint8_t* symbols;
    size_t length;
    const CodingTable* table;
};


class WideEncoder {
public:
    explicit WideEncoder(uint64_t chunk_bits) : chunk_bits_(chunk_bits) {}

    void add(const SymbolStream& stream, CodingTables& tables) {
        if (stream.row_length == 0) return;
        const uint8_t* symbols = stream.symbols.get();
        for (const uint32_t k : stream.classes) {
            rows_.push_back({symbols, stream.row_length, &tables.of(k)});
            symbols += stream.row_length;
        }
        for (const EscapedSymbol& escaped : stream.escapes) {
            escapes_.push_back({num_symbols_ + escaped.position, escaped.escape});
        }
        num_symbols_ += stream.num_symbols;
        for (const BitWriter& raw : stream.raw) raw_bits_ += 8 * uint64_t{raw.size()};
        for (const RawRows& raw : stream.packed) raw_bits_ += 8 * uint64_t{raw.size};
    }

    struct Chunk {
        uint64_t num_symbols = 0;
        std::vector<uint8_t> states, words;
        BitWriter escapes;
    };

    // Appends the chunk list to `head`; returns the chunks.
    std::vector<Chunk> encode(std::vector<uint8_t>& head, int num_threads) {
        cut();
        const size_t num_chunks = bounds_.empty() ? 0 : bounds_.size() - 1;
        write_uint(head, num_chunks);
        std::vector<Chunk> encoded(num_chunks);
        const auto threads = std::min(static_cast<size_t>(std::max(num_threads, 1)), num_chunks);
        const size_t share = threads == 0 ? 0 : (num_chunks + threads - 1) / threads;
        const size_t together = std::min(share, static_cast<size_t>(kernels().num_streams));
        std::atomic<size_t> next{0};
        on_threads(threads, [&](size_t) {
            for (size_t i; (i = next.fetch_add(together)) < num_chunks;) {
                encode_together(i, std::min(i + together, num_chunks), encoded);
            }
        });
        for (const Chunk& chunk : encoded) {
            write_uint(head, chunk.num_symbols);
            write_uint(head, chunk.words.size() / 2);
            write_uint(head, chunk.escapes.size());
        }
        return encoded;
    }

private:

    // A place between two groups: a row, a column that is a multiple of 32, and the symbol there.
    struct Bound {
        size_t row = 0, column = 0;
        uint64_t symbol = 0;
    };

    // Cuts the groups into chunks of nearly equal cost.
    void cut() {
        if (num_symbols_ == 0) return;
        std::vector<uint64_t> bits(static_cast<size_t>(num_symbols_ / kLanes) + rows_.size());  // up to and with each group
        size_t num_groups = 0;
        uint64_t total = 0;
        uint32_t costs[kCostBlock];
        const Kernels& inner = kernels();
        for (const Row& row : rows_) {
            for (size_t column = 0; column < row.length; column += kCostBlock) {
                const size_t count = std::min(kCostBlock, row.length - column);
                if (count % (2 * kLanes) == 0 && inner.sum_groups != nullptr) {
                    inner.sum_groups(row.table->costs, row.symbols + column, count / kLanes, costs);
                    for (size_t i = 0; i < count / kLanes; ++i) {
                        total += costs[i];
                        bits[num_groups++] = total >> 16;
                    }
                    continue;
                }
                inner.map_symbols(row.table->costs, 4, row.symbols + column, count, reinterpret_cast<uint8_t*>(costs));
                for (size_t i = 0; i < count; i += kLanes) {
                    total += sum_of_costs(costs + i, std::min<size_t>(kLanes, count - i));
                    bits[num_groups++] = total >> 16;
                }
            }
        }
        bits.resize(num_groups);
        const uint64_t last = bits.back();
        const auto chunks_of = [this](uint64_t each) { return std::max<uint64_t>(1, (each + chunk_bits_ - 1) / chunk_bits_); };
        uint64_t num = chunks_of(last);
        if (num > kLockstep) num = (num + kLockstep / 2) / kLockstep * kLockstep;
        // Beside raw bits the states of a few more are nothing.
        num = std::max(num, std::min(kLockstep, chunks_of(last + raw_bits_)));
        std::vector<size_t> cuts = {0};
        for (uint64_t k = 1; k < num; ++k) {
            const auto at = std::lower_bound(bits.begin(), bits.end(), last * k / num);
            cuts.push_back(static_cast<size_t>(at - bits.begin()) + 1);
        }
        cuts.push_back(bits.size());
        cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
        place(cuts);
    }

    void place(const std::vector<size_t>& cuts) {
        Bound bound;
        size_t group = 0;
        for (const size_t cut : cuts) {
            while (group < cut) {
                const size_t length = rows_[bound.row].length;
                const size_t in_row = (length - bound.column + kLanes - 1) / kLanes;
                const size_t taken = length <= kWholeRow ? in_row : std::min(in_row, cut - group);
                group += taken;
                const size_t column = bound.column + taken * kLanes;
                if (taken < in_row) {
                    bound.symbol += taken * kLanes;
                    bound.column = column;
                } else {
                    bound.symbol += length - bound.column;
                    bound.column = 0;
                    ++bound.row;
                }
            }
            if (bounds_.empty() || bound.symbol != bounds_.back().symbol) bounds_.push_back(bound);
        }
    }

    // A chunk while it is encoded, from its end to its front.
    class Cursor {
    public:
        Cursor(const std::vector<Row>& rows, const Bound& begin, const Bound& end)
            : rows_(rows), begin_(begin), row_(end.row), column_(end.column), num_symbols_(end.symbol - begin.symbol) {
            // A symbol sheds one word at most; kernels may write over 32 bytes below what they say.
            room_ = static_cast<size_t>(2 * num_symbols_ + kGroupBytes);
            buffer_.reset(new uint8_t[room_]);
            stream_.words = buffer_.get() + room_;
            for (uint32_t& state : stream_.state) state = kLowest;
            enter_row();
        }

        bool done() const { return row_ == begin_.row && column_ == first_; }
        size_t full_groups() const { return (column_ - first_) / kLanes; }
        EncodeStream* stream() { return &stream_; }

        void advance(size_t num_groups) {
            column_ -= num_groups * kLanes;
            enter_row();
        }

        Chunk finish(const std::vector<EscapedSymbol>& escapes) const {
            Chunk chunk;
            chunk.num_symbols = num_symbols_;
            chunk.words.assign(stream_.words, buffer_.get() + room_);
            for (const uint32_t state : stream_.state) {
                for (int i = 0; i < 4; ++i) chunk.states.push_back(static_cast<uint8_t>(state >> 8 * i));
            }
            const auto before = [](const EscapedSymbol& escaped, uint64_t symbol) { return escaped.position < symbol; };
            auto escaped = std::lower_bound(escapes.begin(), escapes.end(), begin_.symbol, before);
            const auto last = std::lower_bound(escapes.begin(), escapes.end(), begin_.symbol + num_symbols_, before);
            for (; escaped != last; ++escaped) write_escape(chunk.escapes, escaped->escape);
            chunk.escapes.finish();
            return chunk;
        }

    private:
        // Goes on with the row before where one is used up, and codes the short group at a row's end.
        void enter_row() {
            do {
                first_ = row_ == begin_.row ? begin_.column : 0;
                if (column_ == first_) {
                    if (row_ == begin_.row) return;
                    --row_;
                    column_ = rows_[row_].length;
                    first_ = row_ == begin_.row ? begin_.column : 0;
                }
                stream_.table = &rows_[row_].table->encode;
                stream_.symbols = rows_[row_].symbols + column_;
                const size_t rest = (column_ - first_) % kLanes;
                if (rest == 0) return;
                encode_group(stream_, rest);
                column_ -= rest;
            } while (column_ == first_);  // a row of one short group only: rows may be many, so no recursion
        }

        const std::vector<Row>& rows_;
        Bound begin_;
        size_t row_, column_;  // the end of what is left
        size_t first_ = 0;     // where the row's share of the chunk begins
        uint64_t num_symbols_;
        size_t room_;
        std::unique_ptr<uint8_t[]> buffer_;
        EncodeStream stream_;
    };

    // Encodes chunks first ... stop - 1 in lockstep, one group of each in turn.
    void encode_together(size_t first, size_t stop, std::vector<Chunk>& encoded) const {
        const Kernels& inner = kernels();
        std::vector<std::unique_ptr<Cursor>> cursors;
        for (size_t i = first; i < stop; ++i) {
            cursors.push_back(std::make_unique<Cursor>(rows_, bounds_[i], bounds_[i + 1]));
        }
        for (;;) {
            size_t groups = SIZE_MAX;
            std::vector<Cursor*> running;
            for (const auto& cursor : cursors) {
                if (cursor->done()) continue;
                running.push_back(cursor.get());
                groups = std::min(groups, cursor->full_groups());
            }
            if (running.empty()) break;
            EncodeStream* streams[kMostStreams];
            for (size_t i = 0; i < running.size(); ++i) streams[i] = running[i]->stream();
            inner.encode(streams, static_cast<int>(running.size()), groups);
            for (Cursor* cursor : running) cursor->advance(groups);
        }
        for (size_t i = first; i < stop; ++i) encoded[i] = cursors[i - first]->finish(escapes_);
    }

    std::vector<Row> rows_;
    std::vector<EscapedSymbol> escapes_;  // by place among all symbols
    uint64_t chunk_bits_;
    uint64_t num_symbols_ = 0, raw_bits_ = 0;
    std::vector<Bound> bounds_;
};

// A run of symbols of one table in the single-lane stream.
struct LaneRun {
    const uint8_t* symbols;
    size_t count;
    const EncodeTable* table;
};

}  // namespace

void EncodedBody::write_to(uint8_t* out) const {
    for (const Piece& piece : pieces_) {
        if (piece.size == 0) continue;
        if (piece.data == nullptr) {
            piece.raw.pack_to(out);
        } else {
            std::memcpy(out, piece.data, piece.size);
        }
        out += piece.size;
    }
}

EncodedBody encode_body(const std::vector<CodedArray>& arrays, bool wide, int num_threads, uint64_t chunk_bits) {
    // Streams, and tables, of class indices and of arrays, as they come: what points to them must find them there.
    std::vector<std::unique_ptr<SymbolStream>> streams;
    std::vector<std::unique_ptr<CodingTables>> tables;
    std::vector<LaneRun> lane_runs;
    BitWriter lane_escapes;
    WideEncoder chunks(chunk_bits);
    EncodedBody body;
    const auto put_in_lane = [&](const SymbolStream& stream, CodingTables& coding) {
        const uint8_t* symbols = stream.symbols.get();
        for (const uint32_t k : stream.classes) {
            if (stream.row_length != 0) lane_runs.push_back({symbols, stream.row_length, &coding.of(k).encode});
            symbols += stream.row_length;
        }
        for (const EscapedSymbol& escaped : stream.escapes) write_escape(lane_escapes, escaped.escape);
    };
    const auto add = [&](const CodedArray& array, bool in_lane) {
        streams.push_back(std::make_unique<SymbolStream>(split(array)));
        tables.push_back(std::make_unique<CodingTables>(array.models.models));
        SymbolStream& stream = *streams.back();
        body.num_symbols += stream.num_symbols;
        if (in_lane) {
            put_in_lane(stream, *tables.back());
        } else {
            chunks.add(stream, *tables.back());
        }
    };
    for (const CodedArray& array : arrays) {
        if (array.classes != nullptr) {
            CodedArray indices;
            indices.values = array.classes;
            indices.num_rows = 1;
            indices.row_length = array.num_rows;
            indices.models.models = {array.models.class_model};
            add(indices, true);
        }
        add(array, !wide);
    }
    LaneEncoder lane;
    for (size_t r = lane_runs.size(); r-- > 0;) {
        for (size_t i = lane_runs[r].count; i-- > 0;) lane.put(*lane_runs[r].table, lane_runs[r].symbols[i]);
    }
    std::vector<uint8_t> lane_bytes = lane.finish();
    lane_escapes.finish();
    std::vector<uint8_t> head = {static_cast<uint8_t>(wide ? 1 : 0)};
    write_uint(head, lane_bytes.size());
    write_uint(head, lane_escapes.size());
    std::vector<WideEncoder::Chunk> encoded;
    if (wide) encoded = chunks.encode(head, num_threads);
    body.append(std::move(head));
    body.append(std::move(lane_bytes));
    body.append(std::move(lane_escapes));
    for (WideEncoder::Chunk& chunk : encoded) {
        body.append(std::move(chunk.states));
        body.append(std::move(chunk.words));
        body.append(std::move(chunk.escapes));
    }
    for (const auto& stream : streams) {
        for (size_t k = 0; k < stream->raw.size(); ++k) {
            if (stream->raw[k].size() != 0) body.append(std::move(stream->raw[k]));
            if (stream->packed[k].size != 0) body.append_raw(stream->packed[k]);
        }
    }
    return body;
}

}  // namespace fewbits
