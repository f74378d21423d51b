// From words and values of 32 bits to symbols, and from symbols and raw bits to elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

// What words of floats have in common: the OR of all, the sum of their exponents, and how many are not 0.
struct WordSums {
    uint32_t all = 0;
    uint64_t exponents = 0, num_nonzero = 0;
};

// Adds 32-bit words, at any address, to sums.
using SurveyWords = void (*)(const void* words, size_t count, int mantissa, WordSums& sums);

// Writes the integers of 32-bit words, at any address, that lose the low `drop` bits of their magnitudes (fields.h).
using MakeIntegers = void (*)(const void* words, size_t count, int drop, bool with_sign, uint32_t* integers);

// Finds the least and the greatest of 32-bit values, one or more, compared as signed numbers after an XOR with `flip`.
using FindEnds = void (*)(const void* values, size_t count, uint32_t flip, int32_t ends[2]);

// Writes the symbol of each of 32-bit values: its distance from `base` modulo 2^32, less the low `shift` (0 ... 31) bits,
// or `num_values` if that is less.
using PlaceValues = void (*)(
    const void* values, size_t count, uint32_t base, int shift, uint32_t num_values, uint8_t* symbols);

// Writes the low `width` bits, kLeastPacked ... kMostPacked, of the distances of 32-bit values from `base`, a multiple of 8
// of them: whole bytes, and then eight of anything.
using PackValues = void (*)(const void* values, size_t count, uint32_t base, int width, uint8_t* out);
constexpr int kLeastPacked = 4, kMostPacked = 28;

// Values of one class with raw bits, modulo 2^32: base + symbol * 2^shift + the next `shift` bits.
struct RawRun {
    uint32_t base;
    int shift;           // 1 ... kMostJoined
    const uint8_t* raw;  // the first value's bits; 16 bytes after the last value's may be read
};

constexpr int kMostJoined = 25;  // bits: four bytes hold as many at any place in a byte

// Writes float32 from sign and magnitude (docs/payload/lossless.md, transforms 2 and 3), 4 bytes each.
using JoinFields =
    void (*)(const RawRun& run, int drop, bool is_signed, const uint8_t* symbols, size_t count, uint8_t* out);

// Writes float32 values of levels (docs/payload/ecsq.md), 4 bytes each; shifts[k] is the centroid of magnitude k, 3 for
// more. Levels are in -2^31 + 1 ... 2^31 - 1.
using JoinLevels = void (*)(
    const RawRun& run, float step, const float* shifts, const uint8_t* symbols, size_t count, uint8_t* out);

// One implementation of the inner loops. All give the same bytes.
struct ValueLoops {
    SurveyWords survey;
    MakeIntegers integers;
    FindEnds ends;
    PlaceValues place;
    PackValues pack;  // or null, if a BitWriter does as well
    JoinFields join_fields;
    JoinLevels join_levels;
};

extern const ValueLoops kScalarValueLoops;
extern const ValueLoops kAvx2ValueLoops;

// Those of the instruction set that is in use.
const ValueLoops& value_loops();

}  // namespace fewbits
