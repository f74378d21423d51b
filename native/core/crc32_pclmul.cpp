// CRC-32 by multiplication without carries, 64 bytes at a time. Compiled with PCLMULQDQ and SSE4.1.
//
// 16 bytes are a polynomial of degree below 128: first * x^64 + second, of 8 bytes each. What they contribute to a
// message when D bits follow is first * x^(D + 64) + second * x^D. Modulo the CRC's polynomial those powers are
// constants of degree below 32, so two products, of degree below 64 + 32, stand for the 16 bytes D bits further on,
// where they are added to the 16 bytes that are there. So 16 bytes after 16 fold into the last, which has the
// remainder of all.
//
// Mirrored, in a word of 64 bits bit i is the power 63 - i. Bits i and j meet in bit i + j of the product, which as one
// of 128 bits is the power 127 - i - j, though 63 - i and 63 - j add up to one less: multiplying mirrored words gives x
// too much. Hence the constants are powers of one less.
#include "crc32.h"

#include <immintrin.h>

namespace fewbits {
namespace crc {
namespace {

// x^n modulo the polynomial.
constexpr uint32_t power_of_x(int n) {
    uint32_t power = 1u << 31;  // x^0
    for (int i = 0; i < n; ++i) power = times_x(power);
    return power;
}

// What to multiply 64 bits by to move them n bits on; the powers 31 ... 0 of a mirrored word are its upper half.
constexpr int64_t moved_by(int n) { return static_cast<int64_t>(static_cast<uint64_t>(power_of_x(n - 1)) << 32); }

constexpr int kRegisters = 4;  // folded side by side: one alone would wait for its own products
constexpr size_t kBytes = sizeof(__m128i);
constexpr size_t kStride = kRegisters * kBytes;
constexpr size_t kAhead = 2048;  // bytes asked for ahead of their time: processors do not look into the next page themselves

__m128i load(const uint8_t* data) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data)); }

// The 16 bytes `folded`, moved on as far as `factors` say, added to the 16 bytes there. The bytes that come first are
// the lower half, so the lower factor is the larger power.
__m128i fold(__m128i folded, __m128i factors, __m128i there) {
    const __m128i first = _mm_clmulepi64_si128(folded, factors, 0x00);
    const __m128i second = _mm_clmulepi64_si128(folded, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(first, second), there);
}

}  // namespace

uint32_t update_pclmul(uint32_t reg, const uint8_t* data, size_t size) {
    if (size < kStride) return update_portable(reg, data, size);
    constexpr int64_t kFar[2] = {moved_by(512), moved_by(512 + 64)};
    constexpr int64_t kNear[2] = {moved_by(128), moved_by(128 + 64)};
    const __m128i far_factors = _mm_set_epi64x(kFar[0], kFar[1]), near_factors = _mm_set_epi64x(kNear[0], kNear[1]);

    __m128i lanes[kRegisters];
    for (size_t i = 0; i < kRegisters; ++i) lanes[i] = load(data + i * kBytes);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(static_cast<int>(reg)));
    data += kStride, size -= kStride;
    for (; size >= kStride; data += kStride, size -= kStride) {
        _mm_prefetch(reinterpret_cast<const char*>(data) + kAhead, _MM_HINT_T0);
        for (size_t i = 0; i < kRegisters; ++i) lanes[i] = fold(lanes[i], far_factors, load(data + i * kBytes));
    }
    __m128i last = lanes[0];
    for (size_t i = 1; i < kRegisters; ++i) last = fold(last, near_factors, lanes[i]);
    for (; size >= kBytes; data += kBytes, size -= kBytes) last = fold(last, near_factors, load(data));

    // 16 bytes are left that have the remainder of all before `data`: a message of their own, with the register in it.
    uint8_t bytes[kBytes];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), last);
    return update_portable(update_portable(0, bytes, kBytes), data, size);
}

}  // namespace crc
}  // namespace fewbits
