#include <algorithm>
#include <atomic>
#include <memory>

#include "array_decoder.h"
#include "body.h"
#include "errors.h"
#include "isa.h"
#include "lane.h"
#include "leb128.h"
#include "parallel.h"
#include "trellis_levels.h"

namespace fewbits {
namespace {

constexpr size_t kMostWideModels = 1 << 16;  // of all arrays of a wide body; docs/format.md, section 10

struct ChunkSize {
    uint64_t num_symbols, num_words, escape_size;
    size_t at;  // first byte
};

// The fields at the front of a body, and where its streams lie.
struct Layout {
    bool wide = false;
    std::vector<ChunkSize> chunks;
    size_t lane_at = 0, lane_size = 0, lane_escape_size = 0, raw_at = 0;

    Layout(const uint8_t* data, size_t size) {
        if (size == 0 || data[0] > 1) throw Corrupt("a body's layout is not known.");
        wide = data[0] == 1;
        size_t position = 1;
        const uint64_t lane = read_uint(data, size, position), escapes = read_uint(data, size, position);
        const uint64_t num_chunks = wide ? read_uint(data, size, position) : 0;
        if (num_chunks > size) throw Corrupt("a body has more chunks than bytes.");
        for (uint64_t i = 0; i < num_chunks; ++i) {
            const uint64_t symbols = read_uint(data, size, position), words = read_uint(data, size, position);
            chunks.push_back({symbols, words, read_uint(data, size, position), 0});
        }
        // Each size is compared with what is left before it is taken off, so that no sum can wrap.
        size_t at = position;
        const auto take = [&](uint64_t bytes) {
            if (bytes > size - at) throw Corrupt("a body's streams run past its end.");
            const size_t begin = at;
            at += static_cast<size_t>(bytes);
            return begin;
        };
        lane_at = take(lane);
        take(escapes);
        lane_size = static_cast<size_t>(lane);
        lane_escape_size = static_cast<size_t>(escapes);
        for (ChunkSize& chunk : chunks) {
            chunk.at = take(4 * kLanes);
            if (chunk.num_words > size) throw Corrupt("a body's streams run past its end.");
            take(2 * chunk.num_words);
            take(chunk.escape_size);
        }
        raw_at = at;
    }
};

// The tables that slots were looked up in last, expanded: kept by each thread, at most 64 of 40 KB.
//
// Invariant: a table found stays as it is until 63 others have been found, so that streams in lockstep keep theirs.
class DirectCache {
public:
    explicit DirectCache(SlotLayout layout) : layout_(layout) {}

    const DirectTable* find(const AliasTable& alias) {
        ++now_;
        for (Entry& entry : entries_) {
            if (entry.alias != &alias) continue;
            entry.found = now_;
            return entry.direct.get();
        }
        if (entries_.size() < 64) entries_.push_back({nullptr, std::make_unique<DirectTable>(), 0});
        const auto earlier = [](const Entry& a, const Entry& b) { return a.found < b.found; };
        Entry& entry = *std::min_element(entries_.begin(), entries_.end(), earlier);
        entry.alias = &alias;
        entry.found = now_;
        fill_direct(alias, layout_, *entry.direct);
        return entry.direct.get();
    }

private:
    struct Entry {
        const AliasTable* alias;
        std::unique_ptr<DirectTable> direct;
        uint64_t found;  // when last
    };

