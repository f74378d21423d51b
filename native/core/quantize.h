// Scalar quantisation of float weights where they lie: what ecsq asks of every element, in few passes and no copies.
//
// The NumPy code of fewbits.quantize is the specification. NUMERICS: all arithmetic is IEEE double (reconstruction:
// float) in its order, and sums run strictly from the first element to the last, so results are equal bit for bit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "weights.h"

namespace fewbits {

constexpr size_t kMagnitudeBins = 1 << 13;  // exponent and five mantissa bits of |w| as a float32

struct Extent {
    bool finite;
    double greatest;  // max |w|; infinite unless all are finite
    double energy;    // sum of w^2; infinite unless all are finite
};

// Measures weights, and adds them to a histogram of kMagnitudeBins magnitudes.
Extent measure(const Weights& weights, int64_t* bins);

// levels[i] = w[i] / step to the nearest integer, half to even; false if one is 2^30 or farther from 0.
bool round_levels(const Weights& weights, double step, int32_t* levels);

// Sums of |level| over each row of a matrix.
void row_magnitudes(const int32_t* levels, size_t num_rows, size_t row_length, int64_t* sums);

// What moving levels one towards 0 saves, in the units of distortion; a class of rows has one of these.
struct Gains {
    int64_t low;          // the first level that has a gain
    size_t count;         // levels that have one, at most kMostGains
    const double* gains;  // by level - low
};
constexpr size_t kMostGains = 64;

// Copies levels, each one nearer to 0 where that gains more than the distortion it adds.
void rate_distortion_round(const Weights& weights, double step, const int32_t* levels, const Gains& gains,
                           int32_t* rounded);

struct CentroidSums {
    std::array<double, 3> total{};   // of |w / step| - |level| where |level| is 1, 2, and 3 or more
    std::array<int64_t, 3> count{};  // of such levels
};

CentroidSums centroid_sums(const Weights& weights, double step, const int32_t* levels);

struct Distortion {
    bool finite;    // whether every reconstruction is, after rounding to the weights' dtype
    double error;   // sum of (reconstruction - w)^2; of no meaning unless finite
    double energy;  // sum of w^2
};

// Compares weights with what levels decode to: float arithmetic as docs/payload/ecsq.md says, centroids in 1/256 step.
Distortion measure_distortion(const Weights& weights, double step, const int32_t* levels,
                              const std::array<int, 3>& centroids);

}  // namespace fewbits
