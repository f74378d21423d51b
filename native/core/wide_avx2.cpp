// AVX2: eight lanes a register; slots looked up by gathers in a direct table of 32 KB, or by shuffles of bytes.
#include <immintrin.h>

#include <array>
#include <cstring>

#include "wide.h"

namespace fewbits {
namespace {

constexpr int kVectors = kLanes / 8;

// For each set of lanes (a byte) eight indices, one a byte. `expand`: lane i of the set takes the word with as many
// lanes of the set before it. `compress`: the set's lanes, in order, end up in the last places.
struct LaneOrders {
    std::array<uint64_t, 256> expand{};
    std::array<uint64_t, 256> compress{};
};

constexpr LaneOrders make_lane_orders() {
    LaneOrders orders{};
    for (unsigned set = 0; set < 256; ++set) {
        unsigned size = 0;
        for (unsigned lane = 0; lane < 8; ++lane) size += set >> lane & 1;
        unsigned before = 0;
        for (unsigned lane = 0; lane < 8; ++lane) {
            orders.expand[set] |= static_cast<uint64_t>(before) << 8 * lane;
            if (set >> lane & 1) {
                orders.compress[set] |= static_cast<uint64_t>(lane) << 8 * (8 - size + before);
                ++before;
            }
        }
    }
    return orders;
}

constexpr LaneOrders kLaneOrders = make_lane_orders();

inline __m256i order_of(uint64_t indices) {
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(indices)));
}

// Looks 32 symbols below 64 up in 64 bytes: four shuffles of 16 bytes, each blind to the indices of the others.
struct ByteLookup {
    __m256i index[4];

    explicit ByteLookup(__m256i symbols) {
        for (int quarter = 0; quarter < 4; ++quarter) {
            // A shuffle gives 0 where bit 7 is set: adding 0x70 sets it, saturated, for all but 0 ... 15.
            const __m256i first = _mm256_set1_epi8(static_cast<char>(16 * quarter));
            index[quarter] = _mm256_adds_epu8(_mm256_sub_epi8(symbols, first), _mm256_set1_epi8(0x70));
        }
    }

    __m256i operator()(const uint8_t* bytes) const {
        __m256i found = _mm256_setzero_si256();
        for (int quarter = 0; quarter < 4; ++quarter) {
            const __m128i sixteen = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + 16 * quarter));
            const __m256i twice = _mm256_broadcastsi128_si256(sixteen);
            found = _mm256_or_si256(found, _mm256_shuffle_epi8(twice, index[quarter]));
        }
        return found;
    }
};

// Renormalises eight lanes: those below 2^16 take the next words, in lane order.
inline __m256i take_words(__m256i x, const uint8_t*& words) {
    const __m256i needs = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    const auto set = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(needs)));
    // Sixteen bytes at most 8 * v words into the group: within its 32 words.
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
    const __m256i taken =
        _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(packed), order_of(kLaneOrders.expand[set]));
    words += 2 * _mm_popcnt_u32(set);
    return _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32(x, 16), taken), needs);
}

inline __m256i base_of(const DecodeStream& stream) { return _mm256_set1_epi8(static_cast<char>(stream.base)); }

template <int kStreams>
void decode_streams(DecodeStream* const* streams, size_t num_groups) {
    const __m256i slot_mask = _mm256_set1_epi32(kTotal - 1);
    const __m256i symbol_mask = _mm256_set1_epi32(kMaxSymbols - 1);
    const __m256i one = _mm256_set1_epi32(1);
    const __m256i symbol_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i state[kStreams][kVectors];
    const uint8_t* words[kStreams];
    uint8_t* symbols[kStreams];
    const int* entries[kStreams];
    __m256i base[kStreams];
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            state[s][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(streams[s]->state + 8 * v));
        }
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
        entries[s] = reinterpret_cast<const int*>(streams[s]->direct->entries);
        base[s] = base_of(*streams[s]);
    }
    for (size_t group = 0; group < num_groups; ++group) {
        for (int s = 0; s < kStreams; ++s) {
            __m256i entry[kVectors];
            for (int v = 0; v < kVectors; ++v) {
                const __m256i x = state[s][v];
                entry[v] = _mm256_i32gather_epi32(entries[s], _mm256_and_si256(x, slot_mask), 4);
                const __m256i less_one = _mm256_and_si256(_mm256_srli_epi32(entry[v], 6), slot_mask);
                const __m256i high = _mm256_srli_epi32(x, kPrecision);
                const __m256i product = _mm256_mullo_epi32(_mm256_add_epi32(less_one, one), high);
                state[s][v] = _mm256_add_epi32(product, _mm256_srli_epi32(entry[v], 19));
            }
            for (int v = 0; v < kVectors; ++v) state[s][v] = take_words(state[s][v], words[s]);
            // Packing works within 128-bit halves; the last permutation puts the symbols back in lane order.
            for (int v = 0; v < kVectors; ++v) entry[v] = _mm256_and_si256(entry[v], symbol_mask);
            const __m256i low = _mm256_packus_epi32(entry[0], entry[1]);
            const __m256i high = _mm256_packus_epi32(entry[2], entry[3]);
            const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), symbol_order);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols[s]), _mm256_add_epi8(all, base[s]));
            symbols[s] += kLanes;
        }
    }
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(streams[s]->state + 8 * v), state[s][v]);
        }
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void decode_groups(DecodeStream* const* streams, int num_streams, size_t num_groups) {
    if (num_streams == 2) return decode_streams<2>(streams, num_groups);
    for (int s = 0; s < num_streams; ++s) decode_streams<1>(streams + s, num_groups);
}

