#include "range.h"

#include <algorithm>

namespace fewbits {

// No branch, comparisons of signed numbers only, and two halves of the array side by side, whose chains of comparisons
// do not wait for each other.
template <typename T>
Range<T> range_of(const T* values, size_t count) {
    using Signed = std::make_signed_t<T>;
    constexpr auto kFlip = static_cast<Unsigned<T>>(std::is_signed_v<T> ? 0 : Unsigned<T>{1} << (8 * sizeof(T) - 1));
    const auto in_order = [](T value) { return static_cast<Signed>(static_cast<Unsigned<T>>(value) ^ kFlip); };
    const size_t half = count / 2;
    const T* const others = values + half;
    Signed low = in_order(values[count - 1]), high = low, other_low = low, other_high = low;
    for (size_t i = 0; i < half; ++i) {
        const Signed value = in_order(values[i]), other = in_order(others[i]);
        low = std::min(low, value);
        high = std::max(high, value);
        other_low = std::min(other_low, other);
        other_high = std::max(other_high, other);
    }
    const auto back = [](Signed value) { return static_cast<T>(static_cast<Unsigned<T>>(value) ^ kFlip); };
    return {back(std::min(low, other_low)), back(std::max(high, other_high))};
}

template <typename Number>
bool all_zero(const Number* numbers, size_t count) {
    Number any = 0;
    for (size_t i = 0; i < count; ++i) any |= numbers[i];
    return any == 0;
}

template Range<int32_t> range_of(const int32_t*, size_t);
template Range<uint32_t> range_of(const uint32_t*, size_t);
template Range<int64_t> range_of(const int64_t*, size_t);
template bool all_zero(const uint32_t*, size_t);
template bool all_zero(const int64_t*, size_t);

}  // namespace fewbits
