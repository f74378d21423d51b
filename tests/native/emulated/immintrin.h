// The AVX-512 and AVX2 intrinsics that native/core/wide_avx512.cpp uses, each as a loop over numbers.
//
// Compiled against this header instead of the compiler's, that file runs on every machine and under every sanitizer:
// it is how its logic is tested where no processor has the instructions. Every function follows the "Operation" of
// Intel's intrinsics guide; loads and stores touch exactly the bytes that the instruction touches. What an emulation
// cannot show is a compiler that translates an intrinsic wrongly.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// NOLINTBEGIN: names are Intel's
template <int kBytes>
struct EmulatedRegister {
    uint8_t bytes[kBytes];
};
using __m128i = EmulatedRegister<16>;
using __m256i = EmulatedRegister<32>;
using __m512i = EmulatedRegister<64>;
struct __m512 {
    float lane[16];
};
using __mmask16 = uint16_t;
using __mmask32 = uint32_t;

namespace emulated {

// Lane i of a register of lanes of a type.
template <typename Lane, typename Register>
Lane get(const Register& r, int i) {
    Lane lane;
    std::memcpy(&lane, r.bytes + static_cast<size_t>(i) * sizeof(Lane), sizeof(Lane));
    return lane;
}

// A register of lanes lane_of(0), lane_of(1), ...
template <typename Lane, typename Register = __m512i, typename LaneOf>
Register make(const LaneOf& lane_of) {
    Register r;
    for (size_t i = 0; i < sizeof(Register) / sizeof(Lane); ++i) {
        const auto lane = static_cast<Lane>(lane_of(static_cast<int>(i)));
        std::memcpy(r.bytes + i * sizeof(Lane), &lane, sizeof(Lane));
    }
    return r;
}

// A mask of the lanes for which `holds`.
template <typename Lane, typename Mask, typename Holds>
Mask mask(const Holds& holds) {
    Mask result = 0;
    for (int i = 0; i < static_cast<int>(64 / sizeof(Lane)); ++i) {
        result = static_cast<Mask>(result | (holds(i) ? Mask{1} : Mask{0}) << i);
    }
    return result;
}

template <typename Register>
Register load(const void* bytes) {
    Register r;
    std::memcpy(r.bytes, bytes, sizeof r.bytes);
    return r;
}

inline bool in(uint32_t mask, int i) { return (mask >> i & 1) != 0; }

}  // namespace emulated

using namespace emulated;

inline __m512i _mm512_loadu_si512(const void* p) { return load<__m512i>(p); }
inline void _mm512_storeu_si512(void* p, __m512i a) { std::memcpy(p, a.bytes, 64); }
inline __m256i _mm256_loadu_si256(const __m256i* p) { return load<__m256i>(p); }
inline void _mm256_storeu_si256(__m256i* p, __m256i a) { std::memcpy(static_cast<void*>(p), a.bytes, 32); }
inline __m128i _mm_loadu_si128(const __m128i* p) { return load<__m128i>(p); }

inline __m512i _mm512_set1_epi32(int a) {
    return make<uint32_t>([&](int) { return static_cast<uint32_t>(a); });
}
inline __m512i _mm512_set1_epi16(short a) {
    return make<uint16_t>([&](int) { return static_cast<uint16_t>(a); });
}
inline __m512i _mm512_setr_epi32(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, int l,
                                 int m, int n, int o, int p) {
    const int lanes[16] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
    return make<uint32_t>([&](int at) { return static_cast<uint32_t>(lanes[at]); });
}

