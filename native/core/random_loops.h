// The loops of random.h. Each instruction set's file includes this one and has a copy of its own, compiled for it.
//
// Written for compilers to vectorise: plain loops over arrays, no branch in them, whole numbers made floats by their
// bits. NUMERICS: the operations of fewbits/random.py in its order, each rounded for itself.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "random.h"

namespace fewbits {

namespace {

uint64_t bits_of(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

double double_of(uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// 2^52 + number, for numbers below 2^52: their digits are the last of the fraction's.
double above_two_to_52(uint64_t number) { return double_of(uint64_t{0x433} << 52 | number); }

double uniform(uint32_t word) { return ((above_two_to_52(word) - 0x1p52) + 0.5) * 0x1p-32; }

// Horner's rule, lowest power first.
template <size_t kSize>
double polynomial(const double (&coefficients)[kSize], double x) {
    double total = coefficients[kSize - 1];
    for (size_t k = kSize - 1; k-- > 0;) total = total * x + coefficients[k];
    return total;
}

constexpr size_t kAtOnce = 8;  // numbers in tails

constexpr double kAtanh[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,
                             1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19};

double log_of(double x) {
    const uint64_t bits = bits_of(x);
    const double mantissa = double_of((bits & ((uint64_t{1} << 52) - 1)) | uint64_t{0x3FE} << 52);  // from 1/2 to 1
    const double twice = 2 * mantissa;
    const bool low = mantissa < 1.4142135623730951 / 2;
    const double m = low ? twice : mantissa;
    const double exponent = (above_two_to_52(bits >> 52) - (0x1p52 + 1022)) - (low ? 1.0 : 0.0);
    const double y = (m - 1.0) / (m + 1.0);
    return exponent * 0.6931471805599453 + 2.0 * y * polynomial(kAtanh, y * y);
}

constexpr double kCentral[] = {3.38713287231, 72.1460238865, 437.513200088, 740.727890816, 167.226635028};
constexpr double kCentralBelow[] = {1.0, 24.305284591, 180.154917370, 432.258056941, 227.293426862};
constexpr double kTailAbove[] = {-3.16203212366, -10.7141886583, 5.17742233429,
                                 11.9524461529,  3.17957122982,  0.170951999740};
constexpr double kTailBelow[] = {1.0, 7.43423808699, 8.76448985153, 2.24969741887, 0.120869960879};

// Three numbers in twenty are in a tail, whose logarithm and root cost most: they are gathered first.
void quantiles(const double* p, double* out) {
    double q[kRandomTile], found[kRandomTile], tails[kRandomTile + kAtOnce];
    uint32_t places[kRandomTile];
    for (size_t i = 0; i < kRandomTile; ++i) {
        q[i] = p[i] - 0.5;
        const double r = 0.180625 - q[i] * q[i];
        found[i] = q[i] * (polynomial(kCentral, r) / polynomial(kCentralBelow, r));
    }
    size_t num_tails = 0;
    for (uint32_t i = 0; i < kRandomTile; ++i) {
        places[num_tails] = i;
        num_tails += std::fabs(q[i]) <= 0.425 ? 0 : 1;
    }
    for (size_t k = 0; k < num_tails; ++k) tails[k] = q[places[k]] < 0 ? p[places[k]] : 1.0 - p[places[k]];
    for (size_t k = num_tails; k < num_tails + kAtOnce; ++k) tails[k] = 0.5;
    for (size_t first = 0; first < num_tails; first += kAtOnce) {
        double* const some = tails + first;
        for (size_t k = 0; k < kAtOnce; ++k) {
            const double s = std::sqrt(-log_of(some[k]));
            some[k] = polynomial(kTailAbove, s) / polynomial(kTailBelow, s);
        }
    }
    for (size_t k = 0; k < num_tails; ++k) found[places[k]] = std::copysign(tails[k], q[places[k]]);
    std::memcpy(out, found, sizeof found);
}

void normals(const uint32_t* words, double* out) {
    double p[kRandomTile];
    for (size_t i = 0; i < kRandomTile; ++i) p[i] = uniform(words[i]);
    quantiles(p, out);
}

void narrow_normals(const uint32_t* words, float* out) {
    double wide[kRandomTile];
    normals(words, wide);
    for (size_t i = 0; i < kRandomTile; ++i) out[i] = static_cast<float>(wide[i]);
}

void logs(const double* x, double* out) {
    for (size_t i = 0; i < kRandomTile; ++i) out[i] = log_of(x[i]);
}

void minus_logs(const double* x, double* out) {
    for (size_t i = 0; i < kRandomTile; ++i) out[i] = -log_of(x[i]);
}

void exponentials(const uint32_t* words, double* out) {
    double found[kRandomTile];
    for (size_t i = 0; i < kRandomTile; ++i) found[i] = uniform(words[i]);
    minus_logs(found, out);
}

void gumbels(const uint32_t* words, double* out) {
    double found[kRandomTile];
    exponentials(words, found);
    minus_logs(found, out);
}

void add_scores(const float* z, size_t count, float a, float b, float* sums) {
    for (size_t i = 0; i < count; ++i) sums[i] = sums[i] + (a * z[i] + b) * z[i];
}

bool any_reaches(const float* values, size_t count, float bound) {
    uint32_t any = 0;
    for (size_t i = 0; i < count; ++i) any |= values[i] >= bound ? 1u : 0u;
    return any != 0;
}

// An object file of one instruction set defines them under a name of its own.
constexpr RandomLoops loops_with(decltype(RandomLoops::philox) philox) {
    return {philox, normals, narrow_normals, quantiles, logs, exponentials, gumbels, add_scores, any_reaches};
}

}  // namespace

}  // namespace fewbits
