// Integer models as bytes: docs/format.md, section 7.
#pragma once

#include "leb128.h"
#include "model.h"

namespace fewbits {

// Reads an integer model at `position`, and moves that on. A shipped table is what `shipped_table` gives for its code.
//
// The Python code of fewbits.models.descriptions reads the same, and says what is wrong: here it is Corrupt or
// InvalidArgument, without a reason.
template <class ShippedTable>
IntegerModel read_model(const uint8_t* data, size_t size, size_t& position, const ShippedTable& shipped_table) {
    constexpr uint8_t kHistogram = 192, kNoTable = 193, kShifted = 194;  // WIRE: first bytes
    const auto require = [](bool condition) {
        if (!condition) throw Corrupt("");
    };
    const auto byte = [&] {
        require(position < size);
        return data[position++];
    };
    IntegerModel model;
    uint8_t first = byte();
    if (first > kHistogram) {
        require(first <= kShifted);
        model.shift = byte();
        model.centre = read_sint(data, size, position);
        require(model.shift <= 63);
        if (first == kNoTable) return model;
        first = byte();
        require(first <= kHistogram && (model.shift != 0 || model.centre != 0));
    }
    model.has_table = true;
    if (first < kHistogram) {
        model.table = shipped_table(first);
        return model;
    }
    model.table.low = read_sint(data, size, position);
    const uint64_t last = read_uint(data, size, position);
    require(last < kMaxSymbols - 1);
    model.table.num_values = static_cast<int>(last) + 1;
    for (size_t s = 0; s <= last + 1; ++s) {
        const uint64_t count = read_uint(data, size, position);
        require(count <= kTotal);
        model.table.counts[s] = static_cast<uint16_t>(count);
    }
    check_table(model.table);
    return model;
}

}  // namespace fewbits
