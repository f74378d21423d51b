// What levels stand for: their values, and on paths of a trellis which of these are mirrored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "float_bits.h"
#include "trellis_search.h"

namespace fewbits {

constexpr size_t kLevelGroup = 16;  // elements that loops take together: there is room for as many more

// One implementation of the inner loops. All give the same values.
struct LevelLoops {
    // Writes levels with their shifts, and in the lowest bits of bytes their parities. Whole groups are read and written:
    // what lies behind the last element is written over, or never read.
    void (*points)(const int32_t* levels, size_t count, const TrellisShifts& shifts, float* out, uint8_t* parities);
    // Writes points, mirrored where a byte's lowest bit says so, times a step, times scales; `out` may be `from`. Returns
    // all bits that a value has.
    uint32_t (*values)(const float* from, const uint8_t* mirrors, float step, const float* scales, size_t count,
                       float* out);
};

extern const LevelLoops kScalarLevelLoops;
extern const LevelLoops kAvx2LevelLoops;

// Those of the instruction set that is in use.
const LevelLoops& level_loops();

// Rounds values to a type, in words of `width` bytes; false if one is not finite. `joined` has all bits that one has.
bool round_values(const BlockLoops& type, size_t width, uint32_t joined, float* values, size_t count);

// Tells which elements of a block are mirrored, eight at a time, from the parities of their levels: of a matrix's column,
// or of as many elements one after the other.
//
// Only the lowest bits of bytes mean anything. The code is linear: of the elements of one path, with parities p and
// mirrors m, m[t] = p[t - 1] ^ m[t - 2] ^ m[t - 3], and all are 0 before the first.
class Mirrors {
public:
    Mirrors(size_t rows, size_t num_paths) : rows_(rows), num_paths_(num_paths) {
        parities_.resize(kBefore + rows + kLevelGroup);
        mirrors_.resize(kBefore + rows + kLevelGroup);
    }

    uint8_t* parities() { return &parities_[kBefore]; }  // of a block, which `follow` reads

    // Returns the mirrors of a block; the next one goes on from its end.
    const uint8_t* follow();

private:
    static constexpr size_t kBefore = 3 * kMostPaths;

    void carry(uint8_t* bytes, size_t steps) const;

    size_t rows_, num_paths_;
    std::vector<uint8_t> parities_, mirrors_;
};

}  // namespace fewbits
