// How integers are coded: docs/format.md, section 7. q = centre + (h * 2^shift + low), h by the table, low raw.
#pragma once

#include <cstdint>
#include <vector>

#include "table.h"

namespace fewbits {

struct IntegerModel {
    bool has_table = false;
    Table table;  // only with has_table
    int shift = 0;
    int64_t centre = 0;
};

}  // namespace fewbits
