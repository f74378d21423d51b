// AVX-512 with VBMI and VBMI2: a whole table held in first-level cache, 64 slots looked up by one permute of bytes.
//
// Decoding takes streams in pairs. A lane's state is two words of 16 bits, in a register of low and one of high words:
// a product of 16 bits by 16 is an instruction, one of 32 by 32 is two. The indices of a pair's lanes lie in one register
// of bytes, the first stream's in the even ones; what is found comes apart into words without being moved.
//
// Encoding takes pairs too. It keeps the states of even and of odd lanes apart, 32 bits each, for its divisions.
//
// Where streams are too few, one is given several times: what it does is done as often, and written to the same bytes.
#include <immintrin.h>

#include <array>
#include <cstring>

#include "wide.h"

namespace fewbits {
namespace {

constexpr __mmask32 kOddWords = 0xAAAAAAAA;
constexpr int kPairs = 3;  // in lockstep: as many states as there are registers for

struct Lanes {
    __m512i even;
    __m512i odd;
};

constexpr std::array<uint8_t, 64> make_apart() {
    std::array<uint8_t, 64> order{};
    for (size_t i = 0; i < 64; ++i) order[i] = static_cast<uint8_t>(2 * i % 64 + i / 32);
    return order;
}

constexpr std::array<uint8_t, 64> kApart = make_apart();  // a permutation: even bytes first, then odd ones

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

// Low and high words of 32 states, in lane order.
struct Words {
    __m512i low;
    __m512i high;
};

inline Words load_words(const uint32_t* state) {
    const Lanes x = load_lanes(state);
    return {low_words(x), high_words(x)};
}

inline void store_words(uint32_t* state, Words x) {
    const Lanes low = widened(x.low), high = widened(x.high);
    store_lanes(state, {_mm512_or_si512(low.even, _mm512_slli_epi32(high.even, 16)),
                        _mm512_or_si512(low.odd, _mm512_slli_epi32(high.odd, 16))});
}

// Even bytes from one register, odd bytes from another.
inline __m512i interleave(__m512i even, __m512i odd) {
    return _mm512_ternarylogic_epi32(odd, _mm512_set1_epi16(0xFF), even, 0xB8);
}

inline __m512i swap_bytes(__m512i words) { return _mm512_shldi_epi16(words, words, 8); }

// A pair's words from their low bytes, and from their high bytes swapped.
inline __m512i first_words(__m512i low, __m512i swapped_high) { return interleave(low, swapped_high); }
inline __m512i second_words(__m512i low, __m512i swapped_high) { return _mm512_shldi_epi16(swapped_high, low, 8); }

// A pair of streams' tables: bytes are looked up in the first for the first stream, which is even bytes.
template <bool kShared>
struct PairLookup {
    const AliasTable* table[2];

    // `found` where `wanted` is 0. Only the low six bits of an index count.
    __m512i operator()(int plane, __m512i indices, __m512i found, __mmask64 wanted) const {
        const __m512i first = load(table[0]->planes[plane]);
        if (kShared) return _mm512_mask_permutexvar_epi8(found, wanted, indices, first);
        found = _mm512_mask_permutexvar_epi8(found, wanted & kEvenBytes, indices, first);
        return _mm512_mask_permutexvar_epi8(found, wanted & ~kEvenBytes, indices, load(table[1]->planes[plane]));
    }

    __m512i operator()(int plane, __m512i indices) const {
        const __m512i found = _mm512_permutexvar_epi8(indices, load(table[0]->planes[plane]));
        if (kShared) return found;
        return _mm512_mask_permutexvar_epi8(found, ~kEvenBytes, indices, load(table[1]->planes[plane]));
    }

