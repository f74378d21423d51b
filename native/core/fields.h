// Floats as fields: the sign, and the magnitude without the trailing zeros that a row of narrower precision has.
//
// The NumPy code of fewbits.coder.fields is the specification.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

// A matrix of float words as it lies in memory, aligned or not: little-endian, 1, 2, 4 or 8 bytes wide.
struct Words {
    const unsigned char* bits;
    size_t width;  // bytes of a word
    size_t num_rows;
    size_t row_length;
};

struct FieldSurvey {
    bool any_sign;
    uint64_t num_nonzero;  // words that are not 0: a negative zero is not
};

// Fills, for each row, the OR of its magnitudes and the sum of its exponents.
FieldSurvey survey_fields(const Words& words, int mantissa, uint64_t* magnitudes, uint64_t* exponents);

// The integer q of each word: the magnitude without its row's lowest `drops[row]` bits, with `with_sign` doubled and
// the sign put below it. The top bit of 64-bit words is inverted, so that signed comparison keeps their order. WIRE
// T is int64_t for words of 64 bits, and uint32_t for all narrower ones.
template <class T>
void field_integers(const Words& words, const uint64_t* drops, bool with_sign, T* integers);

extern template void field_integers(const Words&, const uint64_t*, bool, uint32_t*);
extern template void field_integers(const Words&, const uint64_t*, bool, int64_t*);

}  // namespace fewbits
