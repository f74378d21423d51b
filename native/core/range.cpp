#include "range.h"

#include <algorithm>

#include "values.h"

namespace fewbits {

template <typename T>
Range<T> range_of(const T* values, size_t count) {
    if constexpr (sizeof(T) == 4) {
        constexpr uint32_t kFlip = std::is_signed_v<T> ? 0 : uint32_t{1} << 31;
        int32_t ends[2];
        value_loops().ends(values, count, kFlip, ends);
        return {static_cast<T>(static_cast<uint32_t>(ends[0]) ^ kFlip), static_cast<T>(static_cast<uint32_t>(ends[1]) ^ kFlip)};
    } else {
        // Two halves of the array side by side, whose chains of comparisons do not wait for each other.
        const size_t half = count / 2;
        const T* const others = values + half;
        T low = values[count - 1], high = low, other_low = low, other_high = low;
        for (size_t i = 0; i < half; ++i) {
            low = std::min(low, values[i]);
            high = std::max(high, values[i]);
            other_low = std::min(other_low, others[i]);
            other_high = std::max(other_high, others[i]);
        }
        return {std::min(low, other_low), std::max(high, other_high)};
    }
}

template <typename T>
void count_pairs(const T* values, size_t count, T begin, int grain, uint32_t* pairs) {
    const auto pair_of = [=](T value) { return pairs + 2 * static_cast<size_t>(distance(begin, value) >> grain); };
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        uint32_t* const found[4] = {pair_of(values[i]), pair_of(values[i + 1]), pair_of(values[i + 2]), pair_of(values[i + 3])};
        ++found[0][0];
        ++found[1][1];
        ++found[2][0];
        ++found[3][1];
    }
    for (; i < count; ++i) ++pair_of(values[i])[0];
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
template void count_pairs(const int32_t*, size_t, int32_t, int, uint32_t*);
template void count_pairs(const uint32_t*, size_t, uint32_t, int, uint32_t*);
template void count_pairs(const int64_t*, size_t, int64_t, int, uint32_t*);
template bool all_zero(const uint32_t*, size_t);
template bool all_zero(const int64_t*, size_t);

}  // namespace fewbits
