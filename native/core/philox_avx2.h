// Philox by AVX2, for it and what includes it: compilers shuffle products about, which need not leave their lanes.
#pragma once

#include <immintrin.h>

#include "random.h"

namespace fewbits {

namespace {

// Four counters, each word in the lower half of 64 bits; what is in the upper halves is never looked at, for
// _mm256_mul_epu32 multiplies lower halves.
struct FourCounters {
    __m256i a, b, c, d;

    void round(__m256i first_key, __m256i second_key) {
        const __m256i first = _mm256_mul_epu32(a, _mm256_set1_epi64x(0xD2511F53));
        const __m256i second = _mm256_mul_epu32(c, _mm256_set1_epi64x(0xCD9E8D57));
        a = _mm256_xor_si256(_mm256_srli_epi64(second, 32), _mm256_xor_si256(b, first_key));
        b = second;
        c = _mm256_xor_si256(_mm256_srli_epi64(first, 32), _mm256_xor_si256(d, second_key));
        d = first;
    }
};

__m256i load_eight(const uint32_t* words) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)); }

// Eight words of four even counters and four odd ones.
void store_eight(uint32_t* words, __m256i even, __m256i odd) {
    const __m256i all = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), all);
}

void philox_by_eights(const PhiloxKeys& keys, const PhiloxCounters& counters, uint32_t group, PhiloxBlocks& blocks) {
    const auto odd_ones = [](__m256i words) { return _mm256_srli_epi64(words, 32); };
    const __m256i groups = _mm256_set1_epi32(static_cast<int>(group));
    for (size_t i = 0; i < kRandomTile; i += 8) {
        FourCounters even{load_eight(counters.item_low + i), load_eight(counters.item_high + i),
                          load_eight(counters.number + i), groups};
        FourCounters odd{odd_ones(even.a), odd_ones(even.b), odd_ones(even.c), groups};
        for (int round = 0; round < kPhiloxRounds; ++round) {
            const __m256i first_key = _mm256_set1_epi32(static_cast<int>(keys.first[round]));
            const __m256i second_key = _mm256_set1_epi32(static_cast<int>(keys.second[round]));
            even.round(first_key, second_key);
            odd.round(first_key, second_key);
        }
        store_eight(blocks[0] + i, even.a, odd.a);
        store_eight(blocks[1] + i, even.b, odd.b);
        store_eight(blocks[2] + i, even.c, odd.c);
        store_eight(blocks[3] + i, even.d, odd.d);
    }
}

}  // namespace

}  // namespace fewbits
