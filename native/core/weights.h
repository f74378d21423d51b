// Weights as they lie in memory, and the loops that know what their words mean.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "float_type.h"

namespace fewbits {

// A run of weights, aligned or not: little-endian words of the type's width.
struct Weights {
    const unsigned char* bits;
    FloatType type;
    size_t count;
};

size_t width_of(FloatType type);  // bytes

// Blocks are what an inner loop works on: small enough for the first cache, so that loops which vectorise can hand over
// to those which cannot (sums, look-ups).
constexpr size_t kWeightBlock = 512;

// Calls function(start, length) for consecutive blocks.
template <class Function>
void for_blocks(size_t count, const Function& function) {
    for (size_t start = 0; start < count; start += kWeightBlock) function(start, std::min(kWeightBlock, count - start));
}

// One type's loops. They are called a block at a time, so that all else is compiled once.
struct BlockLoops {
    uint64_t infinity;  // the word of infinity; words without sign compare as their values do
    double (*value)(uint64_t word);
    void (*values)(const unsigned char* bits, size_t start, size_t length, double* out);  // w[start + i]
    // The bins of a histogram of magnitudes (`measure`); returns the greatest word without sign.
    uint64_t (*bins)(const unsigned char* bits, size_t start, size_t length, uint32_t* out);
    void (*round)(float* values, size_t length);  // to the type, to nearest even, in place
    // Writes the words of values that are of the type: `round` made them.
    void (*store)(const float* values, size_t length, unsigned char* out);
};

const BlockLoops& loops_of(FloatType type);

}  // namespace fewbits
