#include "test_kernels.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "bits.h"
#include "cases.h"
#include "check.h"
#include "loops.h"

namespace fewbits {
namespace {

// Bytes in a block of exactly their number, so that a sanitizer sees the first one beyond it.
using Block = std::unique_ptr<uint8_t[]>;

Block block_of(const std::vector<uint8_t>& bytes) {
    Block block = std::make_unique<uint8_t[]>(bytes.size());
    std::copy(bytes.begin(), bytes.end(), block.get());
    return block;
}

Table random_table(Numbers& numbers) {
    const std::vector<uint8_t> bytes = numbers.bytes(80);
    ByteSource source(bytes.data(), bytes.size());
    return table_from(source);
}

struct Tables {
    explicit Tables(const Table& table_) : table(table_), alias(alias_table(table_)) {
        fill_direct(alias, SlotLayout::kPacked, *packed);
        fill_direct(alias, SlotLayout::kSplit, *split);
        fill_encode(alias, *encode);
    }

    const DirectTable* direct(SlotLayout layout) const {
        return layout == SlotLayout::kNone ? nullptr : layout == SlotLayout::kSplit ? split.get() : packed.get();
    }

    Table table;
    AliasTable alias;
    std::unique_ptr<DirectTable> packed = std::make_unique<DirectTable>(), split = std::make_unique<DirectTable>();
    std::unique_ptr<EncodeTable> encode = std::make_unique<EncodeTable>();
};

uint32_t random_state(Numbers& numbers) {
    switch (numbers.below(4)) {
        case 0: return kLowest + static_cast<uint32_t>(numbers.below(3));
        case 1: return ~uint32_t{0} - static_cast<uint32_t>(numbers.below(3));
        case 2: return kLowest << numbers.below(16);
        default: return kLowest + static_cast<uint32_t>(numbers.below(0xFFFF0000u));
    }
}

// A stream to decode, the block of its symbols, and what it is to become.
struct DecodingJob {
    std::unique_ptr<DecodeStream> stream = std::make_unique<DecodeStream>();
    Block words, symbols;
    size_t count;

    DecodingJob(const Tables& tables, size_t num_groups, const std::vector<uint8_t>& bytes, const uint32_t* states)
        : words(block_of(bytes)), symbols(std::make_unique<uint8_t[]>(num_groups * kLanes)),
          count(num_groups * kLanes) {
        std::memcpy(stream->state, states, sizeof stream->state);
        stream->words = words.get();
        stream->end = words.get() + bytes.size();
        stream->alias = &tables.alias;
        stream->symbols = symbols.get();
    }

    void check_equal(const DecodingJob& other) const {
        CHECK(std::memcmp(stream->state, other.stream->state, sizeof stream->state) == 0);
        CHECK(stream->words - words.get() == other.stream->words - other.words.get());
        CHECK(stream->symbols - symbols.get() == other.stream->symbols - other.symbols.get());
        CHECK(std::memcmp(symbols.get(), other.symbols.get(), count) == 0);
    }
};

struct EncodingJob {
    std::unique_ptr<EncodeStream> stream = std::make_unique<EncodeStream>();
    Block words, symbols;
    size_t room;

    EncodingJob(const Tables& tables, const std::vector<uint8_t>& bytes, const uint32_t* states)
        : symbols(block_of(bytes)), room(2 * bytes.size() + 32) {
        words = std::make_unique<uint8_t[]>(room);
        std::memcpy(stream->state, states, sizeof stream->state);
        stream->words = words.get() + room;
        stream->table = tables.encode.get();
        stream->symbols = symbols.get() + bytes.size();
    }

    size_t num_bytes() const { return static_cast<size_t>(words.get() + room - stream->words); }

