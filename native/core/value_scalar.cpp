#include <algorithm>

#include "isa.h"
#include "value_loops.h"

namespace fewbits {
namespace {

void place(const void* values, size_t count, uint32_t base, uint32_t num_values, uint8_t* symbols) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    for (size_t i = 0; i < count; ++i) {
        uint32_t value;
        std::memcpy(&value, bytes + 4 * i, 4);
        symbols[i] = static_cast<uint8_t>(std::min(value - base, num_values));
    }
}

void join_fields(const RawRun& run, int drop, bool is_signed, const uint8_t* symbols, size_t count, uint8_t* out) {
    join_fields_with(unpack_portably, run, drop, is_signed, symbols, count, out);
}

void join_levels(const RawRun& run, float step, const float* shifts, const uint8_t* symbols, size_t count, uint8_t* out) {
    join_levels_with(unpack_portably, run, step, shifts, symbols, count, out);
}

}  // namespace

const ValueLoops kScalarValueLoops = {place, join_fields, join_levels};

const ValueLoops& value_loops() {
#ifdef FEWBITS_X86
    if (uses_avx2()) return kAvx2ValueLoops;
#endif
    return kScalarValueLoops;
}

}  // namespace fewbits
