// Inputs of fuzz_decode_columns that decode.
#include <algorithm>

#include "columns.h"
#include "leb128.h"
#include "round_trip.h"
#include "seeds.h"

namespace fewbits {
namespace {

void write_sint(std::vector<uint8_t>& bytes, int64_t value) {
    write_uint(bytes, static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63));
}

void write_model(std::vector<uint8_t>& bytes, const IntegerModel& model) {
    if (!model.has_table || model.shift != 0 || model.centre != 0) {
        bytes.push_back(model.has_table ? 194 : 193);
        bytes.push_back(static_cast<uint8_t>(model.shift));
        write_sint(bytes, model.centre);
        if (!model.has_table) return;
    }
    bytes.push_back(192);
    write_sint(bytes, model.table.low);
    write_uint(bytes, static_cast<uint64_t>(model.table.num_values) - 1);
    for (int s = 0; s <= model.table.num_values; ++s) write_uint(bytes, model.table.counts[static_cast<size_t>(s)]);
}

ArraySpec spec_of(const IntegerModel& model, size_t size) { return {1, size, {{model}, false, {}}}; }

}  // namespace

std::vector<uint8_t> make_seed(Numbers& numbers) {
    const auto between = [&](int64_t low, int64_t high) {
        return low + static_cast<int64_t>(numbers.below(static_cast<uint64_t>(high - low) + 1));
    };
    const size_t rows = 1 + numbers.below(40), columns = 1 + numbers.below(24);
    const size_t num_classes = 1 + numbers.below(3), num_models = 1 + numbers.below(4);
    std::vector<uint8_t> bytes = {static_cast<uint8_t>(rows - 1), static_cast<uint8_t>(columns - 1),
                                  static_cast<uint8_t>(numbers.below(4)), static_cast<uint8_t>(numbers.below(256)),
                                  static_cast<uint8_t>(numbers.below(7))};
    write_uint(bytes, num_classes - 1);
    std::vector<int32_t> class_codes;
    for (size_t k = 0; k < num_classes; ++k) {
        write_sint(bytes, between(-9, 9));
        class_codes.push_back(static_cast<int32_t>(between(-2, 2)));
        write_sint(bytes, class_codes.back());
    }
    write_uint(bytes, num_models - 1);
    const uint64_t num_corrected = numbers.below(num_models + 1);
    write_uint(bytes, num_corrected);
    for (uint64_t i = 0; i < 4 * num_corrected; ++i) {
        bytes.push_back(numbers.below(3) == 0 ? 192 : static_cast<uint8_t>(numbers.next()));  // 192: -64, a point of 0
    }
    std::vector<IntegerModel> models;
    const std::vector<uint8_t> shapes = numbers.bytes(1000);
    ByteSource source(shapes.data(), shapes.size());
    for (size_t m = 0; m < num_models; ++m) {
        IntegerModel model = model_from(source);
        if (numbers.below(3) != 0) {  // as most are: near 0
            model.table.low = -model.table.num_values / 2;
            model.shift = static_cast<int>(numbers.below(3));
            model.centre = 0;
        }
        models.push_back(model);
    }

    // Steps, columns' codes and rows' classes: raw numbers.
    std::vector<ArraySpec> side_specs;
    std::vector<ArrayValues> side;
    const auto add = [&](size_t size, int64_t low, int64_t high) {
        IntegerModel model;
        model.shift = 5;
        model.centre = low;
        side_specs.push_back(spec_of(model, size));
        side.emplace_back();
        for (size_t i = 0; i < size; ++i) side.back().values.push_back(between(low, high));
    };
    add(columns, -16, 15);
    add(columns, -2, 6);
    if (num_classes > 1) add(rows, 0, static_cast<int64_t>(num_classes) - 1);
    std::vector<int32_t> row_codes;
    for (size_t r = 0; r < rows; ++r) {
        row_codes.push_back(class_codes[num_classes > 1 ? static_cast<size_t>(side[2].values[r]) : 0]);
    }
    std::sort(row_codes.begin(), row_codes.end());
    std::vector<int32_t> codes(side[1].values.begin(), side[1].values.end());
    std::vector<int64_t> counts(num_models);
    count_models({row_codes.data(), rows, num_models}, codes.data(), columns, counts.data());

    std::vector<ArraySpec> specs;
    std::vector<ArrayValues> levels;
    for (size_t m = 0; m < num_models; ++m) {
        specs.push_back(spec_of(models[m], static_cast<size_t>(counts[m])));
        levels.push_back(values_of(specs.back(), numbers));
        write_model(bytes, specs.back().models.models[0]);
    }
    for (const ArraySpec& spec : side_specs) write_model(bytes, spec.models.models[0]);
    const std::vector<uint8_t> side_body = encode(side_specs, side, false, 1, kChunkBits).bytes;
    write_uint(bytes, side_body.size());
    bytes.insert(bytes.end(), side_body.begin(), side_body.end());
    const std::vector<uint8_t> body = encode(specs, levels, numbers.below(2) != 0, 1, 256 + numbers.below(8192)).bytes;
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
}

}  // namespace fewbits