// NUMERICS: float32 holds neither x nor x / f exactly, but the quotient is below 2^19, so that it is off by less than
// 1/8 before it is cut to an integer, and by at most 1 after: one step of correction each way makes it exact.
inline __m256i divide(__m256i x, __m256i frequency, __m256i& rest) {
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
    const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)));
    const __m256 real = _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
    __m256i quotient = _mm256_cvttps_epi32(_mm256_div_ps(real, _mm256_cvtepi32_ps(frequency)));
    rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, frequency));
    const __m256i too_high = _mm256_cmpgt_epi32(_mm256_setzero_si256(), rest);  // -1 where it is
    quotient = _mm256_add_epi32(quotient, too_high);
    rest = _mm256_add_epi32(rest, _mm256_and_si256(too_high, frequency));
    const __m256i too_low = _mm256_cmpgt_epi32(frequency, rest);  // 0 where it is
    quotient = _mm256_add_epi32(quotient, _mm256_add_epi32(too_low, _mm256_set1_epi32(1)));
    rest = _mm256_sub_epi32(rest, _mm256_andnot_si256(too_low, frequency));
    return quotient;
}

// Low and high bytes of 32 numbers as four times eight of 32 bits, in order.
inline void widen_bytes(__m256i low, __m256i high, __m256i* numbers) {
    const __m256i a = _mm256_unpacklo_epi8(low, high);  // 0-7 and 16-23
    const __m256i b = _mm256_unpackhi_epi8(low, high);  // 8-15 and 24-31
    numbers[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    numbers[1] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(b));
    numbers[2] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
    numbers[3] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(b, 1));
}

template <int kStreams>
void encode_streams(EncodeStream* const* streams, size_t num_groups) {
    const __m256i low_half = _mm256_set1_epi32(0xFFFF);
    __m256i state[kStreams][kVectors];
    uint8_t* words[kStreams];
    const uint8_t* symbols[kStreams];
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            state[s][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(streams[s]->state + 8 * v));
        }
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
    }
    for (size_t group = 0; group < num_groups; ++group) {
        for (int s = 0; s < kStreams; ++s) {
            const EncodeTable& table = *streams[s]->table;
            const auto* slots = reinterpret_cast<const int*>(table.slots);
            symbols[s] -= kLanes;
            const ByteLookup of_symbol(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols[s])));
            __m256i frequencies[kVectors], starts[kVectors];
            widen_bytes(of_symbol(table.planes[0]), of_symbol(table.planes[1]), frequencies);
            widen_bytes(of_symbol(table.planes[2]), of_symbol(table.planes[3]), starts);
            for (int v = kVectors - 1; v >= 0; --v) {
                const __m256i frequency = frequencies[v];
                __m256i x = state[s][v];
                const __m256i keeps = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32(x, 32 - kPrecision));
                const auto set = ~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(keeps))) & 0xFF;
                const __m256i ordered =
                    _mm256_permutevar8x32_epi32(_mm256_and_si256(x, low_half), order_of(kLaneOrders.compress[set]));
                const __m128i shed =
                    _mm_packus_epi32(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
                // The shed words are the last of the eight; what is written before them is written over later.
                _mm_storeu_si128(reinterpret_cast<__m128i*>(words[s] - 16), shed);
                words[s] -= 2 * _mm_popcnt_u32(set);
                x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, keeps);
                __m256i rest;
                const __m256i quotient = divide(x, frequency, rest);
                const __m256i place = _mm256_add_epi32(starts[v], rest);
                const __m256i slot = _mm256_and_si256(_mm256_i32gather_epi32(slots, place, 2), low_half);
                state[s][v] = _mm256_add_epi32(_mm256_slli_epi32(quotient, kPrecision), slot);
            }
        }
    }
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(streams[s]->state + 8 * v), state[s][v]);
        }
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void encode_groups(EncodeStream* const* streams, int num_streams, size_t num_groups) {
    // Two in lockstep are no faster: an encoder's lookups and divisions keep every unit busy.
    for (int s = 0; s < num_streams; ++s) encode_streams<1>(streams + s, num_groups);
}

