#include "seeds.h"

#include "round_trip.h"

namespace fewbits {
namespace {

constexpr size_t kMostBytes = 500;  // of a seed: short inputs are quick

bool is_same(const IntegerModel& a, const IntegerModel& b) {
    return a.has_table == b.has_table && a.table == b.table && a.shift == b.shift && a.centre == b.centre;
}

bool is_same(const ModelSet& a, const ModelSet& b) {
    bool same = !a.has_classes || is_same(a.class_model, b.class_model);
    for (size_t k = 0; k < a.models.size(); ++k) same = same && is_same(a.models[k], b.models[k]);
    return same;
}

}  // namespace

// A description and its body; no bytes if the description is of something that cannot be encoded.
std::vector<uint8_t> make_seed(Numbers& numbers) {
    const std::vector<uint8_t> bytes = numbers.bytes(2000);
    ByteSource source(bytes.data(), bytes.size());
    DecodingCase decoding = case_from(source, true);
    std::vector<uint8_t> result(bytes.data(), source.rest());
    std::vector<ArrayValues> values;
    for (ArraySpec& spec : decoding.arrays) {
        if (spec.models.has_classes && spec.num_rows * spec.row_length == 0) return {};
        for (const IntegerModel& model : spec.models.models) {
            if (model.has_table) check_table(model.table);
        }
        const ArraySpec before = spec;
        values.push_back(values_of(spec, numbers));
        if (!is_same(before.models, spec.models)) return {};
    }
    const bool is_wide = numbers.below(4) != 0;
    const std::vector<uint8_t> body = encode(decoding.arrays, values, is_wide, 1, 256 + numbers.below(8192)).bytes;
    result.insert(result.end(), body.begin(), body.end());
    bool decodes = false;
    try {
        decodes = decoded(body, decoding, 1);
    } catch (const InvalidArgument&) {
    }
    return decodes && result.size() <= kMostBytes ? result : std::vector<uint8_t>{};
}

}  // namespace fewbits