    SlotLayout layout_;
    std::vector<Entry> entries_;
    uint64_t now_ = 0;
};

using Arrays = std::vector<std::unique_ptr<ArrayDecoder>>;

// A chunk while it is decoded: its stream, and the place among the arrays where its next symbol belongs.
class ChunkCursor {
public:
    // `end` is the body's.
    ChunkCursor(const uint8_t* data, const uint8_t* end, const ChunkSize& size, const Arrays& arrays,
                uint64_t first_symbol)
        : readable_(end), arrays_(arrays), left_(size.num_symbols) {
        const uint8_t* states = data + size.at;
        for (size_t lane = 0; lane < kLanes; ++lane) {
            const uint8_t* four = states + 4 * lane;
            stream_.state[lane] = load_word(four) | load_word(four + 2) << 16;
            if (stream_.state[lane] < kLowest) throw Corrupt("a stream's lane state is out of range.");
        }
        stream_.words = states + 4 * kLanes;
        stream_.end = stream_.words + 2 * size.num_words;
        escapes_ = EscapeReader(stream_.end, static_cast<size_t>(size.escape_size));
        while (first_symbol >= arrays_[array_]->num_symbols()) first_symbol -= arrays_[array_++]->num_symbols();
        row_ = static_cast<size_t>(first_symbol / arrays_[array_]->row_length());
        column_ = static_cast<size_t>(first_symbol % arrays_[array_]->row_length());
        if (column_ % kLanes != 0) throw Corrupt("a chunk does not end with a group.");
    }

    // How many full groups a kernel may decode now without looking at bounds; 0 if the next group needs care.
    size_t free_groups() const {
        const ArrayDecoder& array = *arrays_[array_];
        const bool in_place = array.decodes_in_place(array.rule_of(array.coded_row(row_)));
        const size_t in_row = std::min<uint64_t>(left_, array.row_length() - column_) / kLanes;
        const size_t most = (in_place ? kBlockInPlace : kBlock) / kLanes;
        return std::min({in_row, static_cast<size_t>(readable_ - stream_.words) / kGroupBytes, most});
    }

    // Points the stream at the table of its row, and at the block or at the elements.
    DecodeStream* prepare(DirectCache* cache) {
        const ArrayDecoder& array = *arrays_[array_];
        const size_t row = array.coded_row(row_);
        const ClassRule& rule = array.rule_of(row);
        stream_.alias = &rule.alias;
        stream_.direct = cache != nullptr ? cache->find(rule.alias) : nullptr;
        uint8_t* const elements = array.element(row, column_);
        const bool in_place = array.decodes_in_place(rule);
        stream_.symbols = in_place ? elements : block_;
        stream_.base = in_place ? static_cast<uint8_t>(rule.map.words[0]) : 0;
        stream_.elements = elements;
        stream_.width = array.width();
        return &stream_;
    }

    // Decodes the next group, be it short or near the end of the words.
    void decode_carefully() {
        prepare(nullptr);
        const uint64_t in_row = std::min<uint64_t>(left_, arrays_[array_]->row_length() - column_);
        const auto count = static_cast<size_t>(std::min<uint64_t>(in_row, kLanes));
        // A group that ends before its row does must be a full one: the next chunk goes on with a group.
        decode_group_checked(stream_, count);
        advance(count);
    }

    // Takes the symbols in the block for decoded; false when the chunk is at its end.
    void advance(size_t num_symbols) {
        if (stream_.words > stream_.end) throw Corrupt("a stream has too few words.");
        const ArrayDecoder& array = *arrays_[array_];
        array.convert(array.coded_row(row_), column_, stream_.symbols - num_symbols, num_symbols, escapes_);
        left_ -= num_symbols;
        column_ += num_symbols;
        if (column_ < array.row_length()) return;
        column_ = 0;
        if (++row_ < array.num_coded_rows()) return;
        row_ = 0;
        ++array_;
        while (array_ < arrays_.size() && arrays_[array_]->num_symbols() == 0) ++array_;
    }

    bool done() const { return left_ == 0; }

    void finish() const {
        bool at_start = stream_.words == stream_.end;
        for (const uint32_t state : stream_.state) at_start &= state == kLowest;
        if (!at_start) throw Corrupt("a stream does not end where it started.");
        escapes_.finish();
    }

private:
    DecodeStream stream_;
    const uint8_t* readable_;  // where what may be read ends: a kernel may take more words than are the stream's
    const Arrays& arrays_;
    EscapeReader escapes_;
    uint64_t left_;  // symbols
    size_t array_ = 0, row_ = 0, column_ = 0;  // row_ counts coded rows
    alignas(4096) uint8_t block_[kBlock];  // at the same place of a page for all: fewest loads then look like its stores
};

class WideDecoder {
public:
    WideDecoder(const uint8_t* data, size_t size, const Layout& layout, const Arrays& arrays)
        : data_(data), end_(data + size), layout_(layout), arrays_(arrays) {
        uint64_t total = 0, declared = 0;
        for (const auto& array : arrays_) total += array->num_symbols();
        for (const ChunkSize& chunk : layout_.chunks) {
            firsts_.push_back(declared);
            if (chunk.num_symbols == 0 || chunk.num_symbols > total - declared) refuse_sizes();
            declared += chunk.num_symbols;
        }
        if (declared != total) refuse_sizes();
    }

