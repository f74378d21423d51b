#include "output.h"

#include <cfenv>
#include <cstdlib>
#include <cstring>

#include "float_bits.h"

namespace fewbits {
namespace {

uint64_t bits_of(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

}  // namespace

uint16_t float16_of(float value) {
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);   // NaN
    if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // from 65,520 on it rounds to 65,536
    if (magnitude >= 0x38800000) {  // at least 2^-14, a normal float16: 13 mantissa bits go, the exponent's bias too
        const uint32_t odd = magnitude >> 13 & 1;
        return static_cast<uint16_t>(sign | (magnitude - 0x38000000 + 0xFFF + odd) >> 13);
    }
    const uint32_t exponent = magnitude >> 23;
    if (exponent < 102) return static_cast<uint16_t>(sign);  // below 2^-25, half of the least float16
    // A multiple of 2^-24: the mantissa, with its leading one, moves right; halves go to even.
    const uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000, shift = 126 - exponent;
    const uint32_t odd = mantissa >> shift & 1;
    return static_cast<uint16_t>(sign | (mantissa + (1u << (shift - 1)) - 1 + odd) >> shift);
}

uint16_t bfloat16_of(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

DefaultFloatEnvironment::DefaultFloatEnvironment() {
    std::fenv_t now;
    std::fegetenv(&now);
    static_assert(sizeof now <= sizeof saved_, "the environment must fit");
    std::memcpy(saved_, &now, sizeof now);
    std::fesetenv(FE_DFL_ENV);
}

DefaultFloatEnvironment::~DefaultFloatEnvironment() {
    std::fenv_t before;
    std::memcpy(&before, saved_, sizeof before);
    std::fesetenv(&before);
}

const FarLevel* FarLevels::sorted() {
    // By the C library: the other one's sort would be compiled here.
    std::qsort(found_.data(), num_, sizeof(FarLevel), [](const void* a, const void* b) {
        return static_cast<const FarLevel*>(a)->index < static_cast<const FarLevel*>(b)->index ? -1 : 1;
    });
    return found_.data();
}

ElementRule::ElementRule(const Output& output, size_t class_index)
    : name_(output.name),
      kind_(output.kind),
      type_(output.type),
      step_(output.step),
      has_centroids_(output.has_centroids),
      is_signed_(output.is_signed) {
    for (int k = 1; k <= 3; ++k) shifts_[k] = static_cast<float>(output.centroids[k - 1]) / 256.0f;
    if (kind_ != Output::Kind::kFields) return;
    const int bits = 8 * output.width;
    top_ = bits == 64 ? uint64_t{1} << 63 : 0;
    sign_place_ = bits - 1;
    drop_ = output.drops[class_index];
    limit_ = ~uint64_t{0} >> (64 - (is_signed_ ? bits - 1 : bits)) >> drop_;
}

bool ElementRule::word_of(int64_t q, uint64_t& word) const {
    if (kind_ == Output::Kind::kFloats) return float_word(q, word);
    if (kind_ == Output::Kind::kFields) return field_word(q, word);
    word = static_cast<uint64_t>(q);
    return kind_ != Output::Kind::kLevels || (q >= -127 && q <= 127);
}

bool ElementRule::float_word(int64_t q, uint64_t& word) const {
    // WIRE: float32, in this order; no product and sum may be fused.
    float value = static_cast<float>(q);
    if (has_centroids_ && q != 0) {
        const uint64_t magnitude = q < 0 ? uint64_t{0} - static_cast<uint64_t>(q) : static_cast<uint64_t>(q);
        const float shift = shifts_[magnitude < 3 ? magnitude : 3];
        value = q < 0 ? value - shift : value + shift;
    }
    value *= step_;
    constexpr uint32_t kInfinity = 0x7F800000;
    if ((bits_of(value) & kInfinity) == kInfinity) return false;
    switch (type_) {
        case FloatType::kFloat32: word = bits_of(value); return true;
        case FloatType::kFloat16: word = float16_of(value); return (word & 0x7C00) != 0x7C00;
        case FloatType::kBfloat16: word = bfloat16_of(value); return (word & 0x7F80) != 0x7F80;
        default: word = bits_of(static_cast<double>(value)); return true;
    }
}

bool ElementRule::field_word(int64_t q, uint64_t& word) const {
    const uint64_t v = static_cast<uint64_t>(q) ^ top_;
    const uint64_t magnitude = is_signed_ ? v >> 1 : v;
    if (magnitude > limit_) return false;
    word = magnitude << drop_;
    if (is_signed_) word |= (v & 1) << sign_place_;
    return true;
}

std::string ElementRule::refusal() const {
    const bool are_floats = kind_ == Output::Kind::kFloats || kind_ == Output::Kind::kTrellis;
    const char* what = are_floats ? " decodes to values that are not finite."
                                                      : " has an element too wide for its dtype.";
    return "tensor " + name_ + what;
}

}  // namespace fewbits
