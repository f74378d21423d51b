#include "fields.h"

#include <cstring>
#include <type_traits>

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
    // Exponents are summed in 32 bits where a block of a row cannot overflow them: those loops vectorise best.
    using Sum = std::conditional_t<sizeof(Word) == 8, uint64_t, uint32_t>;
    constexpr size_t kBlock = size_t{1} << 16;  // of exponents below 2^11
    Word any = 0;
    uint64_t num_nonzero = 0;
    for (size_t row = 0; row < words.num_rows; ++row) {
        const unsigned char* bits = words.bits + row * words.row_length * sizeof(Word);
        Word all = 0;
        uint64_t exponent = 0;
        for (size_t start = 0; start < words.row_length; start += kBlock) {
            const size_t stop = words.row_length - start < kBlock ? words.row_length : start + kBlock;
            Sum sum = 0, nonzero = 0;
            for (size_t i = start; i < stop; ++i) {
                const Word word = word_at<Word>(bits, i);
                all = static_cast<Word>(all | word);
                nonzero += word != 0 ? 1u : 0u;
                sum += static_cast<Sum>((word & kMagnitude<Word>) >> mantissa);
            }
            exponent += sum;
            num_nonzero += nonzero;
        }
        any = static_cast<Word>(any | all);
        magnitudes[row] = static_cast<Word>(all & kMagnitude<Word>);
        exponents[row] = exponent;
    }
    return {any > kMagnitude<Word>, num_nonzero};
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
        if (with_sign) {
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
