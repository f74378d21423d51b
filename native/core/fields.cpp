#include "fields.h"

#include <cstring>
#include <type_traits>

#include "values.h"

namespace fewbits {

namespace {

template <class Word>
Word word_at(const unsigned char* bits, size_t place) {
    Word word;
    std::memcpy(&word, bits + place * sizeof word, sizeof word);
    return word;
}

// A word without its sign.
template <class Word>
constexpr Word kMagnitude = static_cast<Word>(static_cast<Word>(~Word{0}) >> 1);

template <class Word>
FieldSurvey survey_as(const Words& words, int mantissa, uint64_t* magnitudes, uint64_t* exponents) {
    Word any = 0;
    uint64_t num_nonzero = 0;
    for (size_t row = 0; row < words.num_rows; ++row) {
        const unsigned char* bits = words.bits + row * words.row_length * sizeof(Word);
        Word all = 0;
        uint64_t exponent = 0;
        for (size_t i = 0; i < words.row_length; ++i) {
            const Word word = word_at<Word>(bits, i);
            all = static_cast<Word>(all | word);
            num_nonzero += word != 0 ? 1u : 0u;
            exponent += static_cast<uint64_t>((word & kMagnitude<Word>) >> mantissa);
        }
        any = static_cast<Word>(any | all);
        magnitudes[row] = static_cast<Word>(all & kMagnitude<Word>);
        exponents[row] = exponent;
    }
    return {any > kMagnitude<Word>, num_nonzero};
}

// Words of 32 bits, most of all there are, have loops for each instruction set.
template <>
FieldSurvey survey_as<uint32_t>(const Words& words, int mantissa, uint64_t* magnitudes, uint64_t* exponents) {
    FieldSurvey found = {false, 0};
    for (size_t row = 0; row < words.num_rows; ++row) {
        WordSums sums;
        value_loops().survey(words.bits + 4 * row * words.row_length, words.row_length, mantissa, sums);
        found.any_sign |= sums.all > kMagnitude<uint32_t>;
        found.num_nonzero += sums.num_nonzero;
        magnitudes[row] = sums.all & kMagnitude<uint32_t>;
        exponents[row] = sums.exponents;
    }
    return found;
}

template <class Word, class T>
void integers_as(const Words& words, const uint64_t* drops, bool with_sign, T* integers) {
    using Wide = std::make_unsigned_t<T>;  // a doubled magnitude loses nothing in it: its top bit is 0
    constexpr int kSign = 8 * static_cast<int>(sizeof(Word)) - 1;
    constexpr Wide kTop = sizeof(Word) == 8 ? static_cast<Wide>(uint64_t{1} << 63) : 0;
    for (size_t row = 0; row < words.num_rows; ++row) {
        const unsigned char* bits = words.bits + row * words.row_length * sizeof(Word);
        T* out = integers + row * words.row_length;
        const auto drop = static_cast<unsigned>(drops[row]);  // below 64; at most the width of the magnitude
        if constexpr (sizeof(Word) == 4) {
            value_loops().integers(bits, words.row_length, static_cast<int>(drop), with_sign, out);
        } else if (with_sign) {
            for (size_t i = 0; i < words.row_length; ++i) {
                const Word word = word_at<Word>(bits, i);
                const Wide magnitude = static_cast<Wide>(word & kMagnitude<Word>) >> drop;
                out[i] = static_cast<T>((magnitude << 1 | static_cast<Wide>(word >> kSign)) ^ kTop);
            }
        } else {
            for (size_t i = 0; i < words.row_length; ++i) {
                const Word word = word_at<Word>(bits, i);
                out[i] = static_cast<T>((static_cast<Wide>(word & kMagnitude<Word>) >> drop) ^ kTop);
            }
        }
    }
}

}  // namespace

FieldSurvey survey_fields(const Words& words, int mantissa, uint64_t* magnitudes, uint64_t* exponents) {
    switch (words.width) {
        case 1: return survey_as<uint8_t>(words, mantissa, magnitudes, exponents);
        case 2: return survey_as<uint16_t>(words, mantissa, magnitudes, exponents);
        case 4: return survey_as<uint32_t>(words, mantissa, magnitudes, exponents);
        default: return survey_as<uint64_t>(words, mantissa, magnitudes, exponents);
    }
}

template <class T>
void field_integers(const Words& words, const uint64_t* drops, bool with_sign, T* integers) {
    if constexpr (sizeof(T) == 8) {
        integers_as<uint64_t>(words, drops, with_sign, integers);
    } else {
        switch (words.width) {
            case 1: return integers_as<uint8_t>(words, drops, with_sign, integers);
            case 2: return integers_as<uint16_t>(words, drops, with_sign, integers);
            default: return integers_as<uint32_t>(words, drops, with_sign, integers);
        }
    }
}

template void field_integers(const Words&, const uint64_t*, bool, uint32_t*);
template void field_integers(const Words&, const uint64_t*, bool, int64_t*);

}  // namespace fewbits