// Arithmetic is modulo 2^32 or 2^16.
inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) & get<uint32_t>(b, i); });
}
inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) | get<uint32_t>(b, i); });
}
inline __m512i _mm512_add_epi32(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) + get<uint32_t>(b, i); });
}
inline __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) - get<uint32_t>(b, i); });
}
inline __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) * get<uint32_t>(b, i); });
}
inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
    return make<uint16_t>([&](int i) { return get<uint16_t>(a, i) + get<uint16_t>(b, i); });
}
inline __m512i _mm512_slli_epi32(__m512i a, unsigned n) {
    return make<uint32_t>([&](int i) { return n > 31 ? 0 : get<uint32_t>(a, i) << n; });
}
inline __m512i _mm512_srli_epi32(__m512i a, unsigned n) {
    return make<uint32_t>([&](int i) { return n > 31 ? 0 : get<uint32_t>(a, i) >> n; });
}
inline __m512i _mm512_srli_epi16(__m512i a, unsigned n) {
    return make<uint16_t>([&](int i) { return n > 15 ? 0 : get<uint16_t>(a, i) >> n; });
}

inline __m256i _mm256_load_si256(const __m256i* p) { return load<__m256i>(p); }
inline __m256i _mm256_set1_epi32(int a) {
    return make<uint32_t, __m256i>([&](int) { return static_cast<uint32_t>(a); });
}
inline __m256i _mm256_and_si256(__m256i a, __m256i b) {
    return make<uint32_t, __m256i>([&](int i) { return get<uint32_t>(a, i) & get<uint32_t>(b, i); });
}
inline __m256i _mm256_srlv_epi32(__m256i a, __m256i n) {
    return make<uint32_t, __m256i>([&](int i) {
        const auto by = get<uint32_t>(n, i);
        return by > 31 ? 0 : get<uint32_t>(a, i) >> by;
    });
}
// Within each half an index's low four bits choose the byte; bit 7 makes it 0.
inline __m256i _mm256_shuffle_epi8(__m256i a, __m256i index) {
    return make<uint8_t, __m256i>([&](int i) {
        const int at = get<uint8_t>(index, i);
        return at & 128 ? 0 : get<uint8_t>(a, (i & 16) + (at & 15));
    });
}
inline __m256i _mm256_castsi128_si256(__m128i a) {
    // The upper half is undefined: set to what would be seen if it were used.
    return make<uint8_t, __m256i>([&](int i) { return i < 16 ? get<uint8_t>(a, i) : 0xA5; });
}
inline __m256i _mm256_inserti128_si256(__m256i a, __m128i b, int half) {
    return make<uint8_t, __m256i>([&](int i) {
        return i / 16 == half ? get<uint8_t>(b, i & 15) : get<uint8_t>(a, i);
    });
}

// With a mask: the operation where its bit is set, else `source`, or 0 in the forms called maskz.
inline __m512i _mm512_mask_mov_epi16(__m512i source, __mmask32 k, __m512i a) {
    return make<uint16_t>([&](int i) { return get<uint16_t>(in(k, i) ? a : source, i); });
}
inline __m512i _mm512_mask_mov_epi32(__m512i source, __mmask16 k, __m512i a) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(in(k, i) ? a : source, i); });
}
inline __m512i _mm512_mask_blend_epi16(__mmask32 k, __m512i a, __m512i b) { return _mm512_mask_mov_epi16(a, k, b); }
inline __m512i _mm512_mask_add_epi32(__m512i source, __mmask16 k, __m512i a, __m512i b) {
    return _mm512_mask_mov_epi32(source, k, _mm512_add_epi32(a, b));
}
inline __m512i _mm512_mask_sub_epi32(__m512i source, __mmask16 k, __m512i a, __m512i b) {
    return _mm512_mask_mov_epi32(source, k, _mm512_sub_epi32(a, b));
}

inline __mmask32 _mm512_cmpge_epu16_mask(__m512i a, __m512i b) {
    return mask<uint16_t, __mmask32>([&](int i) { return get<uint16_t>(a, i) >= get<uint16_t>(b, i); });
}
inline __mmask16 _mm512_cmpge_epu32_mask(__m512i a, __m512i b) {
    return mask<uint32_t, __mmask16>([&](int i) { return get<uint32_t>(a, i) >= get<uint32_t>(b, i); });
}
inline __mmask32 _mm512_testn_epi16_mask(__m512i a, __m512i b) {
    return mask<uint16_t, __mmask32>([&](int i) { return (get<uint16_t>(a, i) & get<uint16_t>(b, i)) == 0; });
}
inline __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b) {
    return mask<uint32_t, __mmask16>([&](int i) { return (get<uint32_t>(a, i) & get<uint32_t>(b, i)) != 0; });
}
inline __mmask16 _mm512_movepi32_mask(__m512i a) {
    return mask<uint32_t, __mmask16>([&](int i) { return get<uint32_t>(a, i) >> 31 != 0; });
}

