#include "sparse.h"

#include <algorithm>
#include <vector>

#include "isa.h"
#include "parallel.h"

namespace fewbits {

namespace {

constexpr size_t kLeastWork = size_t{1} << 21;  // products that are worth a thread

int32_t num_bits(unsigned bits) {
    int32_t count = 0;
    for (; bits != 0; bits &= bits - 1) ++count;
    return count;
}

const SparseLoops& sparse_loops() {
#ifdef FEWBITS_X86
    if (uses_avx2()) return kAvx2SparseLoops;
#endif
    return kScalarSparseLoops;
}

}  // namespace

#ifdef FEWBITS_X86

BitPlaces::BitPlaces() {
    for (int bits = 0; bits < 256; ++bits) {
        uint8_t next = 0;
        for (int place = 0; place < 8; ++place) {
            if (bits >> place & 1) set[bits][next] = static_cast<uint8_t>(place);
            of[bits][place] = static_cast<uint8_t>(bits >> place & 1 ? next++ : 0x80);
        }
    }
}

const BitPlaces kBitPlaces;

#endif

bool is_sound(const SparseMatrix& matrix) {
    const size_t num_bytes = (matrix.columns + 7) / 8, used = matrix.columns % 8;
    if (matrix.num_value_bytes > INT32_MAX) return false;
    int32_t start = 0;
    for (size_t row = 0; row < matrix.rows; ++row) {
        const uint8_t* const bytes = matrix.bits + row * num_bytes;
        if (matrix.starts[row] != start) return false;
        int32_t count = 0;
        for (size_t k = 0; k < num_bytes; ++k) count += num_bits(bytes[k]);
        // Checked row by row, so that the sum cannot run over.
        start += matrix.wide[row] != 0 ? count : (count + 1) / 2;
        if (static_cast<size_t>(start) > matrix.num_value_bytes) return false;
        if (used != 0 && bytes[num_bytes - 1] >> used != 0) return false;
    }
    return matrix.starts[matrix.rows] == start;
}

void multiply(const SparseMatrix& matrix, const float* in, size_t width, size_t num_threads, float* out) {
    const SparseLoops& loops = sparse_loops();
    std::vector<float> padded;
    if (width == 1 && matrix.columns % 8 != 0) {  // whole eights of elements are read there
        padded.assign((matrix.columns + 7) / 8 * 8, 0.0F);
        std::copy(in, in + matrix.columns, padded.begin());
        in = padded.data();
    }
    const size_t work = matrix.num_value_bytes * width / kLeastWork + 1;
    const size_t used = std::max<size_t>(1, std::min({num_threads, work, matrix.rows}));
    const auto work_of = [&](size_t thread) {
        std::vector<uint32_t> places(matrix.columns + kSparsePadding);
        std::vector<float> values(matrix.columns + kSparsePadding);
        SparseRow written{places.data(), values.data()};
        const size_t start = matrix.rows * thread / used, stop = matrix.rows * (thread + 1) / used;
        loops.rows(matrix, in, width, start, stop, written, out);
    };
    if (used == 1) {
        work_of(0);
    } else {
        on_threads(used, work_of);
    }
}

}  // namespace fewbits
