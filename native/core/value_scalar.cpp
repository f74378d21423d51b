#include <algorithm>

#include "isa.h"
#include "value_loops.h"

namespace fewbits {
namespace {

void place(const void* values, size_t count, uint32_t base, int shift, uint32_t num_values, uint8_t* symbols) {
    const auto* bytes = static_cast<const uint8_t*>(values);
    for (size_t i = 0; i < count; ++i) {
        uint32_t value;
        std::memcpy(&value, bytes + 4 * i, 4);
        symbols[i] = static_cast<uint8_t>(std::min((value - base) >> shift, num_values));
    }
}

}  // namespace

const ValueLoops kScalarValueLoops = {
    survey, integers, ends, place, nullptr, join_fields<unpack_portably>, join_levels<unpack_portably>};

const ValueLoops& value_loops() {
#ifdef FEWBITS_X86
    if (uses_avx2()) return kAvx2ValueLoops;
#endif
    return kScalarValueLoops;
}

}  // namespace fewbits