inline void store(uint8_t* out, __m256i value) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), value); }

inline void map_32_symbols(const SymbolMap& map, int width, const uint8_t* symbols, uint8_t* out) {
    const ByteLookup look_up(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols)));
    const __m256i byte0 = look_up(map.planes[0]);
    if (width == 1) return store(out, byte0);
    const __m256i byte1 = look_up(map.planes[1]);
    // Unpacking works within 128-bit halves: a holds symbols 0-7 and 16-23, b holds 8-15 and 24-31.
    const __m256i a = _mm256_unpacklo_epi8(byte0, byte1);
    const __m256i b = _mm256_unpackhi_epi8(byte0, byte1);
    if (width == 2) {
        store(out, _mm256_permute2x128_si256(a, b, 0x20));
        return store(out + 32, _mm256_permute2x128_si256(a, b, 0x31));
    }
    const __m256i byte2 = look_up(map.planes[2]);
    const __m256i byte3 = look_up(map.planes[3]);
    const __m256i c = _mm256_unpacklo_epi8(byte2, byte3);
    const __m256i d = _mm256_unpackhi_epi8(byte2, byte3);
    const __m256i ac0 = _mm256_unpacklo_epi16(a, c);  // 0-3 and 16-19
    const __m256i ac1 = _mm256_unpackhi_epi16(a, c);  // 4-7 and 20-23
    const __m256i bd0 = _mm256_unpacklo_epi16(b, d);  // 8-11 and 24-27
    const __m256i bd1 = _mm256_unpackhi_epi16(b, d);  // 12-15 and 28-31
    store(out, _mm256_permute2x128_si256(ac0, ac1, 0x20));
    store(out + 32, _mm256_permute2x128_si256(bd0, bd1, 0x20));
    store(out + 64, _mm256_permute2x128_si256(ac0, ac1, 0x31));
    store(out + 96, _mm256_permute2x128_si256(bd0, bd1, 0x31));
}

bool map_symbols(const SymbolMap& map, int width, const uint8_t* symbols, size_t count, uint8_t* out) {
    if (width == 8) return kScalarKernels.map_symbols(map, width, symbols, count, out);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) map_32_symbols(map, width, symbols + i, out + i * static_cast<size_t>(width));
    for (; i < count; ++i) {
        std::memcpy(out + i * static_cast<size_t>(width), &map.words[symbols[i] & 63], static_cast<size_t>(width));
    }
    return true;
}

