// For one column, eight elements at a time: their values are spread to the places of the bits that are set.
#include <immintrin.h>

#include <cstring>

#include "sparse_loops.h"

namespace fewbits {

namespace {

// The next eight values of a row, a byte each, of which as many are used as `bits` has. Up to kSparsePadding bytes behind
// a row's last value are read.
struct ByteValues {
    const uint8_t* next;
    __m128i operator()(unsigned bits) {
        const __m128i values = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(next));
        next += _mm_popcnt_u32(bits);
        return values;
    }
};

struct HalfByteValues {
    const uint8_t* start;
    size_t place = 0;  // in half bytes
    __m128i operator()(unsigned bits) {
        uint64_t halves;
        std::memcpy(&halves, start + place / 2, sizeof halves);
        halves >>= place % 2 * 4;
        place += static_cast<size_t>(_mm_popcnt_u32(bits));
        // A byte each, then their values by a table: 0 ... 7, -8 ... -1.
        const __m128i each = _mm_cvtsi64_si128(static_cast<int64_t>(_pdep_u64(halves, 0x0F0F0F0F0F0F0F0FULL)));
        const __m128i table = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
        return _mm_shuffle_epi8(table, each);
    }
};

__m256 floats_of(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

// Eight elements of a row, as floats.
template <class Values>
inline __m256 eight_of(Values& values, unsigned bits) {
    const __m128i places = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitPlaces.of[bits]));
    return floats_of(_mm_shuffle_epi8(values(bits), places));
}

// Eight at a time, those behind the bits' values to be written over.
template <class Values>
size_t write_out_with(Values values, const SparseMatrix& matrix, size_t row, SparseRow& written) {
    const size_t num_bytes = (matrix.columns + 7) / 8;
    const uint8_t* const bytes = matrix.bits + row * num_bytes;
    size_t count = 0;
    for (size_t k = 0; k < num_bytes; ++k) {
        const unsigned bits = bytes[k];
        const __m128i set = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitPlaces.set[bits]));
        const __m256i places = _mm256_add_epi32(_mm256_cvtepu8_epi32(set), _mm256_set1_epi32(static_cast<int>(k * 8)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(written.places + count), places);
        _mm256_storeu_ps(written.values + count, floats_of(values(bits)));
        count += static_cast<size_t>(_mm_popcnt_u32(bits));
    }
    return count;
}

size_t write_out(const SparseMatrix& matrix, size_t row, SparseRow& written) {
    const uint8_t* const values = matrix.values + matrix.starts[row];
    return matrix.wide[row] != 0 ? write_out_with(ByteValues{values}, matrix, row, written)
                                 : write_out_with(HalfByteValues{values}, matrix, row, written);
}

// kRows rows times one column. Several at once: where a row's next values are depends on all before, and is waited for.
template <size_t kRows, class Values>
void rows_times_column(const SparseMatrix& matrix, const float* in, size_t row, float* out) {
    const size_t num_bytes = (matrix.columns + 7) / 8;
    const uint8_t* bytes[kRows];
    Values values[kRows];
    __m256 sums[kRows];
    for (size_t i = 0; i < kRows; ++i) {
        bytes[i] = matrix.bits + (row + i) * num_bytes;
        values[i] = Values{matrix.values + matrix.starts[row + i]};
        sums[i] = _mm256_setzero_ps();
    }
    for (size_t k = 0; k < num_bytes; ++k) {
        const __m256 from = _mm256_loadu_ps(in + k * 8);
        for (size_t i = 0; i < kRows; ++i) {
            sums[i] = _mm256_add_ps(sums[i], _mm256_mul_ps(eight_of(values[i], bytes[i][k]), from));
        }
    }
    for (size_t i = 0; i < kRows; ++i) {
        alignas(32) float parts[8];
        _mm256_store_ps(parts, sums[i]);
        out[row + i] = ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
    }
}

struct EightAtOnce {
    static constexpr size_t kSize = 8;
    __m256 sums = _mm256_setzero_ps();
    void add(float value, const float* from) {
        sums = _mm256_add_ps(sums, _mm256_mul_ps(_mm256_set1_ps(value), _mm256_loadu_ps(from)));
    }
    void store(float* to) const { _mm256_storeu_ps(to, sums); }
};

void rows(const SparseMatrix& matrix, const float* in, size_t width, size_t start, size_t stop, SparseRow& written,
          float* out) {
    if (width != 1) {
        rows_times<EightAtOnce>(matrix, in, width, start, stop, written, out, write_out);
        return;
    }
    for (size_t row = start; row < stop;) {
        const bool four = row + 4 <= stop, wide = matrix.wide[row] != 0;
        const bool alike = four && wide == (matrix.wide[row + 1] != 0) && wide == (matrix.wide[row + 2] != 0) &&
                           wide == (matrix.wide[row + 3] != 0);
        if (alike) {
            (wide ? rows_times_column<4, ByteValues> : rows_times_column<4, HalfByteValues>)(matrix, in, row, out);
        } else {
            (wide ? rows_times_column<1, ByteValues> : rows_times_column<1, HalfByteValues>)(matrix, in, row, out);
        }
        row += alike ? 4 : 1;
    }
}

}  // namespace

const SparseLoops kAvx2SparseLoops = {rows};

}  // namespace fewbits
