// Trellis-coded quantisation: levels by the Viterbi algorithm, and what levels stand for (docs/payload/ecsq.md).
//
// The NumPy code of fewbits.quantize.trellis is the specification. Two quantisers of one step, each the other's mirror
// image, take turns: a level's lowest bit says how a state of three bits goes on, and the state's highest bit which of
// the two is next. So a weight chooses between twice as many values as levels tell apart, and binds its successors.
//
// Element i belongs to path i mod 32; paths know nothing of each other, and start in state 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "output.h"
#include "quantize.h"
#include "trellis_search.h"

namespace fewbits {

constexpr size_t kPaths = kMostPaths;  // WIRE

// What levels cost in squared steps, by class of rows.
struct TrellisPrices {
    const float* prices;     // kPrices for each class
    size_t num_classes;
    const int64_t* classes;  // of rows; null with one class
    size_t row_length;
};

// Finds the levels of least squared distance plus price; false if a weight is 2^20 steps or more from 0.
bool trellis_levels(const Weights& weights, double step, const TrellisShifts& shifts, const TrellisPrices& prices,
                    int32_t* levels);

// How far weights lie beyond their levels, in steps, outwards from 0, by kind: levels 0, -1, 1, and all others.
struct TrellisSums {
    std::array<double, 4> total{};
    std::array<int64_t, 4> count{};
};

TrellisSums trellis_sums(const Weights& weights, double step, const int32_t* levels);

// Compares weights with what levels decode to, as `measure_distortion` does.
Distortion trellis_distortion(const Weights& weights, double step, const TrellisShifts& shifts, const int32_t* levels);

// Writes the values of levels as words of a type, over the levels themselves if `out` is where they lie and words are no
// wider; false if one is not finite.
bool trellis_values(const int32_t* levels, size_t count, double step, const TrellisShifts& shifts, FloatType type,
                    unsigned char* out);

// Levels as bytes, their lowest ones, and those that are far, by ascending index.
struct ByteLevels {
    const int8_t* levels;
    const FarLevel* far_levels;
    size_t num_far_levels;
};

// The same of bytes, which may lie at the end of `out`. Only where `are_bytes_enough`.
bool trellis_values(const ByteLevels& levels, size_t count, double step, const TrellisShifts& shifts, FloatType type,
                    unsigned char* out);

// Whether points in whole 256ths of a step, of 16 bits, stand for all that levels do.
bool are_bytes_enough(double step, const TrellisShifts& shifts);

}  // namespace fewbits
