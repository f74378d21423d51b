// Loops over integers and counters that are compiled for speed (CMakeLists.txt), unlike what uses them in spectrum.cpp.
//
// Differences of integers are taken modulo 2^32 or 2^64: as long as the greater one comes first they are the true ones,
// however far apart the two are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace fewbits {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

template <typename T>
Unsigned<T> distance(T from, T to) {
    return static_cast<Unsigned<T>>(static_cast<Unsigned<T>>(to) - static_cast<Unsigned<T>>(from));
}

template <typename T>
T plus(T value, uint64_t offset) {
    return static_cast<T>(static_cast<Unsigned<T>>(static_cast<Unsigned<T>>(value) + static_cast<Unsigned<T>>(offset)));
}

template <typename T>
struct Range {
    T low, high;
    uint64_t width() const { return distance(low, high); }
};

// Of `count` >= 1 integers. There for T = int32_t, uint32_t and int64_t.
template <typename T>
Range<T> range_of(const T* values, size_t count);

// Counts each integer in one of the two counters of distance(begin, integer) >> grain: an increment has to wait for the last one
// of the same counter. There for T = int32_t, uint32_t and int64_t.
template <typename T>
void count_pairs(const T* values, size_t count, T begin, int grain, uint32_t* pairs);

// There for uint32_t and int64_t.
template <typename Number>
bool all_zero(const Number* numbers, size_t count);

}  // namespace fewbits