// Slots looked up by shuffles of bytes in the alias table: where gathers are slow, as on AMD's processors.
//
// 32 slots are packed to bytes, looked up plane by plane, and unpacked. Packing and unpacking work within 128-bit
// halves and are each other's inverse, so that offsets and frequencies come out where their lanes are; only the symbols,
// which stay packed, have to be put back in lane order.
template <int kStreams>
void decode_streams_by_shuffles(DecodeStream* const* streams, size_t num_groups) {
    const __m256i slot_mask = _mm256_set1_epi32(kTotal - 1);
    const __m256i in_bucket = _mm256_set1_epi16(kBucket - 1);
    const __m256i zero = _mm256_setzero_si256();
    const __m256i symbol_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i state[kStreams][kVectors];
    const uint8_t* words[kStreams];
    uint8_t* symbols[kStreams];
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            state[s][v] = _mm256_load_si256(reinterpret_cast<const __m256i*>(streams[s]->state + 8 * v));
        }
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
    }
    for (size_t group = 0; group < num_groups; ++group) {
        for (int s = 0; s < kStreams; ++s) {
            const auto& planes = streams[s]->alias->planes;
            __m256i* const x = state[s];
            const __m256i slot01 =
                _mm256_packus_epi32(_mm256_and_si256(x[0], slot_mask), _mm256_and_si256(x[1], slot_mask));
            const __m256i slot23 =
                _mm256_packus_epi32(_mm256_and_si256(x[2], slot_mask), _mm256_and_si256(x[3], slot_mask));
            const __m256i place01 = _mm256_and_si256(slot01, in_bucket), place23 = _mm256_and_si256(slot23, in_bucket);
            const __m256i place = _mm256_packus_epi16(place01, place23);
            const __m256i bucket = _mm256_packus_epi16(_mm256_srli_epi16(slot01, 7), _mm256_srli_epi16(slot23, 7));
            const ByteLookup of_bucket(bucket);
            // Unsigned bytes: the place is not below the number of own slots, which may be 128.
            const __m256i is_alias =
                _mm256_cmpeq_epi8(_mm256_max_epu8(place, of_bucket(planes[AliasTable::kOwnSlots])), place);
            const __m256i symbol = _mm256_blendv_epi8(bucket, of_bucket(planes[AliasTable::kAlias]), is_alias);
            const __m256i low = _mm256_blendv_epi8(
                of_bucket(planes[AliasTable::kOwnLow]), of_bucket(planes[AliasTable::kAliasLow]), is_alias);
            const __m256i high = _mm256_blendv_epi8(
                of_bucket(planes[AliasTable::kOwnHigh]), of_bucket(planes[AliasTable::kAliasHigh]), is_alias);
            const ByteLookup of_symbol(symbol);
            const __m256i frequency_low = of_symbol(planes[AliasTable::kFrequencyLow]);
            const __m256i frequency_high = of_symbol(planes[AliasTable::kFrequencyHigh]);
            const __m256i ordered = _mm256_permutevar8x32_epi32(symbol, symbol_order);
            _mm256_storeu_si256(
                reinterpret_cast<__m256i*>(symbols[s]), _mm256_add_epi8(ordered, base_of(*streams[s])));
            symbols[s] += kLanes;
            const __m256i offset01 = _mm256_add_epi16(_mm256_unpacklo_epi8(low, high), place01);
            const __m256i offset23 = _mm256_add_epi16(_mm256_unpackhi_epi8(low, high), place23);
            const __m256i frequency01 = _mm256_unpacklo_epi8(frequency_low, frequency_high);
            const __m256i frequency23 = _mm256_unpackhi_epi8(frequency_low, frequency_high);
            const auto step = [](__m256i before, __m256i frequency, __m256i offset) {
                return _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(before, kPrecision), frequency), offset);
            };
            x[0] = step(x[0], _mm256_unpacklo_epi16(frequency01, zero), _mm256_unpacklo_epi16(offset01, zero));
            x[1] = step(x[1], _mm256_unpackhi_epi16(frequency01, zero), _mm256_unpackhi_epi16(offset01, zero));
            x[2] = step(x[2], _mm256_unpacklo_epi16(frequency23, zero), _mm256_unpacklo_epi16(offset23, zero));
            x[3] = step(x[3], _mm256_unpackhi_epi16(frequency23, zero), _mm256_unpackhi_epi16(offset23, zero));
            for (int v = 0; v < kVectors; ++v) x[v] = take_words(x[v], words[s]);
        }
    }
    for (int s = 0; s < kStreams; ++s) {
        for (int v = 0; v < kVectors; ++v) {
            _mm256_store_si256(reinterpret_cast<__m256i*>(streams[s]->state + 8 * v), state[s][v]);
        }
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void decode_groups_by_shuffles(DecodeStream* const* streams, int num_streams, size_t num_groups) {
    if (num_streams == 2) return decode_streams_by_shuffles<2>(streams, num_groups);
    for (int s = 0; s < num_streams; ++s) decode_streams_by_shuffles<1>(streams + s, num_groups);
}

}  // namespace

const Kernels kAvx2Kernels = {
    "avx2", 2, SlotLayout::kPacked, decode_groups, encode_groups, map_symbols, nullptr};
const Kernels kAvx2ShuffleKernels = {
    "avx2", 2, SlotLayout::kNone, decode_groups_by_shuffles, encode_groups, map_symbols, nullptr};

}  // namespace fewbits
