// AVX2: raw bits are unpacked eight numbers at a time. AVX-512 has no loops of its own: these wait for memory.
#include <immintrin.h>

#include "value_loops.h"

namespace fewbits {
namespace {

// Eight numbers of `width` bits begin with a byte, and then lie at the same places of their bytes as the eight before:
// one shuffle brings each its four bytes, one shift its bits to the bottom.
void unpack_by_eights(const uint8_t* bytes, int width, size_t count, uint32_t* numbers) {
    alignas(32) uint8_t places[32];
    alignas(32) uint32_t shifts[8];
    const int half = 4 * width / 8;  // first byte of number 4
    for (int i = 0; i < 8; ++i) {
        const int first = i * width / 8 - (i < 4 ? 0 : half);
        for (int j = 0; j < 4; ++j) places[4 * i + j] = static_cast<uint8_t>(first + j);
        shifts[i] = static_cast<uint32_t>(i * width % 8);
    }
    const __m256i place = _mm256_load_si256(reinterpret_cast<const __m256i*>(places));
    const __m256i shift = _mm256_load_si256(reinterpret_cast<const __m256i*>(shifts));
    const __m256i mask = _mm256_set1_epi32((1 << width) - 1);
    size_t i = 0;
    for (; i + 8 <= count; i += 8, bytes += width) {
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + half));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
        const __m256i found = _mm256_srlv_epi32(_mm256_shuffle_epi8(both, place), shift);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers + i), _mm256_and_si256(found, mask));
    }
    unpack_portably(bytes, width, count - i, numbers + i);
}

void place(const void* values, size_t count, uint32_t base, uint32_t num_values, uint8_t* symbols) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    const __m256i first = _mm256_set1_epi32(static_cast<int>(base));
    const __m256i escape = _mm256_set1_epi32(static_cast<int>(num_values));
    // Packing works within 128-bit halves; the last permutation puts the symbols back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const auto eight = [&](size_t k) {
            const __m256i read = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 4 * i + 32 * k));
            return _mm256_min_epu32(_mm256_sub_epi32(read, first), escape);
        };
        const __m256i low = _mm256_packus_epi32(eight(0), eight(1)), high = _mm256_packus_epi32(eight(2), eight(3));
        const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols + i), all);
    }
    kScalarValueLoops.place(bytes + 4 * i, count - i, base, num_values, symbols + i);
}

}  // namespace

const ValueLoops kAvx2ValueLoops = {place, join_fields<unpack_by_eights>, join_levels<unpack_by_eights>};

}  // namespace fewbits
