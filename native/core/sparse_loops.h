// The loops over a sparse matrix: included by a file for each instruction set.
#pragma once

#include <array>

#include "sparse.h"

#ifdef _MSC_VER
#include <intrin.h>
#endif

namespace fewbits {

namespace {

inline size_t first_bit(unsigned bits) {
#ifdef _MSC_VER
    unsigned long place;
    _BitScanForward(&place, bits);
    return place;
#else
    return static_cast<size_t>(__builtin_ctz(bits));
#endif
}

// The values of a row, one after the other.
struct Bytes {
    const uint8_t* next;
    float operator()() { return static_cast<int8_t>(*next++); }
};

struct HalfBytes {
    const uint8_t* next;
    unsigned shift = 0;
    float operator()() {
        const int half = *next >> shift & 15;
        next += shift >> 2;
        shift ^= 4;
        return static_cast<float>((half ^ 8) - 8);
    }
};

// One row times kWidth columns of `in` side by side.
template <size_t kWidth, class Values>
inline void row_times_with(Values values, const SparseMatrix& matrix, const float* in, size_t width, size_t row, float* out) {
    const size_t num_bytes = (matrix.columns + 7) / 8;
    const uint8_t* const bytes = matrix.bits + row * num_bytes;
    std::array<float, kWidth> sums{};
    for (size_t k = 0; k < num_bytes; ++k) {
        for (unsigned bits = bytes[k]; bits != 0; bits &= bits - 1) {
            const float* const from = in + (k * 8 + first_bit(bits)) * width;
            const float factor = values();
            for (size_t i = 0; i < kWidth; ++i) sums[i] += factor * from[i];
        }
    }
    for (size_t i = 0; i < kWidth; ++i) out[i] = sums[i];
}

template <size_t kWidth>
inline void row_times(const SparseMatrix& matrix, const float* in, size_t width, size_t row, float* out) {
    const uint8_t* const values = matrix.values + matrix.starts[row];
    if (matrix.wide[row] != 0) {
        row_times_with<kWidth>(Bytes{values}, matrix, in, width, row, out);
    } else {
        row_times_with<kWidth>(HalfBytes{values}, matrix, in, width, row, out);
    }
}

// Columns of `in` by 32, by 8, and one by one. A row's neighbours read the same columns next, so rows are the inner loop.
inline void rows_times(const SparseMatrix& matrix, const float* in, size_t width, size_t start, size_t stop, float* out) {
    size_t column = 0;
    for (; column + 32 <= width; column += 32) {
        for (size_t row = start; row < stop; ++row) {
            row_times<32>(matrix, in + column, width, row, out + row * width + column);
        }
    }
    for (; column + 8 <= width; column += 8) {
        for (size_t row = start; row < stop; ++row) {
            row_times<8>(matrix, in + column, width, row, out + row * width + column);
        }
    }
    for (; column < width; ++column) {
        for (size_t row = start; row < stop; ++row) {
            row_times<1>(matrix, in + column, width, row, out + row * width + column);
        }
    }
}

}  // namespace

}  // namespace fewbits
