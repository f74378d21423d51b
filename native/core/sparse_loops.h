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

// One row times kWidth columns of `in` side by side.
template <size_t kWidth>
inline void row_times(const SparseMatrix& matrix, const float* in, size_t width, size_t row, float* out) {
    const size_t num_bytes = (matrix.columns + 7) / 8;
    const uint8_t* const bytes = matrix.bits + row * num_bytes;
    const int8_t* value = matrix.values + matrix.starts[row];
    std::array<float, kWidth> sums{};
    for (size_t k = 0; k < num_bytes; ++k) {
        for (unsigned bits = bytes[k]; bits != 0; bits &= bits - 1) {
            const float* const from = in + (k * 8 + first_bit(bits)) * width;
            const float factor = *value++;
            for (size_t i = 0; i < kWidth; ++i) sums[i] += factor * from[i];
        }
    }
    for (size_t i = 0; i < kWidth; ++i) out[i] = sums[i];
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
