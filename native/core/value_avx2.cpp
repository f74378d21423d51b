// AVX2: raw bits are unpacked eight numbers at a time. AVX-512 has no loops of its own: these wait for memory.
#include <immintrin.h>

#include "value_loops.h"

namespace fewbits {
namespace {

// Eight numbers of `width` bits begin with a byte, and then lie at the same places of their bytes as the eight before:
// one shuffle brings each its four bytes, one shift its bits to the bottom.
struct Eights {
    __m256i place, shift, mask;
    int half;  // first byte of number 4

    explicit Eights(int width) : mask(_mm256_set1_epi32((1 << width) - 1)), half(4 * width / 8) {
        alignas(32) uint8_t places[32];
        alignas(32) uint32_t shifts[8];
        for (int i = 0; i < 8; ++i) {
            const int first = i * width / 8 - (i < 4 ? 0 : half);
            for (int j = 0; j < 4; ++j) places[4 * i + j] = static_cast<uint8_t>(first + j);
            shifts[i] = static_cast<uint32_t>(i * width % 8);
        }
        place = _mm256_load_si256(reinterpret_cast<const __m256i*>(places));
        shift = _mm256_load_si256(reinterpret_cast<const __m256i*>(shifts));
    }

    __m256i unpack(const uint8_t* bytes) const {
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + half));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
        return _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(both, place), shift), mask);
    }
};

void unpack_by_eights(const uint8_t* bytes, int width, size_t count, uint32_t* numbers) {
    const Eights eights(width);
    size_t i = 0;
    for (; i + 8 <= count; i += 8, bytes += width) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers + i), eights.unpack(bytes));
    }
    unpack_portably(bytes, width, count - i, numbers + i);
}

void join_fields(const RawRun& run, int drop, bool is_signed, const uint8_t* symbols, size_t count, uint8_t* out) {
    const Eights eights(run.shift);
    const __m256i base = _mm256_set1_epi32(static_cast<int>(run.base));
    const __m128i shift = _mm_cvtsi32_si128(run.shift), back = _mm_cvtsi32_si128(drop);
    const uint8_t* raw = run.raw;
    const auto join = [&](auto make) {
        size_t i = 0;
        for (; i + 8 <= count; i += 8, raw += run.shift) {
            const __m256i symbol = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(symbols + i)));
            const __m256i high = _mm256_add_epi32(_mm256_sll_epi32(symbol, shift), base);
            const __m256i word = make(_mm256_add_epi32(high, eights.unpack(raw)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 4 * i), word);
        }
        return i;
    };
    const size_t done = is_signed ? join([back](__m256i v) {
        return _mm256_or_si256(_mm256_sll_epi32(_mm256_srli_epi32(v, 1), back), _mm256_slli_epi32(v, 31));
    }) : join([back](__m256i v) { return _mm256_sll_epi32(v, back); });
    const RawRun rest = {run.base, run.shift, raw};
    kScalarValueLoops.join_fields(rest, drop, is_signed, symbols + done, count - done, out + 4 * done);
}

void place(const void* values, size_t count, uint32_t base, int shift, uint32_t num_values, uint8_t* symbols) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    const __m256i first = _mm256_set1_epi32(static_cast<int>(base));
    const __m256i escape = _mm256_set1_epi32(static_cast<int>(num_values));
    // Packing works within 128-bit halves; the last permutation puts the symbols back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const auto eight = [&](size_t k) {
            const __m256i read = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 4 * i + 32 * k));
            return _mm256_min_epu32(_mm256_srl_epi32(_mm256_sub_epi32(read, first), _mm_cvtsi32_si128(shift)), escape);
        };
        const __m256i low = _mm256_packus_epi32(eight(0), eight(1)), high = _mm256_packus_epi32(eight(2), eight(3));
        const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols + i), all);
    }
    kScalarValueLoops.place(bytes + 4 * i, count - i, base, shift, num_values, symbols + i);
}

// Pairs of numbers are put together in words of 64 bits; four of these are as many bytes as a number has bits. Each is
// moved to its place in its first byte and takes in the bits that the word before it has of that byte.
void pack(const void* values, size_t count, uint32_t base, int width, uint8_t* out) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    const __m256i first = _mm256_set1_epi32(static_cast<int>(base)), mask = _mm256_set1_epi32((1 << width) - 1);
    const __m256i none = _mm256_setzero_si256();
    const __m128i half = _mm_cvtsi32_si128(width);
    alignas(32) uint64_t moves[4], parts[4];  // of each word: within its first byte; whole bytes, in bits
    size_t at[4];
    for (size_t k = 0; k < 4; ++k) {
        const uint64_t begin = 2 * k * static_cast<uint64_t>(width), end = begin + 2 * static_cast<uint64_t>(width);
        at[k] = static_cast<size_t>(begin / 8);
        moves[k] = begin % 8;
        parts[k] = (end / 8 - begin / 8) * 8;
    }
    const __m256i move = _mm256_load_si256(reinterpret_cast<const __m256i*>(moves));
    const __m256i part = _mm256_load_si256(reinterpret_cast<const __m256i*>(parts));
    for (size_t i = 0; i < count; i += 8, out += width) {
        const __m256i read = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 4 * i));
        const __m256i low = _mm256_and_si256(_mm256_sub_epi32(read, first), mask);
        const __m256i second = _mm256_sll_epi64(_mm256_srli_epi64(low, 32), half);
        const __m256i pairs = _mm256_or_si256(_mm256_blend_epi32(low, none, 0xAA), second);
        const __m256i moved = _mm256_sllv_epi64(pairs, move);
        const __m256i rest = _mm256_permute4x64_epi64(_mm256_srlv_epi64(moved, part), 0x90);  // to the next word
        const __m256i words = _mm256_or_si256(moved, _mm256_blend_epi32(rest, none, 0x03));
        const __m128i lower = _mm256_castsi256_si128(words), upper = _mm256_extracti128_si256(words, 1);
        // Each store writes over what the one before it left behind its whole bytes.
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + at[0]), lower);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + at[1]), _mm_unpackhi_epi64(lower, lower));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + at[2]), upper);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + at[3]), _mm_unpackhi_epi64(upper, upper));
    }
}

}  // namespace

const ValueLoops kAvx2ValueLoops = {
    survey, integers, ends, place, pack, join_fields, join_levels<unpack_by_eights>};

}  // namespace fewbits
