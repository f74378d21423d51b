// Values to symbols, in a loop that compilers vectorise: each file of an instruction set includes a copy of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fewbits {
namespace {

// Internal to each file on purpose: a linker that merged the copies might keep one that a machine cannot run.
void place_values(const void* values, size_t count, uint32_t base, uint32_t num_values, uint8_t* symbols) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    for (size_t i = 0; i < count; ++i) {
        uint32_t value;
        std::memcpy(&value, bytes + 4 * i, 4);
        const uint32_t place = value - base;
        symbols[i] = static_cast<uint8_t>(place < num_values ? place : num_values);
    }
}

}  // namespace
}  // namespace fewbits
