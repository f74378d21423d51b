// The code of eight states that trellises follow, and the Viterbi algorithm over it (docs/payload/ecsq.md).
//
// The NumPy code of fewbits.quantize.trellis is the specification. A level's lowest bit says how a state of three bits
// goes on, and the state's highest bit which of two mirrored quantisers is next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "float_bits.h"
#include "weights.h"

namespace fewbits {

constexpr size_t kMostPaths = 32;  // WIRE: element i belongs to path i mod the number of paths, a power of two

// What levels cost: the first price is that of level -kMostPriced, and what is farther off costs as much as the last.
constexpr int kMostPriced = 127;
constexpr size_t kPrices = 2 * kMostPriced + 1;

// How far beyond its level a value lies, in steps: of the levels -2 (and less), -1, 0, 1, 2 (and more). Mirrored values
// are the same with the other sign.
using TrellisShifts = std::array<float, 5>;

using TrellisStates = std::array<uint32_t, kMostPaths>;  // 0 ... 7, by path

// The state of a path after a level. WIRE: a convolutional code of Ungerboeck's (1982) with eight states.
inline uint32_t next_state(uint32_t state, uint32_t parity) {
    return (state & 3) << 1 ^ 3 * (state >> 2) ^ parity << 2;
}

// Whether the next value of a path is mirrored.
inline uint32_t is_mirrored(uint32_t state) { return state >> 2; }

inline float mirrored(float value, uint32_t mirror) { return float_of(bits_of(value) ^ mirror << 31); }

// Finds the levels of least squared distance plus price, of elements that come in blocks.
class TrellisSearch {
public:
    // `prices` has kPrices for each table of prices. Reserves for `count` elements.
    TrellisSearch(size_t count, size_t num_paths, const TrellisShifts* shifts, const float* prices, size_t num_tables);

    // Starts a search in these states.
    void start(const TrellisStates& states);

    // Takes a block of quotients, from element `start` on, with the tables of their prices: at most kWeightBlock, and but
    // for the last block whole steps of all paths.
    void forward(const float* quotients, const uint32_t* tables, size_t start, size_t count);

    // Ends all paths where they cost least as yet, and returns these states. More blocks may come afterwards.
    TrellisStates turn();

    // Takes the blocks again, the last one first, and writes their levels, and which of their values are mirrored.
    void backward(const float* quotients, size_t start, size_t count, int32_t* levels, uint32_t* mirrors = nullptr);

private:
    void price(const float* quotients, const uint32_t* tables, size_t count);
    void step(size_t i, size_t lanes, uint16_t* notes);

    size_t num_paths_;
    std::vector<float> shifts_;  // by table and level, as prices
    const float* prices_;
    // Of each element: in bits 0 ... 7, whether the best way to each state comes from the late one of the two before
    // it; in bits 8 ... 11, whether each branch's best level is the inner one.
    std::vector<uint16_t> notes_;
    // A branch is one of the four sets of values that a path can choose from: 2 * mirror + parity of the level.
    std::array<std::array<float, kWeightBlock + kMostPaths>, 4> branch_;
    std::array<uint32_t, kWeightBlock + kMostPaths> inner_;
    std::array<std::array<float, kMostPaths>, 8> cost_;  // of the best way to each state
    TrellisStates state_{};                              // on the way back
};

}  // namespace fewbits
