#include "column_payload.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "columns.h"
#include "errors.h"

namespace fewbits {

namespace {

void require(bool condition) {
    if (!condition) throw Corrupt("");
}

// Makes an array of one row and one model.
void describe(const IntegerModel& model, size_t size, ArraySpec& spec, Output& output) {
    spec.num_rows = 1;
    spec.row_length = output.num_elements = size;
    spec.models.models.assign(1, model);
}

// The side arrays, decoded: codes of columns' steps and models, and classes of rows.
struct Side {
    Side(const ColumnPayload& payload, size_t num_rows, size_t num_columns)
        : steps(num_columns), codes(num_columns), classes(num_rows) {
        std::vector<int64_t>* const arrays[] = {&steps, &codes, &classes};
        std::vector<ArraySpec> specs(payload.side_models.size());
        std::vector<Output> outputs(specs.size());
        for (size_t i = 0; i < specs.size(); ++i) {
            outputs[i].data = reinterpret_cast<uint8_t*>(arrays[i]->data());
            describe(payload.side_models[i], arrays[i]->size(), specs[i], outputs[i]);
        }
        decode_body(payload.side, static_cast<size_t>(payload.body - payload.side), specs, outputs, 1);
        const auto within = [](const std::vector<int64_t>& values, int64_t low, int64_t high) {
            for (const int64_t value : values) require(value >= low && value <= high);
        };
        within(steps, -kMostScaleCode, kMostScaleCode);
        within(codes, -kMostColumnCode, kMostColumnCode);
        within(classes, 0, static_cast<int64_t>(payload.scale_codes.size()) - 1);
    }

    std::vector<int64_t> steps, codes, classes;
};

// Rows in their coded order: by their model codes, then by their places. WIRE
struct Rows {
    Rows(const ColumnPayload& payload, const std::vector<int64_t>& classes, const float* all_scales)
        : places(classes.size()), codes(classes.size()), scales(classes.size()) {
        const auto code_of = [&](size_t row) { return payload.model_codes[static_cast<size_t>(classes[row])]; };
        const auto [least, most] = std::minmax_element(payload.model_codes.begin(), payload.model_codes.end());
        // By counting: where the rows of each code begin.
        std::vector<size_t> next(static_cast<size_t>(*most - *least) + 2);
        for (size_t row = 0; row < classes.size(); ++row) ++next[static_cast<size_t>(code_of(row) - *least) + 1];
        for (size_t i = 1; i < next.size(); ++i) next[i] += next[i - 1];
        for (size_t row = 0; row < classes.size(); ++row) {
            const size_t r = next[static_cast<size_t>(code_of(row) - *least)]++;
            places[r] = static_cast<int32_t>(row);
            codes[r] = code_of(row);
            scales[r] = all_scales[payload.scale_codes[static_cast<size_t>(classes[row])]];
        }
    }

    std::vector<int32_t> places, codes;
    std::vector<float> scales;
};

std::vector<TrellisShifts> shifts_of(const ColumnPayload& payload) {
    static constexpr size_t kKinds[] = {3, 1, 0, 2, 3};  // of the corrections, that of levels -2 ... 2
    const float middle = payload.num_paths != 0 ? 0.25f : 0.0f;
    std::vector<TrellisShifts> shifts(payload.models.size(), {middle, middle, middle, middle, middle});
    for (size_t m = 0; m < payload.corrections.size(); ++m) {
        for (size_t k = 0; k < 5; ++k) {
            const float beyond = static_cast<float>(payload.corrections[m][kKinds[k]]) / 256;
            shifts[m][k] += k < 2 ? -beyond : beyond;
        }
    }
    return shifts;
}

// The share of a model's levels that no byte holds: what its table says, escapes not counted.
double share_of_far(const IntegerModel& model) {
    if (!model.has_table) return 0;
    double far = 0;
    for (int s = 0; s < model.table.num_values; ++s) {
        const double high = static_cast<double>(model.table.low) + s + (model.shift > 0 ? 0.5 : 0);
        const double level = std::ldexp(high, model.shift) + static_cast<double>(model.centre);
        if (std::abs(level) > 127) far += model.table.counts[static_cast<size_t>(s)];
    }
    return far / kTotal;
}

}  // namespace

ColumnResult decode_column_payload(const ColumnPayload& payload, size_t num_rows, size_t num_columns,
                                   const float* scales, const ColumnRoom& room, FloatType type, unsigned char* out,
                                   int num_threads) {
    const Side side(payload, num_rows, num_columns);
    const Rows rows(payload, side.classes, scales);
    const ElementModels models = {rows.codes.data(), num_rows, payload.models.size()};
    const std::vector<int32_t> codes(side.codes.begin(), side.codes.end());
    std::vector<int64_t> counts(models.num_models);
    count_models(models, codes.data(), num_columns, counts.data());

    std::vector<size_t> starts(models.num_models + 1);
    std::vector<ArraySpec> specs(models.num_models);
    std::vector<Output> outputs(models.num_models);
    FarLevels far(reinterpret_cast<uint8_t*>(room.levels), num_rows * num_columns);
    double expected = 0;
    for (size_t m = 0; m < models.num_models; ++m) {
        expected += static_cast<double>(counts[m]) * share_of_far(payload.models[m]);
        outputs[m].kind = Output::Kind::kLevels;
        outputs[m].width = 1;
        outputs[m].far_levels = &far;
        outputs[m].data = reinterpret_cast<uint8_t*>(room.levels) + starts[m];
        describe(payload.models[m], static_cast<size_t>(counts[m]), specs[m], outputs[m]);
        starts[m + 1] = starts[m] + outputs[m].num_elements;
    }
    // Not worth a try.
    if (expected > 2 * static_cast<double>(far.most())) return ColumnResult::kTooFar;
    decode_body(payload.body, static_cast<size_t>(payload.end - payload.body), specs, outputs, num_threads);
    if (far.lost_some()) return ColumnResult::kTooFar;

    std::vector<float> steps(num_columns);
    for (size_t i = 0; i < num_columns; ++i) steps[i] = scales[side.steps[i] + kMostScaleCode];
    const std::vector<TrellisShifts> shifts = shifts_of(payload);
    const ColumnLevels levels = {models,       payload.num_paths, nullptr,      room.levels,   far.sorted(),
                                 far.size(),   starts.data(),     codes.data(), num_columns,   shifts.data(),
                                 steps.data(), rows.scales.data(), rows.places.data(), room.points, room.points_size};
    return column_values(levels, type, out) ? ColumnResult::kWritten : ColumnResult::kNotFinite;
}

}  // namespace fewbits
