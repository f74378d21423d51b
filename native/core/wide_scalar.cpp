// The portable path. Read this one: the others do the same with wider registers.
#include <cstring>

#include "errors.h"
#include "wide.h"

namespace fewbits {

void decode_group_checked(DecodeStream& stream, size_t num_symbols) {
    const AliasTable& table = *stream.alias;
    for (size_t lane = 0; lane < num_symbols; ++lane) {
        uint32_t x = stream.state[lane];
        const uint32_t slot = x & (kTotal - 1);
        const uint32_t bucket = slot / kBucket;
        const bool own = slot < table.divider[bucket];
        const uint32_t symbol = own ? bucket : table.alias[bucket];
        const uint32_t offset = (slot + (own ? table.own_shift[bucket] : table.alias_shift[bucket])) & 0xFFFF;
        x = table.frequency[symbol] * (x >> kPrecision) + offset;
        if (x < kLowest) {
            if (stream.words == stream.end) throw Corrupt("a stream has too few words.");
            x = x << 16 | load_word(stream.words);
            stream.words += 2;
        }
        stream.state[lane] = x;
        stream.symbols[lane] = static_cast<uint8_t>(symbol + stream.base);
    }
    stream.symbols += num_symbols;
}

namespace {

// Encodes one symbol in a lane: returns its new state, and puts the word that it sheds, if it does, before `words`.
inline uint32_t encode_symbol(const EncodeTable& table, uint8_t symbol, uint32_t x, uint8_t*& words) {
    const uint32_t frequency = table.frequency[symbol];
    // Whether a lane sheds is anyone's guess: the word is written at any rate, and kept or written over.
    const uint32_t sheds = x >> (32 - kPrecision) >= frequency ? 1 : 0;
    const auto word = static_cast<uint16_t>(x);
    std::memcpy(words - 2, &word, 2);
    words -= 2 * sheds;
    x >>= 16 * sheds;
    // x div f as (x * m) >> 45 with m = floor(2^45 / f) + 1, for f < 2^13 and x < f * 2^19 (what shedding leaves):
    // m = 2^45 / f + e with 0 < e <= 1, so x * m / 2^45 exceeds x / f by at most x / 2^45 < 2^-13 < 1 / f: too
    // little to reach the next integer. And x * m < f * 2^19 * (2^45 / f + 1) = 2^64 + f * 2^19, where x is less
    // than f * 2^19 by at least 1, which takes m > 2^32 > f * 2^19 off: the product fits in 64 bits.
    const auto quotient = static_cast<uint32_t>(x * table.reciprocal[symbol] >> 45);
    const uint32_t rest = x - quotient * frequency;
    return (quotient << kPrecision) + table.slots[table.start[symbol] + rest];
}

}  // namespace

void encode_group(EncodeStream& stream, size_t num_symbols) {
    stream.symbols -= num_symbols;
    for (size_t lane = num_symbols; lane-- > 0;) {
        stream.state[lane] = encode_symbol(*stream.table, stream.symbols[lane], stream.state[lane], stream.words);
    }
}

namespace {

void decode_groups(DecodeStream* const* streams, int num_streams, size_t num_groups) {
    for (int s = 0; s < num_streams; ++s) {
        DecodeStream& stream = *streams[s];
        const DirectTable& table = *stream.direct;
        const uint8_t* words = stream.words;
        uint8_t* symbols = stream.symbols;
        const uint8_t base = stream.base;
        uint32_t state[kLanes];
        std::memcpy(state, stream.state, sizeof state);
        const auto decode_lane = [&](int lane) {
            uint32_t x = state[lane];
            const uint32_t slot = x & (kTotal - 1);
            const uint32_t entry = table.entries[slot];
            symbols[lane] = static_cast<uint8_t>(table.symbols[slot] + base);
            x = (entry >> 16) * (x >> kPrecision) + (entry & 0xFFFF);
            // A branch here would be mispredicted every few symbols: take the word or not by masking.
            const uint32_t needs = x < kLowest ? ~0u : 0u;
            state[lane] = x << (needs & 16) | (load_word(words) & needs);
            words += needs & 2;
        };
        for (size_t group = 0; group < num_groups; ++group, symbols += kLanes) {
            for (int lane = 0; lane < kLanes; lane += 4) {  // four at a time: a loop's own work counts
                decode_lane(lane);
                decode_lane(lane + 1);
                decode_lane(lane + 2);
                decode_lane(lane + 3);
            }
        }
        std::memcpy(stream.state, state, sizeof state);
        stream.words = words;
        stream.symbols = symbols;
    }
}

void encode_groups(EncodeStream* const* streams, int num_streams, size_t num_groups) {
    for (int s = 0; s < num_streams; ++s) {
        EncodeStream& stream = *streams[s];
        const EncodeTable& table = *stream.table;
        uint8_t* words = stream.words;
        const uint8_t* symbols = stream.symbols;
        uint32_t state[kLanes];
        std::memcpy(state, stream.state, sizeof state);
        for (size_t group = 0; group < num_groups; ++group) {
            symbols -= kLanes;
            for (int lane = kLanes - 1; lane >= 0; --lane) {
                state[lane] = encode_symbol(table, symbols[lane], state[lane], words);
            }
        }
        std::memcpy(stream.state, state, sizeof state);
        stream.words = words;
        stream.symbols = symbols;
    }
}

template <typename Word>
void map_to(const SymbolMap& map, const uint8_t* symbols, size_t count, uint8_t* out) {
    const auto put_word = [out](size_t i, Word word) { std::memcpy(out + i * sizeof(Word), &word, sizeof(Word)); };
    if (map.is_sum) {
        const auto base = static_cast<Word>(map.words[0]);
        for (size_t i = 0; i < count; ++i) put_word(i, static_cast<Word>(base + symbols[i]));
        return;
    }
    Word words[kMaxSymbols];
    for (int s = 0; s < kMaxSymbols; ++s) words[s] = static_cast<Word>(map.words[s]);
    const auto put = [&](size_t i) { put_word(i, words[symbols[i] & 63]); };
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (size_t k = 0; k < 8; ++k) put(i + k);  // eight in a row: compilers unroll this loop
    }
    for (; i < count; ++i) put(i);
}

bool map_symbols(const SymbolMap& map, int width, const uint8_t* symbols, size_t count, uint8_t* out) {
    switch (width) {
        case 1: map_to<uint8_t>(map, symbols, count, out); break;
        case 2: map_to<uint16_t>(map, symbols, count, out); break;
        case 4: map_to<uint32_t>(map, symbols, count, out); break;
        default: map_to<uint64_t>(map, symbols, count, out);
    }
    return true;
}

}  // namespace

const Kernels kScalarKernels = {"scalar", 1, SlotLayout::kSplit, decode_groups, encode_groups, map_symbols, nullptr};

}  // namespace fewbits