    void decode(int num_threads) {
        const size_t num_chunks = layout_.chunks.size();
        const size_t threads = std::min(static_cast<size_t>(std::max(num_threads, 1)), num_chunks);
        on_threads(threads, [&](size_t) { work((num_chunks + threads - 1) / threads); });
    }

private:
    [[noreturn]] static void refuse_sizes() {
        throw Corrupt("a body's chunks do not have the elements it declares.");
    }

    // Decodes chunks in lockstep, one group of each in turn, until none is left; takes `share` at first, at most, so
    // that other threads get theirs.
    void work(size_t share) {
        const DefaultFloatEnvironment environment;
        const Kernels& inner = kernels();
        DirectCache cache(inner.slots);
        std::vector<std::unique_ptr<ChunkCursor>> running;
        const auto most = std::min(static_cast<size_t>(inner.num_streams), share);
        for (;;) {
            while (running.size() < most && !failed_) {
                const size_t index = next_++;
                if (index >= layout_.chunks.size()) break;
                try {
                    running.push_back(
                        std::make_unique<ChunkCursor>(data_, end_, layout_.chunks[index], arrays_, firsts_[index]));
                } catch (...) {
                    failed_ = true;
                    throw;
                }
            }
            if (running.empty() || failed_) return;
            try {
                step(running, inner, cache);
            } catch (...) {
                failed_ = true;
                throw;
            }
        }
    }

    static void step(std::vector<std::unique_ptr<ChunkCursor>>& running, const Kernels& inner, DirectCache& cache) {
        size_t groups = kBlockInPlace / kLanes;
        for (size_t i = 0; i < running.size();) {
            ChunkCursor& cursor = *running[i];
            while (!cursor.done() && cursor.free_groups() == 0) cursor.decode_carefully();
            if (cursor.done()) {
                cursor.finish();
                running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
                continue;
            }
            groups = std::min(groups, cursor.free_groups());
            ++i;
        }
        if (running.empty()) return;
        DecodeStream* streams[kMostStreams];
        for (size_t i = 0; i < running.size(); ++i) {
            streams[i] = running[i]->prepare(inner.slots == SlotLayout::kNone ? nullptr : &cache);
        }
        inner.decode(streams, static_cast<int>(running.size()), groups);
        for (const auto& cursor : running) cursor->advance(groups * kLanes);
    }

    const uint8_t* data_;
    const uint8_t* end_;
    const Layout& layout_;
    const Arrays& arrays_;
    std::vector<uint64_t> firsts_;  // first symbol of each chunk
    std::atomic<size_t> next_{0};
    std::atomic<bool> failed_{false};
};

// Reads one body: first the sizes of its streams, then array after array.
class BodyReader {
public:
    BodyReader(const uint8_t* data, size_t size)
        : data_(data), size_(size), layout_(data, size), bits_(data, size),
          symbols_left_(kMostSymbolsPerByte * (size + kSlackBytes)),
          lane_(data + layout_.lane_at, layout_.lane_size),
          lane_escapes_(data + layout_.lane_at + layout_.lane_size, layout_.lane_escape_size),
          raw_position_(8 * static_cast<uint64_t>(layout_.raw_at)) {}

