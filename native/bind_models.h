// Models as the objects of fewbits.coder, read by their attributes.
#pragma once

#include <nanobind/nanobind.h>

#include "core/errors.h"
#include "core/table.h"

namespace fewbits {

inline Table table_of(nanobind::handle object) {
    Table table;
    table.low = nanobind::cast<int64_t>(object.attr("low"));
    const auto frequencies = nanobind::cast<nanobind::tuple>(object.attr("frequencies"));
    if (frequencies.size() == 0 || frequencies.size() >= kMaxSymbols) {
        throw InvalidArgument("a probability table's frequencies do not form a table.");
    }
    table.num_values = static_cast<int>(frequencies.size());
    for (size_t s = 0; s < frequencies.size(); ++s) table.counts[s] = nanobind::cast<uint16_t>(frequencies[s]);
    table.counts[frequencies.size()] = nanobind::cast<uint16_t>(object.attr("escape"));
    check_table(table);
    return table;
}

}  // namespace fewbits
