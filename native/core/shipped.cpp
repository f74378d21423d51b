#include "shipped.h"

#include <algorithm>

#include "errors.h"

namespace fewbits {

Shipped::Shipped(const uint16_t* counts, const int64_t* num_values) : tables_(kNumTables) {
    costs_.resize(kNumMagnitudes * kNumTables);
    const std::array<int64_t, kTotal + 1>& of_frequency = frequency_costs();
    for (size_t code = 0; code < kNumTables; ++code) {
        Table& table = tables_[code];
        if (num_values[code] < 1 || num_values[code] > 2 * kReach + 1 || num_values[code] % 2 == 0) {
            throw InvalidArgument("a shipped table has no middle, or values beyond 31.");
        }
        const auto last = static_cast<size_t>(num_values[code] / 2);
        table.low = -static_cast<int64_t>(last);
        table.num_values = static_cast<int>(num_values[code]);
        std::copy_n(counts + code * kMaxSymbols, kMaxSymbols, table.counts.begin());
        check_table(table);
        for (size_t magnitude = 0; magnitude < kNumMagnitudes; ++magnitude) {
            const auto value = static_cast<int64_t>(magnitude), end = static_cast<int64_t>(last);
            int64_t cost = escape_cost(of_frequency[table.escape()], end, value);
            if (magnitude <= last) {
                if (table.counts[last - magnitude] != table.counts[last + magnitude]) {
                    throw InvalidArgument("a shipped table is not symmetric.");
                }
                cost = of_frequency[table.counts[last + magnitude]];
            }
            costs_[magnitude * kNumTables + code] = static_cast<double>(cost);
        }
    }
}

bool Shipped::has(const Table& table) const {
    // All of them are centred on 0, and few histograms are.
    if (2 * table.low + table.num_values != 1) return false;
    return std::find(tables_.begin(), tables_.end(), table) != tables_.end();
}

Shipped::Choice Shipped::choose(const Magnitudes& magnitudes) const {
    std::array<double, kNumTables> costs;
    constexpr size_t kBlock = 8;  // tables whose sums stay in registers
    static_assert(kNumTables % kBlock == 0, "blocks must be whole");
    for (size_t first = 0; first < kNumTables; first += kBlock) {
        double sums[kBlock] = {};
        for (size_t magnitude = 0; magnitude < kNumMagnitudes; ++magnitude) {
            const auto count = static_cast<double>(magnitudes[magnitude]);
            const double* const each = costs_.data() + magnitude * kNumTables + first;
            for (size_t i = 0; i < kBlock; ++i) sums[i] += count * each[i];
        }
        std::copy_n(sums, kBlock, costs.begin() + first);
    }
    const auto best = std::min_element(costs.begin(), costs.end());
    return {static_cast<size_t>(best - costs.begin()), *best};
}

}  // namespace fewbits