    void read(const std::vector<ArraySpec>& specs, const std::vector<Output>& outputs, int num_threads) {
        const DefaultFloatEnvironment environment;
        Arrays arrays;
        size_t num_models = 0;
        for (size_t i = 0; i < specs.size(); ++i) {
            auto array = std::make_unique<ArrayDecoder>(specs[i], outputs[i], bits_);
            if (specs[i].models.has_classes) array->set_classes(read_classes(specs[i]));
            spend(array->num_symbols());
            raw_position_ = array->place_raw_bits(raw_position_);
            num_models += array->num_models();
            if (layout_.wide) {
                if (num_models > kMostWideModels) throw Corrupt("a body in chunks has more than 65536 models.");
                arrays.push_back(std::move(array));
            } else {
                decode_in_lane(*array);
            }
        }
        lane_.finish();
        lane_escapes_.finish();
        if (raw_position_ != bits_.num_bits()) throw Corrupt("bytes are left over at a body's end.");
        if (!layout_.wide) return;
        for (const auto& array : arrays) {
            array->make_rules();
            array->fill_uncoded_rows();
        }
        WideDecoder(data_, size_, layout_, arrays).decode(num_threads);
    }

private:
    // Counts symbols before they are decoded: a few bytes must not stand for any number of them.
    void spend(uint64_t num_symbols) {
        if (num_symbols > symbols_left_) throw Corrupt("a payload is too short for the symbols it declares.");
        symbols_left_ -= num_symbols;
    }

    // Class indices are an array of one row of their own.
    std::vector<int64_t> read_classes(const ArraySpec& spec) {
        ArraySpec indices;
        indices.num_rows = 1;
        indices.row_length = spec.num_rows;
        indices.models.models.push_back(spec.models.class_model);
        if (spec.models.class_model.has_table) spend(spec.num_rows);
        std::vector<int64_t> classes(spec.num_rows);
        Output output;
        output.data = reinterpret_cast<uint8_t*>(classes.data());
        output.num_elements = spec.num_rows;
        ArrayDecoder array(indices, output, bits_);
        raw_position_ = array.place_raw_bits(raw_position_);
        decode_in_lane(array);
        return classes;
    }

    void decode_in_lane(ArrayDecoder& array) {
        array.make_rules();
        array.fill_uncoded_rows();
        uint8_t block[kBlock];
        for (size_t index = 0; index < array.num_coded_rows(); ++index) {
            const size_t row = array.coded_row(index);
            for (size_t column = 0; column < array.row_length(); column += kBlock) {
                const size_t count = std::min(kBlock, array.row_length() - column);
                lane_.take(array.rule_of(row).alias, block, count);
                array.convert(row, column, block, count, lane_escapes_);
            }
        }
    }

    const uint8_t* data_;
    size_t size_;
    Layout layout_;
    BitReader bits_;
    uint64_t symbols_left_;
    LaneDecoder lane_;
    EscapeReader lane_escapes_;
    uint64_t raw_position_;  // bit where the next array's raw bits begin
};

}  // namespace

void decode_body(const uint8_t* data, size_t size, const std::vector<ArraySpec>& arrays,
                 const std::vector<Output>& outputs, int num_threads) {
    if (arrays.size() != outputs.size()) throw InvalidArgument("each array of a body needs one output.");
    const auto is_trellis = [](const Output& output) { return output.kind == Output::Kind::kTrellis; };
    if (std::none_of(outputs.begin(), outputs.end(), is_trellis)) {
        return BodyReader(data, size).read(arrays, outputs, num_threads);
    }
    // Levels that no byte holds are few; else all are decoded once more, as words.
    for (const bool as_bytes : {true, false}) {
        std::vector<Output> now = outputs;
        std::vector<std::unique_ptr<TrellisLevels>> trellises;
        for (Output& output : now) {
            if (!is_trellis(output)) continue;
            trellises.push_back(std::make_unique<TrellisLevels>(output, as_bytes));
            output = trellises.back()->output();
        }
        BodyReader(data, size).read(arrays, now, num_threads);
        bool lost_some = false;
        for (const auto& levels : trellises) lost_some |= levels->lost_some();
        if (lost_some) continue;
        for (const auto& levels : trellises) levels->become_values();
        return;
    }
}

}  // namespace fewbits
