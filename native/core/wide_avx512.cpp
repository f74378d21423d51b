// AVX-512 with VBMI2: a whole table held in registers or first-level cache, 32 slots looked up by one wide permute.
//
// The 32 states are kept as two registers, of even and of odd lanes: so the low halves of all states, shifted and
// blended, stand in lane order in one register of 16-bit numbers, and that is where slots, symbols, frequencies and
// offsets are worked out. Only the multiplication needs 32 bits a lane.
#include <immintrin.h>

#include <cstring>

#include "place_values.h"
#include "unpack_avx2.h"
#include "wide.h"

namespace fewbits {
namespace {

constexpr __mmask32 kOddWords = 0xAAAAAAAA;

struct Lanes {
    __m512i even;
    __m512i odd;
};

inline __m512i load(const void* bytes) { return _mm512_loadu_si512(bytes); }

inline Lanes load_lanes(const uint32_t* state) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    const __m512i low = load(state), high = load(state + 16);
    return {_mm512_permutex2var_epi32(low, even, high), _mm512_permutex2var_epi32(low, odd, high)};
}

inline void store_lanes(uint32_t* state, Lanes lanes) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    _mm512_storeu_si512(state, _mm512_permutex2var_epi32(lanes.even, low, lanes.odd));
    _mm512_storeu_si512(state + 16, _mm512_permutex2var_epi32(lanes.even, high, lanes.odd));
}

// 64 numbers of 16 bits, looked up by 32 indices.
inline __m512i look_up(const uint16_t* numbers, __m512i indices) {
    return _mm512_permutex2var_epi16(load(numbers), indices, load(numbers + 32));
}

// The low, or the high, 16 bits of all lanes in lane order.
inline __m512i low_words(Lanes x) { return _mm512_mask_blend_epi16(kOddWords, x.even, _mm512_slli_epi32(x.odd, 16)); }
inline __m512i high_words(Lanes x) { return _mm512_mask_blend_epi16(kOddWords, _mm512_srli_epi32(x.even, 16), x.odd); }

// Numbers in lane order as 32-bit ones.
inline Lanes widened(__m512i numbers) {
    return {_mm512_and_si512(numbers, _mm512_set1_epi32(0xFFFF)), _mm512_srli_epi32(numbers, 16)};
}

// A mask of words from one of even or odd lanes: both words of each lane.
inline __mmask32 both_words_even(uint32_t set) { return (set & 0x55555555u) | (set & 0x55555555u) << 1; }
inline __mmask32 both_words_odd(uint32_t set) { return (set & 0xAAAAAAAAu) | (set & 0xAAAAAAAAu) >> 1; }

inline __m512i decode_step(__m512i x, __m512i frequency, __m512i offset) {
    return _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(x, kPrecision), frequency), offset);
}

