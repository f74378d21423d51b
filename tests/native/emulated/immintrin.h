// The intrinsics that native/core/wide_avx512.cpp uses, each as a loop over numbers.
//
// Compiled against this header instead of the compiler's, that file runs on every machine and under every sanitizer:
// it is how its logic is tested where no processor has the instructions. Every function follows the "Operation" of
// Intel's intrinsics guide; loads and stores touch exactly the bytes that the instruction touches. What an emulation
// cannot show is a compiler that translates an intrinsic wrongly.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
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
using __mmask64 = uint64_t;

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

inline bool in(uint64_t mask, int i) { return (mask >> i & 1) != 0; }

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
inline __m512i _mm512_set1_epi8(char a) {
    return make<uint8_t>([&](int) { return static_cast<uint8_t>(a); });
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
// Sums of eight distances of bytes.
inline __m512i _mm512_sad_epu8(__m512i a, __m512i b) {
    return make<uint64_t>([&](int i) {
        int sum = 0;
        for (int k = 8 * i; k < 8 * i + 8; ++k) sum += std::abs(get<uint8_t>(a, k) - get<uint8_t>(b, k));
        return sum;
    });
}
inline __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(a, i) * get<uint32_t>(b, i); });
}
inline __m512i _mm512_add_epi8(__m512i a, __m512i b) {
    return make<uint8_t>([&](int i) { return get<uint8_t>(a, i) + get<uint8_t>(b, i); });
}
inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
    return make<uint16_t>([&](int i) { return get<uint16_t>(a, i) + get<uint16_t>(b, i); });
}
// The low and the high 16 bits of products.
inline __m512i _mm512_mullo_epi16(__m512i a, __m512i b) {
    return make<uint16_t>([&](int i) { return uint32_t{get<uint16_t>(a, i)} * get<uint16_t>(b, i); });
}
inline __m512i _mm512_mulhi_epu16(__m512i a, __m512i b) {
    return make<uint16_t>([&](int i) { return uint32_t{get<uint16_t>(a, i)} * get<uint16_t>(b, i) >> 16; });
}
// Bit 4 a + 2 b + c of the table, for each bit.
inline __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {
    return make<uint8_t>([&](int i) {
        int result = 0;
        for (int bit = 0; bit < 8; ++bit) {
            const auto at = [&](const __m512i& r) { return get<uint8_t>(r, i) >> bit & 1; };
            result |= (table >> (4 * at(a) + 2 * at(b) + at(c)) & 1) << bit;
        }
        return result;
    });
}
inline __m512i _mm512_slli_epi16(__m512i a, unsigned n) {
    return make<uint16_t>([&](int i) { return n > 15 ? 0 : get<uint16_t>(a, i) << n; });
}
// The high word of a, then b, moved left; n modulo 16.
inline __m512i _mm512_shldi_epi16(__m512i a, __m512i b, int n) {
    return make<uint16_t>([&](int i) {
        const uint32_t both = uint32_t{get<uint16_t>(a, i)} << 16 | get<uint16_t>(b, i);
        return both << (n & 15) >> 16;
    });
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

// With a mask: the operation where its bit is set, else `source`, or 0 in the forms called maskz.
inline __m512i _mm512_mask_mov_epi16(__m512i source, __mmask32 k, __m512i a) {
    return make<uint16_t>([&](int i) { return get<uint16_t>(in(k, i) ? a : source, i); });
}
inline __m512i _mm512_mask_mov_epi32(__m512i source, __mmask16 k, __m512i a) {
    return make<uint32_t>([&](int i) { return get<uint32_t>(in(k, i) ? a : source, i); });
}
inline __m512i _mm512_mask_sub_epi16(__m512i source, __mmask32 k, __m512i a, __m512i b) {
    return make<uint16_t>([&](int i) {
        return in(k, i) ? get<uint16_t>(a, i) - get<uint16_t>(b, i) : get<uint16_t>(source, i);
    });
}
inline __m512i _mm512_mask_blend_epi16(__mmask32 k, __m512i a, __m512i b) { return _mm512_mask_mov_epi16(a, k, b); }
inline __m512i _mm512_mask_sub_epi32(__m512i source, __mmask16 k, __m512i a, __m512i b) {
    return _mm512_mask_mov_epi32(source, k, _mm512_sub_epi32(a, b));
}

inline __mmask64 _mm512_cmpeq_epi8_mask(__m512i a, __m512i b) {
    return mask<uint8_t, __mmask64>([&](int i) { return get<uint8_t>(a, i) == get<uint8_t>(b, i); });
}
inline __mmask64 _mm512_cmpge_epu8_mask(__m512i a, __m512i b) {
    return mask<uint8_t, __mmask64>([&](int i) { return get<uint8_t>(a, i) >= get<uint8_t>(b, i); });
}
inline __mmask32 _mm512_cmplt_epu16_mask(__m512i a, __m512i b) {
    return mask<uint16_t, __mmask32>([&](int i) { return get<uint16_t>(a, i) < get<uint16_t>(b, i); });
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

inline __m512i _mm512_mask_permutexvar_epi8(__m512i source, __mmask64 k, __m512i index, __m512i a) {
    const __m512i found = _mm512_permutexvar_epi8(index, a);
    return make<uint8_t>([&](int i) { return get<uint8_t>(in(k, i) ? found : source, i); });
}

inline __m512i _mm512_mask_expand_epi16(__m512i source, __mmask32 k, __m512i a) {
    int next = 0;
    return make<uint16_t>([&](int i) { return in(k, i) ? get<uint16_t>(a, next++) : get<uint16_t>(source, i); });
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

inline __m256i _mm512_extracti64x4_epi64(__m512i a, int half) {
    return make<uint8_t, __m256i>([&](int i) { return get<uint8_t>(a, 32 * half + i); });
}
inline __m256i _mm512_castsi512_si256(__m512i a) { return _mm512_extracti64x4_epi64(a, 0); }
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
inline __m512 _mm512_set1_ps(float a) {
    __m512 r;
    for (float& lane : r.lane) lane = a;
    return r;
}
// A reciprocal may be wrong by 2^-14 of it: here it is by nearly as much, up and down in turns.
inline __m512 _mm512_rcp14_ps(__m512 a) {
    __m512 r;
    for (int i = 0; i < 16; ++i) r.lane[i] = (1.0f + (i % 2 == 0 ? 1.0f : -1.0f) / 16400.0f) / a.lane[i];
    return r;
}
inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    __m512 r;
    for (int i = 0; i < 16; ++i) r.lane[i] = std::fma(a.lane[i], b.lane[i], c.lane[i]);
    return r;
}
inline __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {
    __m512 r;
    for (int i = 0; i < 16; ++i) r.lane[i] = std::fma(-a.lane[i], b.lane[i], c.lane[i]);
    return r;
}
inline __m512i _mm512_cvttps_epu32(__m512 a) {
    return make<uint32_t>([&](int i) {
        const float real = std::trunc(a.lane[i]);
        return real >= 0.0f && real < 4294967296.0f ? static_cast<uint32_t>(real) : ~uint32_t{0};
    });
}

constexpr int _MM_HINT_T0 = 3;
// Not a function: clang knows one of this name, and lets nobody else define it.
#define _mm_prefetch(address, hint) (static_cast<void>(address), static_cast<void>(hint))

inline int _mm_popcnt_u32(unsigned a) {
    int count = 0;
    for (; a != 0; a &= a - 1) ++count;
    return count;
}
inline unsigned _bzhi_u32(unsigned a, unsigned n) { return (n & 0xFF) > 31 ? a : a & ((1u << (n & 0xFF)) - 1); }
// NOLINTEND
