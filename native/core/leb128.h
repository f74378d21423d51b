// Variable-length integers of the file format (docs/format.md, section 1): LEB128, shortest form only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "errors.h"

namespace fewbits {

inline void write_uint(std::vector<uint8_t>& bytes, uint64_t value) {
    for (; value > 0x7F; value >>= 7) bytes.push_back(static_cast<uint8_t>((value & 0x7F) | 0x80));
    bytes.push_back(static_cast<uint8_t>(value));
}

// Reads the integer at `position`, and moves it on. Throws Corrupt.
inline uint64_t read_uint(const uint8_t* data, size_t size, size_t& position) {
    const size_t start = position;
    const auto refused = [start](const char* why) {
        return Corrupt("the integer at byte offset " + std::to_string(start) + " " + why);
    };
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (position == size) throw refused("runs past the end of its field.");
        const uint8_t byte = data[position++];
        if (shift == 63 && (byte & 0x7F) > 1) throw refused("needs more than 64 bits.");
        value |= static_cast<uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) {
            if (byte == 0 && shift > 0) throw refused("is not in its shortest form.");
            return value;
        }
    }
    throw refused("is longer than 10 bytes.");
}

// The same of a signed integer, which is stored as its zigzag.
inline int64_t read_sint(const uint8_t* data, size_t size, size_t& position) {
    const uint64_t zigzag = read_uint(data, size, position);
    return static_cast<int64_t>(zigzag >> 1 ^ (0 - (zigzag & 1)));
}

}  // namespace fewbits
