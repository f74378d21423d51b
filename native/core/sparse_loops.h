// The loops over a sparse matrix: included by a file for each instruction set.
#pragma once

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

// Where a row's values are and what they are, written out one by one; returns how many.
template <class Values>
inline size_t write_out_singly(Values values, const SparseMatrix& matrix, size_t row, SparseRow& found) {
    const size_t num_bytes = (matrix.columns + 7) / 8;
    const uint8_t* const bytes = matrix.bits + row * num_bytes;
    size_t count = 0;
    for (size_t k = 0; k < num_bytes; ++k) {
        for (unsigned bits = bytes[k]; bits != 0; bits &= bits - 1) {
            found.places[count] = static_cast<uint32_t>(k * 8 + first_bit(bits));
            found.values[count++] = values();
        }
    }
    return count;
}

// A row times kGroups groups of columns of `in` side by side, a Group of them in a register.
template <class Group, size_t kGroups>
inline void row_times(const SparseRow& row, size_t count, const float* in, size_t width, float* out) {
    Group sums[kGroups];
    for (size_t k = 0; k < count; ++k) {
        const float* const from = in + row.places[k] * width;
        for (size_t i = 0; i < kGroups; ++i) sums[i].add(row.values[k], from + i * Group::kSize);
    }
    for (size_t i = 0; i < kGroups; ++i) sums[i].store(out + i * Group::kSize);
}

struct One {
    static constexpr size_t kSize = 1;
    float sum = 0;
    void add(float value, const float* from) { sum += value * *from; }
    void store(float* to) const { *to = sum; }
};

// By panels of columns of `in` that stay near; within, a row is written out once, for four groups of columns, for one, and
// for the columns left. `write_out` does what write_out_singly does, for rows of bytes or of half bytes.
template <class Group, class WriteOut>
inline void rows_times(const SparseMatrix& matrix, const float* in, size_t width, size_t start, size_t stop,
                       SparseRow& written, float* out, WriteOut write_out) {
    constexpr size_t kPanel = 256;
    for (size_t panel = 0; panel < width; panel += kPanel) {
        const size_t end = panel + kPanel < width ? panel + kPanel : width;
        for (size_t row = start; row < stop; ++row) {
            const size_t count = write_out(matrix, row, written);
            float* const to = out + row * width;
            size_t column = panel;
            constexpr size_t kOne = Group::kSize, kFour = 4 * kOne;
            for (; column + kFour <= end; column += kFour) {
                row_times<Group, 4>(written, count, in + column, width, to + column);
            }
            for (; column + kOne <= end; column += kOne) {
                row_times<Group, 1>(written, count, in + column, width, to + column);
            }
            for (; column < end; ++column) row_times<One, 1>(written, count, in + column, width, to + column);
        }
    }
}

}  // namespace

}  // namespace fewbits