    static constexpr __mmask64 kEvenBytes = 0x5555555555555555;
};

// x div 8192 * frequency + offset, of 32 lanes; those below 2^16 take the next words, in lane order.
inline void decode_step(Words& x, __m512i frequency, __m512i offset, const uint8_t*& words) {
    const __m512i low_part = _mm512_shldi_epi16(x.high, x.low, 16 - kPrecision);  // of the 19 bits of x div 8192
    const __m512i high_part = _mm512_srli_epi16(x.high, kPrecision);
    const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(low_part, frequency), offset);
    const __mmask32 carries = _mm512_cmplt_epu16_mask(low, offset);
    __m512i high =
        _mm512_add_epi16(_mm512_mulhi_epu16(low_part, frequency), _mm512_mullo_epi16(high_part, frequency));
    high = _mm512_mask_sub_epi16(high, carries, high, _mm512_set1_epi16(-1));
    const __mmask32 needs = _mm512_testn_epi16_mask(high, high);
    x.high = _mm512_mask_mov_epi16(high, needs, low);
    x.low = _mm512_mask_expand_epi16(low, needs, load(words));  // 32 words, all within the group's
    words += 2 * static_cast<size_t>(_mm_popcnt_u32(needs));
}

template <int kNum, bool kShared>
void decode_pairs(DecodeStream* const* streams, size_t num_groups) {
    const __m512i in_bucket = _mm512_set1_epi16(kBucket - 1);
    const __m512i apart = load(kApart.data());
    using Table = AliasTable;
    Words state[2 * kNum];
    const uint8_t* words[2 * kNum];
    uint8_t* symbols[2 * kNum];
    uintptr_t elements[2 * kNum];
    const size_t width = streams[0]->width;  // others may differ: nothing depends on it but speed
    PairLookup<kShared> look_up[kNum];
    alignas(64) uint8_t base[kNum][2 * kLanes];  // a half for each stream
    for (int s = 0; s < 2 * kNum; ++s) {
        state[s] = load_words(streams[s]->state);
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
        elements[s] = reinterpret_cast<uintptr_t>(streams[s]->elements) + 128;  // memory needs time
        look_up[s / 2].table[s % 2] = streams[s]->alias;
        std::memset(base[s / 2] + s % 2 * kLanes, streams[s]->base, kLanes);
    }
    for (size_t done = 0; done < num_groups * kLanes; done += kLanes) {
#pragma GCC unroll 3  // else the states are not kept in registers
        for (int p = 0; p < kNum; ++p) {
            const int s = 2 * p, t = s + 1;
            const __m512i low0 = state[s].low, low1 = state[t].low;
            // Bits 7 to 12 are the bucket's; what is above them in these bytes counts only where it is masked.
            const __m512i bucket = interleave(_mm512_srli_epi16(low0, 7), _mm512_slli_epi16(low1, 1));
            const __m512i slot = interleave(low0, _mm512_slli_epi16(low1, 8));  // its low byte
            const __mmask64 is_alias = _mm512_cmpge_epu8_mask(slot, look_up[p](Table::kDividerLow, bucket));
            const __m512i own = _mm512_and_si512(bucket, _mm512_set1_epi8(kMaxSymbols - 1));
            const __m512i symbol = look_up[p](Table::kAlias, bucket, own, is_alias);
            const __m512i low = look_up[p](Table::kAliasLow, bucket, look_up[p](Table::kOwnLow, bucket), is_alias);
            const __m512i high =
                swap_bytes(look_up[p](Table::kAliasHigh, bucket, look_up[p](Table::kOwnHigh, bucket), is_alias));
            const __m512i frequency_low = look_up[p](Table::kFrequencyLow, symbol);
            const __m512i frequency_high = swap_bytes(look_up[p](Table::kFrequencyHigh, symbol));
            for (int i = s; i <= t; ++i) {
                _mm_prefetch(reinterpret_cast<const char*>(elements[i] + done * width), _MM_HINT_T0);
            }
            const __m512i ordered = _mm512_add_epi8(_mm512_permutexvar_epi8(apart, symbol), load(base[p]));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols[s] + done), _mm512_castsi512_si256(ordered));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols[t] + done), _mm512_extracti64x4_epi64(ordered, 1));
            const __m512i offset0 = _mm512_add_epi16(_mm512_and_si512(low0, in_bucket), first_words(low, high));
            const __m512i offset1 = _mm512_add_epi16(_mm512_and_si512(low1, in_bucket), second_words(low, high));
            decode_step(state[s], first_words(frequency_low, frequency_high), offset0, words[s]);
            decode_step(state[t], second_words(frequency_low, frequency_high), offset1, words[t]);
        }
    }
    for (int s = 0; s < 2 * kNum; ++s) {
        store_words(streams[s]->state, state[s]);
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s] + num_groups * kLanes;
    }
}

void decode_groups(DecodeStream* const* streams, int num_streams, size_t num_groups) {
    DecodeStream* all[2 * kPairs];
    for (int s = 0; s < 2 * kPairs; ++s) all[s] = streams[s < num_streams ? s : num_streams - 1];
    bool shared = num_streams > 2;
    for (int s = 0; s < 2 * kPairs; s += 2) shared &= all[s]->alias == all[s + 1]->alias;
    if (shared && num_streams > 2 * kPairs - 2) return decode_pairs<kPairs, true>(all, num_groups);
    if (shared) return decode_pairs<kPairs - 1, true>(all, num_groups);
    // Rows of their own tables are short: more in lockstep are hardly faster, and their loop would be the longest here.
    for (int s = 0; s < num_streams; s += 2) decode_pairs<1, false>(all + s, num_groups);
}

