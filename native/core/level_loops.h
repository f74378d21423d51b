// The loops over levels: included by a file for each instruction set, as copies internal to each.
#pragma once

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include <algorithm>

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

uint32_t scale_points(const int16_t* points, size_t count, float step, float* out) {
    uint32_t joined = 0;
    for (size_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(points[i]) * step;  // WIRE: one rounding
        joined |= bits_of(out[i]);
    }
    return joined;
}

// Writes rows a square at a time, made column by column.
template <typename Point>
uint32_t write_plain_rows(const Point* points, size_t pitch, size_t count, const float* steps, const float* scales,
                          float* const* rows) {
    uint32_t joined = 0;
    float square[kRowBlock][kRowBlock];
    for (size_t start = 0; start < count; start += kRowBlock) {
        const size_t length = std::min(kRowBlock, count - start);
        for (size_t i = 0; i < length; ++i) {
            const Point* column = points + (start + i) * pitch;
            for (size_t k = 0; k < kRowBlock; ++k) {
                const float value = static_cast<float>(column[k]) * steps[start + i] * scales[k];  // WIRE: one rounding each
                joined |= bits_of(value);
                square[i][k] = value;
            }
        }
        for (size_t k = 0; k < kRowBlock; ++k) {
            for (size_t i = 0; i < length; ++i) rows[k][start + i] = square[i][k];
        }
    }
    return joined;
}

uint32_t write_float_rows(const float* points, size_t pitch, size_t count, const float* steps, const float* scales,
                          float* const* rows) {
    return write_plain_rows(points, pitch, count, steps, scales, rows);
}

#ifdef __AVX2__

void small_points(const int8_t* levels, const uint8_t* mirrors, const PointRun* runs, size_t num_runs, int16_t* out) {
    const __m128i ones = _mm_set1_epi8(1);
    for (const PointRun* run = runs; run != runs + num_runs; ++run) {
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run->table->low));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run->table->high));
        for (size_t i = 0; i < run->size; i += kLevelGroup) {
            const __m128i level = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels + i));
            // A lookup goes by the lowest four bits: 123 ... 127 are 11 ... 15.
            const __m128i place = _mm_max_epi8(_mm_adds_epi8(level, _mm_set1_epi8(125)), _mm_set1_epi8(123));
            const __m128i bytes[] = {_mm_shuffle_epi8(low, place), _mm_add_epi8(level, _mm_shuffle_epi8(high, place))};
            const __m128i odd = _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mirrors + i)), ones);
            const __m128i mask = _mm_sub_epi8(_mm_setzero_si128(), odd);
            const auto write = [&](size_t at, __m128i point, __m128i all) {
                point = _mm_sub_epi16(_mm_xor_si128(point, all), all);
                _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), point);
            };
            write(i, _mm_unpacklo_epi8(bytes[0], bytes[1]), _mm_unpacklo_epi8(mask, mask));
            write(i + 8, _mm_unpackhi_epi8(bytes[0], bytes[1]), _mm_unpackhi_epi8(mask, mask));
        }
        levels += run->size;
        mirrors += run->size;
        out += run->size;
    }
}

uint32_t write_rows(const int16_t* points, size_t pitch, size_t count, const float* steps, const float* scales,
                    float* const* rows) {
    __m256 joined = _mm256_setzero_ps();
    for (size_t i = 0; i < count; i += 8) {
        const size_t at = i + 8 <= count ? i : count - 8;  // the last ones may be written twice
        // Columns of 16 rows become rows of 8 columns: rows k and k + 8 in the halves of one register.
        __m256i turned[8], pairs[8];
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; ++k) {
            turned[k] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(points + (at + k) * pitch));
        }
#pragma GCC unroll 3
        for (int round = 0; round < 3; ++round) {
#pragma GCC unroll 4
            for (size_t k = 0; k < 4; ++k) {
                pairs[2 * k] = _mm256_unpacklo_epi16(turned[k], turned[k + 4]);
                pairs[2 * k + 1] = _mm256_unpackhi_epi16(turned[k], turned[k + 4]);
            }
#pragma GCC unroll 8
            for (size_t k = 0; k < 8; ++k) turned[k] = pairs[k];
        }
        const __m256 step = _mm256_loadu_ps(steps + at);
        const auto write = [&](size_t row, __m128i words) {
            const __m256 point = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words));
            // WIRE: one rounding an operation
            const __m256 value = _mm256_mul_ps(_mm256_mul_ps(point, step), _mm256_broadcast_ss(scales + row));
            joined = _mm256_or_ps(joined, value);
            _mm256_storeu_ps(rows[row] + at, value);
        };
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; ++k) {
            write(k, _mm256_castsi256_si128(turned[k]));
            write(k + 8, _mm256_extracti128_si256(turned[k], 1));
        }
    }
    uint32_t words[8], all = 0;
    _mm256_storeu_ps(reinterpret_cast<float*>(words), joined);
    for (const uint32_t word : words) all |= word;
    return all;
}

#else

void small_points(const int8_t* levels, const uint8_t* mirrors, const PointRun* runs, size_t num_runs, int16_t* out) {
    for (const PointRun* run = runs; run != runs + num_runs; ++run) {
        const int16_t* added = run->table->added;
        for (size_t i = 0; i < run->size; ++i) {
            const int level = levels[i], mirror = -(mirrors[i] & 1);
            const int kind = level < -2 ? -2 : level > 2 ? 2 : level;
            out[i] = static_cast<int16_t>(((256 * level + added[kind + 2]) ^ mirror) - mirror);
        }
        levels += run->size;
        mirrors += run->size;
        out += run->size;
    }
}

uint32_t write_rows(const int16_t* points, size_t pitch, size_t count, const float* steps, const float* scales,
                    float* const* rows) {
    return write_plain_rows(points, pitch, count, steps, scales, rows);
}

#endif

}  // namespace

}  // namespace fewbits
