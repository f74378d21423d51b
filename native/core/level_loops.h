// The loops over levels: included by a file for each instruction set, as copies internal to each.
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "levels.h"

namespace fewbits {

namespace {

#ifdef __AVX2__

// Adds the shifts of levels to them, a group at a time.
class Shifter {
public:
    explicit Shifter(const TrellisShifts& s) : shifts_(_mm256_setr_ps(s[2], s[3], s[4], 0, 0, 0, s[0], s[1])) {}

    void points(const int32_t* group, float* out) const {
        for (size_t i = 0; i < kLevelGroup; i += 8) {
            const __m256i levels = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(group + i));
            // A lookup goes by the lowest three bits: of -2 and -1 they are 6 and 7.
            const __m256i above = _mm256_max_epi32(levels, _mm256_set1_epi32(-2));
            const __m256i places = _mm256_min_epi32(above, _mm256_set1_epi32(2));
            const __m256 shifts = _mm256_permutevar8x32_ps(shifts_, places);
            _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_cvtepi32_ps(levels), shifts));
        }
    }

private:
    __m256 shifts_;
};

#else

// Adds the shifts of levels to them, a group at a time.
class Shifter {
public:
    explicit Shifter(const TrellisShifts& shifts) : last_(shifts[4]) {
        for (size_t k = 0; k < 4; ++k) differ_ |= words_[k] = bits_of(shifts[k]) ^ bits_of(shifts[k + 1]);
        words_[4] = bits_of(last_);
    }

    void points(const int32_t* group, float* out) const {
        if (differ_ == 0) {
            for (size_t i = 0; i < kLevelGroup; ++i) out[i] = static_cast<float>(group[i]) + last_;
            return;
        }
        for (size_t i = 0; i < kLevelGroup; ++i) {
            const int32_t level = group[i];
            const uint32_t shift = words_[4] ^ select(level < 2, words_[3], 0) ^ select(level < 1, words_[2], 0) ^
                                   select(level < 0, words_[1], 0) ^ select(level < -1, words_[0], 0);
            out[i] = static_cast<float>(level) + float_of(shift);
        }
    }

private:
    uint32_t words_[5];  // that of the last shift, and what turns each one's into that before it
    uint32_t differ_ = 0;
    float last_;
};

#endif

void points(const int32_t* levels, size_t count, const TrellisShifts& shifts, float* out, uint8_t* parities) {
    const Shifter shifter(shifts);
    for (size_t start = 0; start < count; start += kLevelGroup) {
        const int32_t* group = levels + start;
        for (size_t i = 0; i < kLevelGroup; ++i) parities[start + i] = static_cast<uint8_t>(group[i]);
        shifter.points(group, out + start);
    }
}

uint32_t values(const float* from, const uint8_t* mirrors, float step, const float* scales, size_t count, float* out) {
    uint32_t joined = 0;
    for (size_t i = 0; i < count; ++i) {
        const float value = mirrored(from[i], mirrors[i]) * step * scales[i];  // WIRE: one rounding an operation
        joined |= bits_of(value);
        out[i] = value;
    }
    return joined;
}

}  // namespace

}  // namespace fewbits
