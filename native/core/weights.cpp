#include "weights.h"

#include <cstring>

#include "float_bits.h"
#include "output.h"

namespace fewbits {

namespace {

// Each element type gives: its word; a word's exact value; the histogram bin of a word without sign; what a float32
// becomes when it is rounded to the type, to nearest even, subnormal numbers kept; and the word of such a value.

struct Float32 {
    using Word = uint32_t;
    static constexpr Word kMagnitude = 0x7FFFFFFF;
    static constexpr Word kInfinity = 0x7F800000;
    static double value(Word word) { return static_cast<double>(float_of(word)); }
    static uint32_t bin(Word magnitude) { return magnitude >> 18; }
    static float rounded(float value) { return value; }
    static Word word(float value) { return bits_of(value); }
};

struct Float16 {
    using Word = uint16_t;
    static constexpr Word kMagnitude = 0x7FFF;
    static constexpr Word kInfinity = 0x7C00;
    static float widened(Word word) {
        const uint32_t magnitude = word & 0x7FFFu;
        const uint32_t rebiased = (magnitude << 13) + select(magnitude >= 0x7C00u, 224u << 23, 112u << 23);
        const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
        const uint32_t bits = select(magnitude < 0x400u, bits_of(subnormal), rebiased);
        return float_of(bits | (word & 0x8000u) << 16);
    }
    static double value(Word word) { return static_cast<double>(widened(word)); }
    static uint32_t bin(Word magnitude) { return bits_of(widened(magnitude)) >> 18; }
    static float rounded(float value) {
        const uint32_t magnitude = bits_of(value) & 0x7FFFFFFFu;
        // Below 2^-14 float16 counts in units of 2^-24, which is what a float32 just above 1/2 counts in.
        const float small = (float_of(magnitude) + 0.5f) - 0.5f;
        const uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u)) & ~0x1FFFu;
        const uint32_t kept = select(normal >= 0x47800000u, 0x7F800000u, normal);  // from 2^16 on it overflows
        const uint32_t result = select(magnitude < 0x38800000u, bits_of(small), kept);
        return float_of(result | (bits_of(value) & 0x80000000u));
    }
    static Word word(float value) { return float16_of(value); }
};

struct BFloat16 {
    using Word = uint16_t;
    static constexpr Word kMagnitude = 0x7FFF;
    static constexpr Word kInfinity = 0x7F80;
    static double value(Word word) { return static_cast<double>(float_of(uint32_t{word} << 16)); }
    static uint32_t bin(Word magnitude) { return uint32_t{magnitude} >> 2; }
    static float rounded(float value) {
        const uint32_t bits = bits_of(value);
        return float_of((bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u);
    }
    static Word word(float value) { return static_cast<Word>(bits_of(value) >> 16); }
};

struct Float64 {
    using Word = uint64_t;
    static constexpr Word kMagnitude = 0x7FFFFFFFFFFFFFFF;
    static constexpr Word kInfinity = 0x7FF0000000000000;
    static double value(Word word) {
        double value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    }
    static uint32_t bin(Word magnitude) {
        const double number = value(magnitude);
        if (number >= 0x1.ffffffp127) return 0x7F800000u >> 18;  // rounds to infinity
        return bits_of(static_cast<float>(number)) >> 18;
    }
    static float rounded(float value) { return value; }
    static Word word(float value) {
        const auto number = static_cast<double>(value);
        Word word;
        std::memcpy(&word, &number, sizeof word);
        return word;
    }
};

template <class Element>
typename Element::Word word_at(const unsigned char* bits, size_t place) {
    typename Element::Word word;
    std::memcpy(&word, bits + place * sizeof word, sizeof word);
    return word;
}

template <class Element>
struct LoopsOf {
    using Word = typename Element::Word;

    static void values(const unsigned char* bits, size_t start, size_t length, double* out) {
        for (size_t i = 0; i < length; ++i) out[i] = Element::value(word_at<Element>(bits, start + i));
    }

    static uint64_t bins(const unsigned char* bits, size_t start, size_t length, uint32_t* out) {
        Word peak = 0;
        for (size_t i = 0; i < length; ++i) {
            const Word magnitude = word_at<Element>(bits, start + i) & Element::kMagnitude;
            peak = std::max(peak, magnitude);
        }
        for (size_t i = 0; i < length; ++i) {
            const Word magnitude = word_at<Element>(bits, start + i) & Element::kMagnitude;
            out[i] = Element::bin(magnitude);
        }
        return peak;
    }

    static void round(float* values, size_t length) {
        for (size_t i = 0; i < length; ++i) values[i] = Element::rounded(values[i]);
    }

    static void store(const float* values, size_t length, unsigned char* out) {
        for (size_t i = 0; i < length; ++i) {
            const Word word = Element::word(values[i]);
            std::memcpy(out + i * sizeof word, &word, sizeof word);
        }
    }

    static double value(uint64_t word) { return Element::value(static_cast<Word>(word)); }

    static constexpr BlockLoops kAll = {Element::kInfinity, value, values, bins, round, store};
};

}  // namespace

size_t width_of(FloatType type) {
    switch (type) {
        case FloatType::kFloat32: return sizeof(Float32::Word);
        case FloatType::kFloat64: return sizeof(Float64::Word);
        default: return sizeof(Float16::Word);
    }
}

const BlockLoops& loops_of(FloatType type) {
    switch (type) {
        case FloatType::kFloat32: return LoopsOf<Float32>::kAll;
        case FloatType::kFloat16: return LoopsOf<Float16>::kAll;
        case FloatType::kBfloat16: return LoopsOf<BFloat16>::kAll;
        default: return LoopsOf<Float64>::kAll;
    }
}

}  // namespace fewbits