template <int kStreams>
void decode_streams(DecodeStream* const* streams, size_t num_groups) {
    const __m512i slot_mask = _mm512_set1_epi16(static_cast<short>(kTotal - 1));
    Lanes state[kStreams];
    const uint8_t* words[kStreams];
    uint8_t* symbols[kStreams];
    const AliasTable* table[kStreams];
    for (int s = 0; s < kStreams; ++s) {
        state[s] = load_lanes(streams[s]->state);
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
        table[s] = streams[s]->alias;
    }
    for (size_t group = 0; group < num_groups; ++group) {
        for (int s = 0; s < kStreams; ++s) {
            const Lanes x = state[s];
            const __m512i slot = _mm512_and_si512(low_words(x), slot_mask);
            const __m512i bucket = _mm512_srli_epi16(slot, 7);  // log2 of 128 slots a bucket
            const __mmask32 is_alias = _mm512_cmpge_epu16_mask(slot, look_up(table[s]->divider, bucket));
            const __m512i symbol = _mm512_mask_mov_epi16(bucket, is_alias, look_up(table[s]->alias, bucket));
            const __m512i shift = _mm512_mask_mov_epi16(
                look_up(table[s]->own_shift, bucket), is_alias, look_up(table[s]->alias_shift, bucket));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols[s]), _mm512_cvtepi16_epi8(symbol));
            symbols[s] += kLanes;
            const Lanes frequency = widened(look_up(table[s]->frequency, symbol));
            const Lanes offset = widened(_mm512_add_epi16(slot, shift));
            const Lanes y = {decode_step(x.even, frequency.even, offset.even),
                             decode_step(x.odd, frequency.odd, offset.odd)};
            const __m512i high = high_words(y);
            const __mmask32 needs = _mm512_testn_epi16_mask(high, high);
            const __m512i taken = _mm512_maskz_expand_epi16(needs, load(words[s]));  // 32 words, all within the group's
            words[s] += 2 * _mm_popcnt_u32(needs);
            const Lanes word = widened(taken);
            const __m512i even = _mm512_or_si512(_mm512_slli_epi32(y.even, 16), word.even);
            const __m512i odd = _mm512_or_si512(_mm512_slli_epi32(y.odd, 16), word.odd);
            state[s].even = _mm512_mask_blend_epi16(both_words_even(needs), y.even, even);
            state[s].odd = _mm512_mask_blend_epi16(both_words_odd(needs), y.odd, odd);
        }
    }
    for (int s = 0; s < kStreams; ++s) {
        store_lanes(streams[s]->state, state[s]);
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void decode_groups(DecodeStream* const* streams, int num_streams, size_t num_groups) {
    switch (num_streams) {
        case 4: return decode_streams<4>(streams, num_groups);
        case 3: decode_streams<1>(streams + 2, num_groups); [[fallthrough]];
        case 2: return decode_streams<2>(streams, num_groups);
        default: return decode_streams<1>(streams, num_groups);
    }
}

// NUMERICS: float32 holds neither x nor x / f exactly, but the quotient is below 2^19, so that it is off by less than
// 1/8 before it is cut to an integer, and by at most 1 after: one step of correction each way makes it exact.
inline __m512i divide(__m512i x, __m512i frequency, __m512i& rest) {
    const __m512 real = _mm512_div_ps(_mm512_cvtepu32_ps(x), _mm512_cvtepu32_ps(frequency));
    const __m512i one = _mm512_set1_epi32(1);
    __m512i quotient = _mm512_cvttps_epu32(real);
    rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
    const __mmask16 too_high = _mm512_movepi32_mask(rest);  // the sign
    quotient = _mm512_mask_sub_epi32(quotient, too_high, quotient, one);
    rest = _mm512_mask_add_epi32(rest, too_high, rest, frequency);
    const __mmask16 too_low = _mm512_cmpge_epu32_mask(rest, frequency);
    quotient = _mm512_mask_add_epi32(quotient, too_low, quotient, one);
    rest = _mm512_mask_sub_epi32(rest, too_low, rest, frequency);
    return quotient;
}

inline __m512i encode_step(__m512i x, __m512i frequency, __m512i start, const uint16_t* slots) {
    __m512i rest;
    const __m512i quotient = divide(x, frequency, rest);
    const __m512i place = _mm512_add_epi32(start, rest);
    const __m512i pair = _mm512_i32gather_epi32(place, slots, 2);  // with the slot after it
    const __m512i slot = _mm512_and_si512(pair, _mm512_set1_epi32(0xFFFF));
    return _mm512_add_epi32(_mm512_slli_epi32(quotient, kPrecision), slot);
}

template <int kStreams>
void encode_streams(EncodeStream* const* streams, size_t num_groups) {
    Lanes state[kStreams];
    uint8_t* words[kStreams];
    const uint8_t* symbols[kStreams];
    for (int s = 0; s < kStreams; ++s) {
        state[s] = load_lanes(streams[s]->state);
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
    }
    for (size_t group = 0; group < num_groups; ++group) {
        for (int s = 0; s < kStreams; ++s) {
            const EncodeTable& table = *streams[s]->table;
            symbols[s] -= kLanes;
            const __m512i symbol =
                _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols[s])));
            const __m512i frequencies = look_up(table.frequency, symbol);
            const Lanes frequency = widened(frequencies);
            const Lanes start = widened(look_up(table.start, symbol));
            Lanes x = state[s];
            // x >> 19 has 13 bits, so the comparison fits words in lane order: x >= f * 2^19, a lane a bit.
            const Lanes top = {_mm512_srli_epi32(x.even, 32 - kPrecision), _mm512_srli_epi32(x.odd, 32 - kPrecision)};
            const __mmask32 sheds = _mm512_cmpge_epu16_mask(low_words(top), frequencies);
            const __m512i shed = _mm512_maskz_compress_epi16(sheds, low_words(x));
            const auto count = static_cast<unsigned>(_mm_popcnt_u32(sheds));
            words[s] -= 2 * count;
            _mm512_mask_storeu_epi16(words[s], _bzhi_u32(~0u, count), shed);
            x.even = _mm512_mask_blend_epi16(both_words_even(sheds), x.even, _mm512_srli_epi32(x.even, 16));
            x.odd = _mm512_mask_blend_epi16(both_words_odd(sheds), x.odd, _mm512_srli_epi32(x.odd, 16));
            state[s].even = encode_step(x.even, frequency.even, start.even, table.slots);
            state[s].odd = encode_step(x.odd, frequency.odd, start.odd, table.slots);
        }
    }
    for (int s = 0; s < kStreams; ++s) {
        store_lanes(streams[s]->state, state[s]);
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void encode_groups(EncodeStream* const* streams, int num_streams, size_t num_groups) {
    switch (num_streams) {
        case 4: return encode_streams<4>(streams, num_groups);
        case 3: encode_streams<1>(streams + 2, num_groups); [[fallthrough]];
        case 2: return encode_streams<2>(streams, num_groups);
        default: return encode_streams<1>(streams, num_groups);
    }
}

void map_symbols(const SymbolMap& map, int width, const uint8_t* symbols, size_t count, uint8_t* out) {
    size_t i = 0;
    if (width == 1) {
        const __m512i bytes = load(map.planes[0]);
        for (; i + 64 <= count; i += 64) {
            _mm512_storeu_si512(out + i, _mm512_permutexvar_epi8(load(symbols + i), bytes));
        }
    } else if (width == 2) {
        alignas(64) uint16_t words[kMaxSymbols];
        for (int s = 0; s < kMaxSymbols; ++s) words[s] = static_cast<uint16_t>(map.words[s]);
        for (; i + 32 <= count; i += 32) {
            const __m256i next = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(symbols + i));
            _mm512_storeu_si512(out + 2 * i, look_up(words, _mm512_cvtepu8_epi16(next)));
        }
    } else if (width == 4) {
        alignas(64) uint32_t words[kMaxSymbols];
        for (int s = 0; s < kMaxSymbols; ++s) words[s] = static_cast<uint32_t>(map.words[s]);
        const __m512i word0 = load(words), word16 = load(words + 16), word32 = load(words + 32), word48 = load(words + 48);
        for (; i + 16 <= count; i += 16) {
            const __m512i next =
                _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols + i)));
            const __m512i low = _mm512_permutex2var_epi32(word0, next, word16);
            const __m512i high = _mm512_permutex2var_epi32(word32, next, word48);
            const __mmask16 is_high = _mm512_test_epi32_mask(next, _mm512_set1_epi32(32));
            _mm512_storeu_si512(out + 4 * i, _mm512_mask_mov_epi32(low, is_high, high));
        }
    }
    kScalarKernels.map_symbols(map, width, symbols + i, count - i, out + i * static_cast<size_t>(width));
}

void join_fields(const RawRun& run, int drop, bool is_signed, const uint8_t* symbols, size_t count, uint8_t* out) {
    join_fields_with(unpack_by_eights, run, drop, is_signed, symbols, count, out);
}

void join_levels(
    const RawRun& run, float step, const float* shifts, const uint8_t* symbols, size_t count, uint8_t* out) {
    join_levels_with(unpack_by_eights, run, step, shifts, symbols, count, out);
}

}  // namespace

const Kernels kAvx512Kernels = {"avx512", 4, SlotLayout::kNone, decode_groups, encode_groups, map_symbols, place_values, join_fields, join_levels};

}  // namespace fewbits
