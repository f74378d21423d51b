// What levels stand for: their values, and on paths of a trellis which of these are mirrored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "float_bits.h"
#include "trellis_search.h"

namespace fewbits {

constexpr size_t kLevelGroup = 16;  // elements that loops take together: there is room for as many more

constexpr size_t kRowBlock = 16;     // rows that are written together
constexpr size_t kLeastColumns = 8;  // there must be steps and points of as many

// What levels of a model, -127 ... 127, become in 256ths of a step: 256 times themselves, and what is added.
struct PointTable {
    explicit PointTable(const TrellisShifts& shifts);

    // Of the levels -2 (and less) ... 2 (and more), as in TrellisShifts; the same as two tables of bytes, in places 11 ... 15.
    int16_t added[5];
    uint8_t low[16] = {}, high[16] = {};
    bool is_exact = true;  // false if a shift is none of -1/2 ... 255/256, in whole 256ths
};

// Rows of a column whose levels are of one model.
struct PointRun {
    size_t size;
    const PointTable* table;
};

// One implementation of the inner loops. All give the same values.
struct LevelLoops {
    // Writes levels with their shifts, and in the lowest bits of bytes their parities. Whole groups are read and written:
    // what lies behind the last element is written over, or never read.
    void (*points)(const int32_t* levels, size_t count, const TrellisShifts& shifts, float* out, uint8_t* parities);
    // Writes points, mirrored where a byte's lowest bit says so, times a step, times scales; `out` may be `from`. Returns
    // all bits that a value has.
    uint32_t (*values)(const float* from, const uint8_t* mirrors, float step, const float* scales, size_t count,
                       float* out);
    // Writes the points of levels in 256ths of a step, mirrored where a byte's lowest bit says so. Whole groups, as above.
    void (*small_points)(const int8_t* levels, const uint8_t* mirrors, const PointRun* runs, size_t num_runs,
                         int16_t* out);
    // Writes points in 256ths of a step times those. Returns all bits that a value has.
    uint32_t (*scale_points)(const int16_t* points, size_t count, float step, float* out);
    // Writes kRowBlock rows of `count` values each, at least kLeastColumns: points, which lie column after column, `pitch`
    // from one to the next, times 256ths of steps, times scales of rows. Returns all bits that a value has.
    uint32_t (*write_rows)(const int16_t* points, size_t pitch, size_t count, const float* steps, const float* scales,
                           float* const* rows);
    // The same of points that are in steps, times steps, of as few columns as there are.
    uint32_t (*write_float_rows)(const float* points, size_t pitch, size_t count, const float* steps,
                                 const float* scales, float* const* rows);
};

extern const LevelLoops kScalarLevelLoops;
extern const LevelLoops kAvx2LevelLoops;

// Those of the instruction set that is in use.
const LevelLoops& level_loops();

// Whether all values are finite for sure, by all bits that one of them has.
inline bool are_finite(uint32_t joined) { return (joined & 0x7F800000) != 0x7F800000; }

// Rounds values to a type, in words of `width` bytes; false if one is not finite. `joined` has all bits that one has.
bool round_values(const BlockLoops& type, size_t width, uint32_t joined, float* values, size_t count);

// Tells which elements of a block are mirrored, eight at a time, from the parities of their levels: of a matrix's column,
// or of as many elements one after the other.
//
// Only the lowest bits of bytes mean anything. The code is linear: of the elements of one path, with parities p and
// mirrors m, m[t] = p[t - 1] ^ m[t - 2] ^ m[t - 3], and all are 0 before the first.
class Mirrors {
public:
    // Of blocks of at most so many elements.
    Mirrors(size_t most, size_t num_paths) : num_paths_(num_paths) {
        parities_.resize(kBefore + most + 2 * kLevelGroup);
        mirrors_.resize(kBefore + most + 2 * kLevelGroup);
    }

    uint8_t* parities() { return &parities_[kBefore]; }  // of a block, which `follow` reads

    // Returns the mirrors of a block; the next one goes on from its end.
    const uint8_t* follow(size_t count);

private:
    static constexpr size_t kBefore = 3 * kMostPaths;

    void carry(uint8_t* bytes, size_t count, size_t steps) const;

    size_t num_paths_;
    std::vector<uint8_t> parities_, mirrors_;
};

}  // namespace fewbits