// An index's low bits choose the lane; for two sources the next bit chooses the second.
inline __m512i _mm512_permutex2var_epi16(__m512i a, __m512i index, __m512i b) {
    return make<uint16_t>([&](int i) {
        const int at = get<uint16_t>(index, i) & 63;
        return get<uint16_t>(at & 32 ? b : a, at & 31);
    });
}
inline __m512i _mm512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) {
    return make<uint32_t>([&](int i) {
        const auto at = static_cast<int>(get<uint32_t>(index, i) & 31);
        return get<uint32_t>(at & 16 ? b : a, at & 15);
    });
}
inline __m512i _mm512_permutexvar_epi8(__m512i index, __m512i a) {
    return make<uint8_t>([&](int i) { return get<uint8_t>(a, get<uint8_t>(index, i) & 63); });
}

inline __m512i _mm512_maskz_expand_epi16(__mmask32 k, __m512i a) {
    int next = 0;
    return make<uint16_t>([&](int i) { return in(k, i) ? get<uint16_t>(a, next++) : 0; });
}
inline __m512i _mm512_maskz_compress_epi16(__mmask32 k, __m512i a) {
    uint16_t packed[32] = {};
    int count = 0;
    for (int i = 0; i < 32; ++i) {
        if (in(k, i)) packed[count++] = get<uint16_t>(a, i);
    }
    return load<__m512i>(packed);
}
inline void _mm512_mask_storeu_epi16(void* p, __mmask32 k, __m512i a) {
    for (int i = 0; i < 32; ++i) {
        if (in(k, i)) std::memcpy(static_cast<uint8_t*>(p) + 2 * i, a.bytes + 2 * i, 2);
    }
}
inline __m512i _mm512_i32gather_epi32(__m512i index, const void* base, int scale) {
    return make<uint32_t>([&](int i) {
        uint32_t word;
        std::memcpy(&word, static_cast<const uint8_t*>(base) + int64_t{get<int32_t>(index, i)} * scale, 4);
        return word;
    });
}

inline __m256i _mm512_cvtepi16_epi8(__m512i a) {
    return make<uint8_t, __m256i>([&](int i) { return get<uint16_t>(a, i) & 0xFF; });
}
inline __m512i _mm512_cvtepu8_epi16(__m256i a) {
    return make<uint16_t>([&](int i) { return get<uint8_t>(a, i); });
}
inline __m512i _mm512_cvtepu8_epi32(__m128i a) {
    return make<uint32_t>([&](int i) { return get<uint8_t>(a, i); });
}

// Rounding to nearest even is the default of both this machine and the emulated one; what is out of range gives ~0.
inline __m512 _mm512_cvtepu32_ps(__m512i a) {
    __m512 r;
    for (int i = 0; i < 16; ++i) r.lane[i] = static_cast<float>(get<uint32_t>(a, i));
    return r;
}
inline __m512 _mm512_div_ps(__m512 a, __m512 b) {
    __m512 r;
    for (int i = 0; i < 16; ++i) r.lane[i] = a.lane[i] / b.lane[i];
    return r;
}
inline __m512i _mm512_cvttps_epu32(__m512 a) {
    return make<uint32_t>([&](int i) {
        const float real = std::trunc(a.lane[i]);
        return real >= 0.0f && real < 4294967296.0f ? static_cast<uint32_t>(real) : ~uint32_t{0};
    });
}

inline int _mm_popcnt_u32(unsigned a) {
    int count = 0;
    for (; a != 0; a &= a - 1) ++count;
    return count;
}
inline unsigned _bzhi_u32(unsigned a, unsigned n) { return (n & 0xFF) > 31 ? a : a & ((1u << (n & 0xFF)) - 1); }
// NOLINTEND
