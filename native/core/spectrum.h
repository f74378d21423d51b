// Which integers occur in an array, and how often: what models are fitted to (fewbits/models/fit.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fewbits {

constexpr int64_t kReach = 31;   // greatest value of any shipped table
constexpr size_t kTail = 4096;   // a shift lets its table reach all but 1 / 4096 of the values at either end

// Of widely spread integers only the multiples of 2^grain below them are told apart: no table's shift gets that low.
struct Spectrum {
    std::vector<int64_t> values;  // ascending: value >> grain
    std::vector<int64_t> counts;
    int grain = 0;
    int64_t low = 0;  // no integer is less, none is greater; nearly the least and the greatest, to the grain
    int64_t high = 0;
};

struct Spectra {
    std::vector<Spectrum> classes;
    Spectrum whole;
};

// The functions below are there for T = int32_t, uint32_t and int64_t.

// The spectrum of `count` >= 1 integers.
template <typename T>
Spectrum spectrum_of(const T* values, size_t count);

// The spectra of the classes of rows, and of all rows; `values` has num_rows rows of row_length >= 1 integers.
// Throws InvalidArgument unless every class 0 ... num_classes - 1 has a row and every row one of these classes.
template <typename T>
Spectra spectra_of_rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes,
                        size_t num_classes);

// Binary digits of a number: 0 for 0.
inline int bit_length(uint64_t number) {
    int length = 0;
    for (int step = 32; step > 0; step /= 2) {
        if (number >> step) {
            length += step;
            number >>= step;
        }
    }
    return length + static_cast<int>(number);
}

}  // namespace fewbits
