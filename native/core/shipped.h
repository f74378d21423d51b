#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "spectrum.h"
#include "table.h"

namespace fewbits {

// What an escape costs whose symbol costs so much: `from` is the table's value next to `to`.
inline int64_t escape_cost(int64_t symbol, int64_t from, int64_t to) {
    return symbol + 2 * kCostOne * bit_length(static_cast<uint64_t>(to) - static_cast<uint64_t>(from));
}

// The shipped tables (docs/format.md, section 6), and what integers cost under each of them.
class Shipped {
public:
    static constexpr size_t kNumTables = 192;
    static constexpr size_t kNumMagnitudes = static_cast<size_t>(kReach) + 1;
    using Magnitudes = std::array<int64_t, kNumMagnitudes>;  // how many integers have magnitude 0 ... 31

    // From (192, 64) frequencies and (192,) numbers of values. Throws InvalidArgument unless each table has values of
    // magnitude 31 at most, and equal frequencies for a value and its negative.
    Shipped(const uint16_t* counts, const int64_t* num_values);

    const Table& table(size_t code) const { return tables_[code]; }
    bool has(const Table& table) const;

    struct Choice {
        size_t code;
        double cost;
    };
    // The table that codes integers in the fewest bits; of equals the one of the lowest code.
    Choice choose(const Magnitudes& magnitudes) const;

private:
    std::vector<Table> tables_;
    // (32, 192): the cost of a magnitude under each table, an escape's with its code.
    // NUMERICS: doubles holding integers, so that sums of products with counts are exact in any order.
    std::vector<double> costs_;
};

}  // namespace fewbits
