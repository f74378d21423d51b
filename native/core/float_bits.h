// A float32's bits, and choices that compilers turn into vector code.
#pragma once

#include <cstdint>
#include <cstring>

namespace fewbits {

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// condition ? yes : no, as masks.
inline uint32_t select(bool condition, uint32_t yes, uint32_t no) {
    const uint32_t mask = 0 - static_cast<uint32_t>(condition);
    return (yes & mask) | (no & ~mask);
}

}  // namespace fewbits
