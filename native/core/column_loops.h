// The loops over the levels of columns: included by a file for each instruction set, as copies internal to each.
#pragma once

#include "columns.h"
#include "float_bits.h"

namespace fewbits {

namespace {

void points(const int32_t* levels, size_t count, const TrellisShifts& shifts, float* out, uint8_t* parities) {
    // The word of the last shift, and what turns each one's into that before it.
    uint32_t words[5];
    uint32_t differ = 0;
    for (size_t k = 0; k < 4; ++k) differ |= words[k] = bits_of(shifts[k]) ^ bits_of(shifts[k + 1]);
    words[4] = bits_of(shifts[4]);
    const float last = shifts[4];
    for (size_t start = 0; start < count; start += kColumnGroup) {
        const int32_t* group = levels + start;
        for (size_t i = 0; i < kColumnGroup; ++i) parities[start + i] = static_cast<uint8_t>(group[i]);
        if (differ == 0) {
            for (size_t i = 0; i < kColumnGroup; ++i) out[start + i] = static_cast<float>(group[i]) + last;
            continue;
        }
        for (size_t i = 0; i < kColumnGroup; ++i) {
            const int32_t level = group[i];
            const uint32_t shift = words[4] ^ select(level < 2, words[3], 0) ^ select(level < 1, words[2], 0) ^
                                   select(level < 0, words[1], 0) ^ select(level < -1, words[0], 0);
            out[start + i] = static_cast<float>(level) + float_of(shift);
        }
    }
}

void values(const float* from, const uint8_t* mirrors, float step, const float* scales, size_t count, float* out) {
    // WIRE: float32, one rounding an operation.
    for (size_t i = 0; i < count; ++i) out[i] = mirrored(from[i], mirrors[i]) * step * scales[i];
}

}  // namespace

}  // namespace fewbits