// NUMERICS: a reciprocal is right to 14 bits, after the step to 22. A quotient below 2^19 is then off by less than 1/4:
// taken down by as much, and cut to an integer, it is right or 1 too low, which the rest shows.
inline __m512i divide(__m512i x, __m512i frequency, __m512i& rest) {
    const __m512 divisor = _mm512_cvtepu32_ps(frequency);
    const __m512 rough = _mm512_rcp14_ps(divisor);
    const __m512 reciprocal = _mm512_fmadd_ps(rough, _mm512_fnmadd_ps(divisor, rough, _mm512_set1_ps(1.0f)), rough);
    const __m512 real = _mm512_fmadd_ps(_mm512_cvtepu32_ps(x), reciprocal, _mm512_set1_ps(-0.25f));
    const __m512i quotient = _mm512_cvttps_epu32(real);
    rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, frequency));
    const __mmask16 too_low = _mm512_cmpge_epu32_mask(rest, frequency);
    rest = _mm512_mask_sub_epi32(rest, too_low, rest, frequency);
    return _mm512_mask_sub_epi32(quotient, too_low, quotient, _mm512_set1_epi32(-1));
}

inline __m512i encode_step(__m512i x, __m512i frequency, __m512i start, const uint16_t* slots) {
    __m512i rest;
    const __m512i quotient = divide(x, frequency, rest);
    const __m512i place = _mm512_add_epi32(start, rest);
    const __m512i pair = _mm512_i32gather_epi32(place, slots, 2);  // with the slot after it
    const __m512i slot = _mm512_and_si512(pair, _mm512_set1_epi32(0xFFFF));
    return _mm512_add_epi32(_mm512_slli_epi32(quotient, kPrecision), slot);
}

void encode_pair(EncodeStream* const* streams, size_t num_groups) {
    Lanes state[2];
    uint8_t* words[2];
    const uint8_t* symbols[2];
    for (int s = 0; s < 2; ++s) {
        state[s] = load_lanes(streams[s]->state);
        words[s] = streams[s]->words;
        symbols[s] = streams[s]->symbols;
    }
    for (size_t group = 0; group < num_groups; ++group) {
#pragma GCC unroll 2  // else the states are not kept in registers
        for (int s = 0; s < 2; ++s) {
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
    for (int s = 0; s < 2; ++s) {
        store_lanes(streams[s]->state, state[s]);
        streams[s]->words = words[s];
        streams[s]->symbols = symbols[s];
    }
}

void encode_groups(EncodeStream* const* streams, int num_streams, size_t num_groups) {
    for (int s = 0; s < num_streams; s += 2) {
        EncodeStream* const pair[2] = {streams[s], streams[s + 1 < num_streams ? s + 1 : s]};
        encode_pair(pair, num_groups);
    }
}

bool map_symbols(const SymbolMap& map, int width, const uint8_t* symbols, size_t count, uint8_t* out) {
    size_t i = 0;
    if (width == 1) {
        const __m512i bytes = load(map.planes[0]);
        const __m512i escape = _mm512_set1_epi8(static_cast<char>(map.escape));
        __mmask64 found = 0;
        for (; i + 64 <= count; i += 64) {
            const __m512i next = load(symbols + i);
            found |= _mm512_cmpeq_epi8_mask(next, escape);
            _mm512_storeu_si512(out + i, _mm512_permutexvar_epi8(next, bytes));
        }
        if (i == count) return found != 0;
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
        const __m512i word0 = load(words), word16 = load(words + 16);
        const __m512i word32 = load(words + 32), word48 = load(words + 48);
        for (; i + 16 <= count; i += 16) {
            const __m512i next =
                _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols + i)));
            const __m512i low = _mm512_permutex2var_epi32(word0, next, word16);
            const __m512i high = _mm512_permutex2var_epi32(word32, next, word48);
            const __mmask16 is_high = _mm512_test_epi32_mask(next, _mm512_set1_epi32(32));
            _mm512_storeu_si512(out + 4 * i, _mm512_mask_mov_epi32(low, is_high, high));
        }
    }
    return kScalarKernels.map_symbols(map, width, symbols + i, count - i, out + i * static_cast<size_t>(width));
}

// Bytes of words are looked up plane by plane, and eight in a row added up by one instruction.
void sum_groups(const SymbolMap& map, const uint8_t* symbols, size_t num_groups, uint32_t* sums) {
    const __m512i zero = _mm512_set1_epi32(0);
    alignas(64) uint64_t eighths[8];  // of two groups
    for (size_t group = 0; group < num_groups; group += 2) {
        const __m512i next = load(symbols + kLanes * group);
        __m512i sum = zero;
        for (int plane = 2; plane >= 0; --plane) {
            const __m512i bytes = _mm512_permutexvar_epi8(next, load(map.planes[plane]));
            sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), _mm512_sad_epu8(bytes, zero));
        }
        _mm512_storeu_si512(eighths, sum);
        for (size_t i = 0; i < 2; ++i) {
            const uint64_t* each = eighths + 4 * i;
            sums[group + i] = static_cast<uint32_t>(each[0] + each[1] + each[2] + each[3]);
        }
    }
}

}  // namespace

const Kernels kAvx512Kernels = {
    "avx512", 2 * kPairs, SlotLayout::kNone, decode_groups, encode_groups, map_symbols, sum_groups};

}  // namespace fewbits
