// The loops over values, which compilers vectorise: included by a file for each instruction set, which has its own way to
// unpack raw bits. Internal to each file: a linker that merged the copies might keep one that a machine cannot run.
#pragma once

#include <algorithm>
#include <cstring>

#include "values.h"

namespace fewbits {
namespace {

inline uint32_t word_at(const void* words, size_t place) {
    uint32_t word;
    std::memcpy(&word, static_cast<const uint8_t*>(words) + 4 * place, 4);
    return word;
}

constexpr uint32_t kMagnitude = 0x7FFFFFFF;

// Has memory brought into cache that is read soon: processors do not look into the next page themselves.
inline void prefetch(const uint8_t* bytes, size_t size) {
#ifdef __GNUC__
    for (size_t i = 0; i < size; i += 64) __builtin_prefetch(bytes + i);
#else
    static_cast<void>(bytes + size);
#endif
}

void survey(const void* words, size_t count, int mantissa, WordSums& sums) {
    constexpr size_t kBlock = 512;  // of exponents below 2^16: their sum fits 32 bits, whose loops vectorise best
    for (size_t begin = 0; begin < count; begin += kBlock) {
        const size_t end = std::min(count, begin + kBlock);
        prefetch(static_cast<const uint8_t*>(words) + 4 * (begin + kBlock), 4 * kBlock);
        uint32_t all = 0, exponents = 0, num_nonzero = 0;
        for (size_t i = begin; i < end; ++i) {
            const uint32_t word = word_at(words, i);
            all |= word;
            exponents += (word & kMagnitude) >> mantissa;
            num_nonzero += word != 0 ? 1 : 0;
        }
        sums.all |= all;
        sums.exponents += exponents;
        sums.num_nonzero += num_nonzero;
    }
}

void integers(const void* words, size_t count, int drop, bool with_sign, uint32_t* integers) {
    if (with_sign) {
        for (size_t i = 0; i < count; ++i) {
            const uint32_t word = word_at(words, i);
            integers[i] = (word & kMagnitude) >> drop << 1 | word >> 31;
        }
    } else {
        for (size_t i = 0; i < count; ++i) integers[i] = (word_at(words, i) & kMagnitude) >> drop;
    }
}

void ends(const void* values, size_t count, uint32_t flip, int32_t ends[2]) {
    const auto value_at = [values, flip](size_t i) { return static_cast<int32_t>(word_at(values, i) ^ flip); };
    int32_t low = value_at(0), high = low;
    for (size_t i = 1; i < count; ++i) {
        low = std::min(low, value_at(i));
        high = std::max(high, value_at(i));
    }
    ends[0] = low;
    ends[1] = high;
}

constexpr size_t kJoinBlock = 512;  // numbers unpacked at a time; a multiple of 8

// Numbers of run.shift bits to 32-bit ones.
void unpack_portably(const uint8_t* bytes, int width, size_t count, uint32_t* numbers) {
    const uint64_t mask = (uint64_t{1} << width) - 1;
    uint64_t position = 0;
    for (size_t i = 0; i < count; ++i, position += static_cast<uint64_t>(width)) {
        uint64_t word;
        std::memcpy(&word, bytes + (position >> 3), 8);
        numbers[i] = static_cast<uint32_t>(word >> (position & 7) & mask);
    }
}

template <auto kUnpack, typename Join>
void join_blocks(const RawRun& run, const uint8_t* symbols, size_t count, uint8_t* out, Join join) {
    const uint8_t* raw = run.raw;
    uint32_t values[kJoinBlock];
    for (size_t begin = 0; begin < count; begin += kJoinBlock) {
        const size_t size = count - begin < kJoinBlock ? count - begin : kJoinBlock;
        kUnpack(raw, run.shift, size, values);
        raw += kJoinBlock / 8 * static_cast<size_t>(run.shift);  // eight numbers take `shift` whole bytes
        for (size_t i = 0; i < size; ++i) {
            values[i] = join(run.base + (static_cast<uint32_t>(symbols[begin + i]) << run.shift) + values[i]);
        }
        std::memcpy(out + 4 * begin, values, 4 * size);
    }
}

using Unpack = void (*)(const uint8_t* bytes, int width, size_t count, uint32_t* numbers);

template <Unpack kUnpack>
void join_fields(const RawRun& run, int drop, bool is_signed, const uint8_t* symbols, size_t count, uint8_t* out) {
    if (is_signed) {
        join_blocks<kUnpack>(run, symbols, count, out, [drop](uint32_t v) { return v >> 1 << drop | v << 31; });
    } else {
        join_blocks<kUnpack>(run, symbols, count, out, [drop](uint32_t v) { return v << drop; });
    }
}

inline uint32_t all_ones_if(bool condition) { return 0u - static_cast<uint32_t>(condition); }

// NUMERICS: the operations of ElementRule::float_word, in its order.
template <Unpack kUnpack>
void join_levels(const RawRun& run, float step, const float* shifts, const uint8_t* symbols, size_t count, uint8_t* out) {
    uint32_t one, two, more;
    std::memcpy(&one, shifts + 1, 4);
    std::memcpy(&two, shifts + 2, 4);
    std::memcpy(&more, shifts + 3, 4);
    join_blocks<kUnpack>(run, symbols, count, out, [=](uint32_t level) {
        // Rounding is the same on both sides of 0, so the sign may wait till the end; selection is by masks.
        const uint32_t sign = level & 0x80000000u;
        const uint32_t below_zero = 0u - (level >> 31);  // all ones, or none
        const uint32_t size = (level ^ below_zero) - below_zero;
        const uint32_t chosen = (all_ones_if(size == 1) & one) | (all_ones_if(size == 2) & two) |
                                (all_ones_if(size >= 3) & more);
        float shift;
        std::memcpy(&shift, &chosen, 4);
        const float product = (static_cast<float>(static_cast<int32_t>(size)) + shift) * step;
        uint32_t word;
        std::memcpy(&word, &product, 4);
        return word | sign;
    });
}

}  // namespace
}  // namespace fewbits