    void check_equal(const EncodingJob& other) const {
        CHECK(std::memcmp(stream->state, other.stream->state, sizeof stream->state) == 0);
        CHECK(num_bytes() == other.num_bytes());
        CHECK(std::memcmp(stream->words, other.stream->words, num_bytes()) == 0);
        CHECK(stream->symbols - symbols.get() == other.stream->symbols - other.symbols.get());
    }
};

template <typename Stream, typename Job>
std::vector<Stream*> streams_of(const std::vector<Job>& jobs) {
    std::vector<Stream*> streams;
    for (const Job& job : jobs) streams.push_back(job.stream.get());
    return streams;
}

std::vector<uint8_t> random_symbols(const Table& table, size_t count, Numbers& numbers) {
    std::vector<uint8_t> symbols(count);
    for (uint8_t& symbol : symbols) {
        const size_t num = static_cast<size_t>(table.num_values) + (table.escape() != 0 ? 1 : 0);
        uint64_t slot = numbers.below(2) ? numbers.below(kTotal) : kTotal;
        size_t s = slot == kTotal ? static_cast<size_t>(numbers.below(num)) : 0;
        for (; slot < kTotal && slot >= table.counts[s]; ++s) slot -= table.counts[s];
        symbol = static_cast<uint8_t>(s);
    }
    return symbols;
}

}  // namespace

void test_decoding_loops() {
    Numbers numbers(1);
    for (int round = 0; round < 400; ++round) {
        const size_t num_groups = static_cast<size_t>(round < 100 ? 1 : numbers.below(40));
        std::vector<std::unique_ptr<Tables>> tables;
        std::vector<std::vector<uint8_t>> words;
        std::vector<std::vector<uint32_t>> states;
        std::vector<DecodingJob> expected;
        for (size_t s = 0; s < kMostStreams; ++s) {
            tables.push_back(std::make_unique<Tables>(random_table(numbers)));
            words.push_back(numbers.bytes(num_groups * kGroupBytes));
            if (numbers.below(4) == 0) std::fill(words.back().begin(), words.back().end(), uint8_t{0});
            states.emplace_back();
            for (int lane = 0; lane < kLanes; ++lane) states.back().push_back(random_state(numbers));
            // All of one table, or each of its own: loops may do otherwise with streams that share theirs.
            expected.emplace_back(*tables[round % 2 ? 0 : s], num_groups, words.back(), states.back().data());
            expected.back().stream->base = static_cast<uint8_t>(numbers.below(256));
            for (size_t g = 0; g < num_groups; ++g) decode_group_checked(*expected.back().stream, kLanes);
        }
        for (const Kernels* loops : all_loops()) {
            for (size_t num_streams = 1; num_streams <= kMostStreams; ++num_streams) {
                std::vector<DecodingJob> jobs;
                for (size_t s = 0; s < num_streams; ++s) {
                    const Tables& own = *tables[round % 2 ? 0 : s];
                    jobs.emplace_back(own, num_groups, words[s], states[s].data());
                    jobs.back().stream->direct = own.direct(loops->slots);
                    jobs.back().stream->base = expected[s].stream->base;
                }
                loops->decode(streams_of<DecodeStream>(jobs).data(), static_cast<int>(num_streams), num_groups);
                for (size_t s = 0; s < num_streams; ++s) jobs[s].check_equal(expected[s]);
            }
        }
    }
}

void test_encoding_loops() {
    Numbers numbers(2);
    for (int round = 0; round < 300; ++round) {
        const size_t num_groups = static_cast<size_t>(numbers.below(40));
        std::vector<std::unique_ptr<Tables>> tables;
        std::vector<std::vector<uint8_t>> symbols;
        std::vector<std::vector<uint32_t>> states;
        std::vector<EncodingJob> expected;
        for (int s = 0; s < kMostStreams; ++s) {
            tables.push_back(std::make_unique<Tables>(random_table(numbers)));
            symbols.push_back(random_symbols(tables.back()->table, num_groups * kLanes, numbers));
            states.emplace_back();
            for (int lane = 0; lane < kLanes; ++lane) states.back().push_back(random_state(numbers));
            expected.emplace_back(*tables.back(), symbols.back(), states.back().data());
            for (size_t g = 0; g < num_groups; ++g) encode_group(*expected.back().stream, kLanes);
            // Decoding undoes it: the same states come back, and all words are used.
            const EncodingJob& job = expected.back();
            const std::vector<uint8_t> written(job.stream->words, job.words.get() + job.room);
            DecodingJob back(*tables.back(), num_groups, written, job.stream->state);
            for (size_t g = 0; g < num_groups; ++g) decode_group_checked(*back.stream, kLanes);
            CHECK(std::memcmp(back.stream->state, states.back().data(), sizeof back.stream->state) == 0);
            CHECK(back.stream->words == back.stream->end);
            CHECK(std::equal(symbols.back().begin(), symbols.back().end(), back.symbols.get()));
        }
        for (const Kernels* loops : all_loops()) {
            for (size_t num_streams = 1; num_streams <= kMostStreams; ++num_streams) {
                std::vector<EncodingJob> jobs;
                for (size_t s = 0; s < num_streams; ++s) jobs.emplace_back(*tables[s], symbols[s], states[s].data());
                loops->encode(streams_of<EncodeStream>(jobs).data(), static_cast<int>(num_streams), num_groups);
                for (size_t s = 0; s < num_streams; ++s) jobs[s].check_equal(expected[s]);
            }
        }
    }
}

// States of one symbol of frequency f where a division by floats, or a comparison, would slip first.
static void fill_limits(uint32_t f, uint32_t* states, Numbers& numbers) {
    const uint64_t sheds = uint64_t{f} << 19;  // the first state that sheds a word; without it the quotient is 2^19 - 1
    for (int lane = 0; lane < kLanes; ++lane) {
        // A multiple of f, or 1 to 2 beside it: of the greatest quotient, of one near a power of two, or of any.
        const uint64_t quotient = lane < 8    ? (uint64_t{1} << 19)
                                  : lane < 16 ? (uint64_t{1} << (4 + numbers.below(16)))
                                  : lane < 24 ? 8 + numbers.below((1 << 19) - 8)
                                              : (uint64_t{1} << 19) - 1 - numbers.below(4);
        uint64_t x = quotient * f + numbers.below(5) - 2;
        if (lane == 0) x = sheds - 1;
        if (lane == 1) x = sheds;
        if (lane == 2) x = kLowest;
        if (lane == 3) x = ~uint32_t{0};
        states[lane] = static_cast<uint32_t>(std::min<uint64_t>(std::max<uint64_t>(x, kLowest), ~uint32_t{0}));
    }
}

void test_encoding_at_the_limits_of_states() {
    Numbers numbers(3);
    for (uint32_t f = 1; f < kTotal; ++f) {
        Table table;
        table.num_values = 2;
        table.counts[0] = static_cast<uint16_t>(f);
        table.counts[1] = static_cast<uint16_t>(kTotal - f);
        const Tables tables(table);
        uint32_t states[kLanes];
        fill_limits(f, states, numbers);
        const std::vector<uint8_t> symbols(kLanes, 0);
        EncodingJob expected(tables, symbols, states);
        encode_group(*expected.stream, kLanes);
        for (int lane = 0; lane < kLanes; ++lane) {
            // The plain definition, with a true division.
            const bool sheds = states[lane] >= uint64_t{f} << 19;
            const uint32_t x = sheds ? states[lane] >> 16 : states[lane];
            const uint32_t slot = tables.encode->slots[tables.encode->start[0] + x % f];
            CHECK(expected.stream->state[lane] == (x / f << kPrecision) + slot);
        }
        for (const Kernels* loops : all_loops()) {
            EncodingJob job(tables, symbols, states);
            EncodeStream* one = job.stream.get();
            loops->encode(&one, 1, 1);
            job.check_equal(expected);
        }
    }
}

void test_mapping_loops() {
    Numbers numbers(4);
    for (size_t count = 0; count < 300; count += count < 140 ? 1 : 37) {
        SymbolMap map{};
        map.is_sum = count % 2 == 0;
        const uint64_t first = numbers.next();
        for (int s = 0; s < kMaxSymbols; ++s) map.set(s, map.is_sum ? first + static_cast<uint64_t>(s) : numbers.next());
        std::vector<uint8_t> symbols(count);
        for (uint8_t& symbol : symbols) symbol = static_cast<uint8_t>(numbers.below(kMaxSymbols));
        map.escape = static_cast<uint8_t>(numbers.below(kMaxSymbols));
        const bool has_escape = std::count(symbols.begin(), symbols.end(), map.escape) != 0;
        const Block from = block_of(symbols);
        for (const int width : {1, 2, 4, 8}) {
            const auto bytes = static_cast<size_t>(width);
            std::vector<uint8_t> expected;
            for (const uint8_t symbol : symbols) {
                for (size_t i = 0; i < bytes; ++i) {
                    expected.push_back(static_cast<uint8_t>(map.words[symbol] >> 8 * i));
                }
            }
            for (const Kernels* loops : all_loops()) {
                for (size_t before = 0; before < 2; ++before) {  // an even and an odd address
                    const Block to = std::make_unique<uint8_t[]>(before + expected.size());
                    CHECK(loops->map_symbols(map, width, from.get(), count, to.get() + before) || !has_escape);
                    CHECK(std::equal(expected.begin(), expected.end(), to.get() + before));
                }
                if (width == 4 && loops->sum_groups != nullptr) {
                    SymbolMap below = map;
                    for (int s = 0; s < kMaxSymbols; ++s) below.set(s, map.words[s] & 0xFFFFFF);
                    const size_t num_groups = count / (2 * kLanes) * 2;
                    std::vector<uint32_t> sums(num_groups), right(num_groups);
                    for (size_t i = 0; i < num_groups * kLanes; ++i) {
                        right[i / kLanes] += static_cast<uint32_t>(below.words[symbols[i]]);
                    }
                    loops->sum_groups(below, from.get(), num_groups, sums.data());
                    CHECK(sums == right);
                }
            }
        }
    }
}

void test_placing_loops() {
    Numbers numbers(5);
    for (size_t count = 0; count < 200; ++count) {
        const auto base = static_cast<uint32_t>(numbers.next());
        const auto num_values = static_cast<uint32_t>(1 + numbers.below(kMaxSymbols - 1));
        const int shift = count % 3 == 0 ? 0 : static_cast<int>(numbers.below(32));
        std::vector<uint8_t> bytes, expected;
        for (size_t i = 0; i < count; ++i) {
            // Near the base, just outside of the table, or anywhere.
            const uint64_t far = numbers.below(4) == 0 ? numbers.next() : (numbers.below(2 * kMaxSymbols) - 32) << shift;
            const uint32_t value = base + static_cast<uint32_t>(far);
            for (int b = 0; b < 4; ++b) bytes.push_back(static_cast<uint8_t>(value >> 8 * b));
            const uint32_t place = (value - base) >> shift;
            expected.push_back(static_cast<uint8_t>(place < num_values ? place : num_values));
        }
        const Block from = block_of(bytes);
        for (const ValueLoops* loops : all_value_loops()) {
            const Block to = std::make_unique<uint8_t[]>(count);
            loops->place(from.get(), count, base, shift, num_values, to.get());
            CHECK(std::equal(expected.begin(), expected.end(), to.get()));
        }
    }
}

// Raw bits of values, packed by loops and by a writer; into a block that ends as early as loops may rely on.
void test_packing_loops() {
    Numbers numbers(7);
    for (int width = kLeastPacked; width <= kMostPacked; ++width) {
        for (size_t count = 8; count <= 400; count += 56) {
            const auto base = static_cast<uint32_t>(numbers.next());
            const std::vector<uint8_t> bytes = numbers.bytes(4 * count);
            const size_t size = count / 8 * static_cast<size_t>(width);
            BitWriter writer;
            for (size_t i = 0; i < count; ++i) {
                uint32_t value;
                std::memcpy(&value, &bytes[4 * i], 4);
                writer.write((value - base) & ((uint32_t{1} << width) - 1), width);
            }
            const Block from = block_of(bytes);
            for (const ValueLoops* loops : all_value_loops()) {
                if (loops->pack == nullptr) continue;
                const Block to = std::make_unique<uint8_t[]>(size + 8);
                loops->pack(from.get(), count, base, width, to.get());
                CHECK(writer.size() == size && std::equal(to.get(), to.get() + size, writer.data()));
            }
        }
    }
}

// Raw bits in a block that ends as early as loops may rely on, and what an element rule makes of each value.
static void check_joining(const Output& output, uint32_t base, int shift, size_t count, Numbers& numbers) {
    const ElementRule rule(output, 0);
    const std::vector<uint8_t> raw = numbers.bytes((count * static_cast<size_t>(shift) + 7) / 8 + 16);
    std::vector<uint8_t> symbols(count), expected;
    const BitReader bits(raw.data(), raw.size());
    for (size_t i = 0; i < count; ++i) {
        symbols[i] = static_cast<uint8_t>(numbers.below(kMaxSymbols - 1));
        const uint64_t low = bits.read(i * static_cast<uint64_t>(shift), shift);
        // Levels are signed, fields are not.
        const bool is_field = output.kind == Output::Kind::kFields;
        const int64_t first = is_field ? int64_t{base} : int64_t{static_cast<int32_t>(base)};
        uint64_t word = 0;
        CHECK(rule.word_of(first + static_cast<int64_t>((uint64_t{symbols[i]} << shift) + low), word));
        for (int b = 0; b < 4; ++b) expected.push_back(static_cast<uint8_t>(word >> 8 * b));
    }
    const Block bytes = block_of(raw), from = block_of(symbols);
    const RawRun run = {base, shift, bytes.get()};
    for (const ValueLoops* loops : all_value_loops()) {
        const Block to = std::make_unique<uint8_t[]>(1 + 4 * count);
        uint8_t* const out = to.get() + 1;
        if (output.kind == Output::Kind::kFields) {
            loops->join_fields(run, rule.drop(), output.is_signed, from.get(), count, out);
        } else {
            loops->join_levels(run, output.step, rule.shifts(), from.get(), count, out);
        }
        CHECK(std::equal(expected.begin(), expected.end(), out));
    }
}

void test_joining_loops() {
    Numbers numbers(6);
    const DefaultFloatEnvironment environment;
    for (int round = 0; round < 300; ++round) {
        const int shift = 1 + round % kMostJoined;
        const auto count = static_cast<size_t>(round < 150 ? numbers.below(40) : numbers.below(1200));
        Output levels;
        levels.kind = Output::Kind::kFloats;
        levels.width = 4;
        levels.step = static_cast<float>(1 + numbers.below(1000)) * (round % 3 ? 1e-3f : 1e-43f);
        levels.has_centroids = round % 2 == 0;
        for (int8_t& each : levels.centroids) {
            each = levels.has_centroids ? static_cast<int8_t>(numbers.next()) : int8_t{0};
        }
        // Around 0 and its centroids, or anywhere; 2^31 is what 64 symbols and 25 bits span.
        const uint64_t below = numbers.below(uint64_t{32} << shift);
        check_joining(levels, 0u - static_cast<uint32_t>(std::min<uint64_t>(below, 0x7FFFFFFF)), shift, count, numbers);

        Output fields;
        fields.kind = Output::Kind::kFields;
        fields.width = 4;
        fields.is_signed = round % 2 == 0;
        fields.drops = {0};
        if (shift < 20) fields.drops[0] = static_cast<uint8_t>(numbers.below(5));
        const auto base = static_cast<uint32_t>(numbers.below(1 << 20));
        check_joining(fields, base, shift, count, numbers);
    }
}

}  // namespace fewbits
