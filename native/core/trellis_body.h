// Bodies whose arrays are levels of a trellis, decoded to what the levels stand for (docs/payload/ecsq.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "body.h"
#include "trellis_search.h"

namespace fewbits {

// An array of levels that become values, words of the type of its output, once all of them are there.
struct TrellisArray {
    size_t index;  // of the array
    double step;
    TrellisShifts shifts;
};

// Decodes a body as `decode_body` does; the outputs of these arrays say where their values go, and of what type and width.
//
// Throws Corrupt also if a value is not finite.
void decode_trellis_body(const uint8_t* data, size_t size, const std::vector<ArraySpec>& arrays,
                         const std::vector<Output>& outputs, const std::vector<TrellisArray>& trellises, int num_threads);

}  // namespace fewbits
