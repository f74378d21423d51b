// The portable path. Read this one: the other does the same with wider registers.
#include "sparse_loops.h"

namespace fewbits {

namespace {

// Eight columns, in as many registers as they take.
struct Eight {
    static constexpr size_t kSize = 8;
    float sums[kSize] = {};
    void add(float value, const float* from) {
        for (size_t i = 0; i < kSize; ++i) sums[i] += value * from[i];
    }
    void store(float* to) const {
        for (size_t i = 0; i < kSize; ++i) to[i] = sums[i];
    }
};

size_t write_out(const SparseMatrix& matrix, size_t row, SparseRow& written) {
    const uint8_t* const values = matrix.values + matrix.starts[row];
    return matrix.wide[row] != 0 ? write_out_singly(Bytes{values}, matrix, row, written)
                                 : write_out_singly(HalfBytes{values}, matrix, row, written);
}

void rows(const SparseMatrix& matrix, const float* in, size_t width, size_t start, size_t stop, SparseRow& written,
          float* out) {
    rows_times<Eight>(matrix, in, width, start, stop, written, out, write_out);
}

}  // namespace

const SparseLoops kScalarSparseLoops = {rows};

}  // namespace fewbits
