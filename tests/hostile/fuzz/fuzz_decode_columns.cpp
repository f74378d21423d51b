// Any bytes as a payload of one matrix that is coded by columns: decoded, by all inner loops alike, or refused.
//
// The input's first bytes say its rows, columns, float type and how much room there is; the rest is the payload. All lie in
// blocks of exactly their size, so that AddressSanitizer sees the first byte beyond them.
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "cases.h"
#include "check.h"
#include "column_payload.h"
#include "errors.h"
#include "loops.h"
#include "weights.h"

namespace {

using namespace fewbits;

// A table that every code of a shipped one stands for.
Table shipped_table(int code) {
    Table table;
    table.low = -(code % 31);
    table.num_values = 1 + code % 62;
    for (int s = 0; s < table.num_values; ++s) table.counts[static_cast<size_t>(s)] = 1;
    table.counts[static_cast<size_t>(table.num_values)] = static_cast<uint16_t>(kTotal - static_cast<uint32_t>(table.num_values));
    return table;
}

// The words, or nothing if the payload is refused or left to others.
std::optional<std::vector<unsigned char>> decoded(const std::vector<uint8_t>& payload, size_t rows, size_t columns,
                                                  FloatType type, size_t room_size) {
    static const std::vector<float> scales = [] {
        std::vector<float> made;
        for (int64_t code = -kMostScaleCode; code <= kMostScaleCode; ++code) {
            made.push_back(static_cast<float>(std::exp2(static_cast<double>(code) / 8)));
        }
        return made;
    }();
    const std::unique_ptr<int8_t[]> levels(new int8_t[rows * columns]);
    const std::unique_ptr<float[]> points(new float[room_size]);
    const ColumnRoom room = {levels.get(), reinterpret_cast<unsigned char*>(points.get()), 4 * room_size};
    std::vector<unsigned char> out(rows * columns * width_of(type));
    try {
        const ColumnPayload read = read_column_payload(payload.data(), payload.size(), shipped_table);
        const ColumnResult result =
            decode_column_payload(read, rows, columns, scales.data(), room, type, out.data(), 1);
        if (result == ColumnResult::kTooFar) return std::nullopt;
        out.push_back(static_cast<unsigned char>(result));
    } catch (const Corrupt&) {
        return std::nullopt;
    } catch (const InvalidArgument&) {
        return std::nullopt;
    }
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    ByteSource source(bytes, size);
    const size_t rows = 1 + source.byte() % 40, columns = 1 + source.byte() % 24;
    const auto type = static_cast<FloatType>(source.byte() % 4);
    const size_t room_size = 64 * source.byte();
    const std::vector<uint8_t> payload(source.rest(), source.rest() + source.size());
    use_isa("scalar");
    const auto expected = decoded(payload, rows, columns, type, 0);
    for (const std::string& name : available_isas()) {
        use_isa(name);
        CHECK(decoded(payload, rows, columns, type, room_size) == expected);
    }
    return 0;
}
