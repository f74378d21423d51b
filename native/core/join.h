// Symbols and raw bits to elements of 32 bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

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

struct JoinLoops {
    JoinFields fields;
    JoinLevels levels;
};

extern const JoinLoops kScalarJoinLoops;
extern const JoinLoops kAvx2JoinLoops;

// Those of the instruction set that is in use.
const JoinLoops& join_loops();

}  // namespace fewbits
