// A sparse matrix of small whole numbers, times a dense one: layers computed from factors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

constexpr size_t kSparsePadding = 16;  // bytes that may be read behind the last values

// Rows of `columns` elements. A row has ceil(columns / 8) bytes of bits, the least significant first, 1 where an element
// is not 0. `starts` says at which byte the row's values begin, and with one entry more where they end: where `wide` is 1
// a byte each, else half a byte each, -8 ... 7, the low half of a byte first.
struct SparseMatrix {
    size_t rows;
    size_t columns;
    const uint8_t* bits;
    const int32_t* starts;
    const uint8_t* wide;
    const uint8_t* values;
    size_t num_value_bytes;
};

// Whether every row has as many values as bits, none of these behind its last column: then no loop reads too far.
bool is_sound(const SparseMatrix& matrix);

// out (rows, width) = matrix x in (columns, width), both row by row, on so many threads.
void multiply(const SparseMatrix& matrix, const float* in, size_t width, size_t num_threads, float* out);

// A row's values that are not 0, and their columns: room for as many as the matrix has columns, and kSparsePadding more.
struct SparseRow {
    uint32_t* places;
    float* values;
};

// The same for some rows, one after the other; with a width of 1, `in` has whole eights of elements.
struct SparseLoops {
    void (*rows)(const SparseMatrix& matrix, const float* in, size_t width, size_t start, size_t stop,
                 SparseRow& written, float* out);
};

extern const SparseLoops kScalarSparseLoops;
#ifdef FEWBITS_X86
extern const SparseLoops kAvx2SparseLoops;

// For each byte of bits, which of the next values goes to each of eight places (0x80 puts a 0 there), and the places of
// the bits that are set, one after the other.
struct BitPlaces {
    alignas(64) uint8_t of[256][8] = {};
    alignas(64) uint8_t set[256][8] = {};
    BitPlaces();
};

extern const BitPlaces kBitPlaces;  // made when the module is loaded, by instructions that every machine has
#endif

}  // namespace fewbits
