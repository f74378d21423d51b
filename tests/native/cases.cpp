#include "cases.h"

#include <algorithm>
#include <limits>
#include <string>

namespace fewbits {

uint8_t ByteSource::byte() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
}

uint32_t ByteSource::number16() {
    const uint32_t low = byte();
    return low | static_cast<uint32_t>(byte()) << 8;
}

uint64_t ByteSource::number64() {
    uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number |= static_cast<uint64_t>(byte()) << 8 * i;
    return number;
}

int64_t ByteSource::integer() {
    const uint8_t choice = byte();
    if (choice < 128) return choice - 64;
    const int64_t near = choice & 15;
    switch (choice >> 4 & 7) {
        case 0: return std::numeric_limits<int64_t>::min() + near;
        case 1: return std::numeric_limits<int64_t>::max() - near;
        case 2: return (int64_t{1} << 31) - 8 + near;
        case 3: return -(int64_t{1} << 31) - 8 + near;
        case 4: return (int64_t{1} << 32) - 12 + near;
        case 5: return (int64_t{1} << (16 + 8 * (near >> 2))) - 2 + (near & 3);
        case 6: return -(int64_t{1} << 15) - 8 + near;
        default: return static_cast<int64_t>(number64());
    }
}

uint64_t Numbers::next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

std::vector<uint8_t> Numbers::bytes(size_t count) {
    std::vector<uint8_t> all(count);
    for (uint8_t& each : all) each = static_cast<uint8_t>(next());
    return all;
}

namespace {

// Frequencies in proportion to weights, each at least 1, all less than 8192.
Table table_of_weights(const std::vector<uint32_t>& weights, uint32_t escape, int64_t low) {
    Table table;
    table.low = low;
    table.num_values = static_cast<int>(weights.size());
    const size_t num = weights.size();
    uint64_t sum = 0;
    for (const uint32_t weight : weights) sum += weight;
    const uint32_t free = kTotal - escape - static_cast<uint32_t>(num);
    uint32_t left = free;
    for (size_t s = 0; s < num; ++s) {
        const auto more = sum == 0 ? 0u : static_cast<uint32_t>(uint64_t{free} * weights[s] / sum);
        table.counts[s] = static_cast<uint16_t>(1 + more);
        left -= more;
    }
    const auto heaviest = static_cast<size_t>(std::max_element(weights.begin(), weights.end()) - weights.begin());
    table.counts[heaviest] = static_cast<uint16_t>(table.counts[heaviest] + left);
    table.counts[num] = static_cast<uint16_t>(escape);
    return table;
}

Table wrong_table_from(ByteSource& source) {
    Table table;
    table.low = source.integer();
    table.num_values = source.byte() - 8;
    for (size_t s = 0; s < kMaxSymbols && source.size() > 0; ++s) {
        table.counts[s] = static_cast<uint16_t>(source.number16());
        if (table.counts[s] == 0xFFFF) break;
    }
    return table;
}

}  // namespace

Table table_from(ByteSource& source) {
    const uint8_t shape = source.byte();
    const int64_t low = source.integer();
    const uint8_t rare = source.byte();
    const size_t num = 1 + source.byte() % (kMaxSymbols - 1);
    // A single value cannot have all of 8192.
    const uint32_t escape = rare < 96 && num > 1 ? 0 : 1 + rare % 160;
    std::vector<uint32_t> weights(num, 1);
    switch (shape % 5) {
        case 0: return table_of_weights({1}, 1, low);
        case 1: return table_of_weights({8191, 0}, 0, low);
        case 2: break;
        case 3:
            for (size_t s = 0; s < num; ++s) {
                const size_t from_middle = s < num / 2 ? num / 2 - s : s - num / 2;
                weights[s] = 8192u >> std::min<size_t>(from_middle * (1 + shape / 5 % 4u) / 2, 31);
            }
            break;
        default:
            for (uint32_t& weight : weights) weight = source.byte();
    }
    return table_of_weights(weights, escape, low);
}

IntegerModel model_from(ByteSource& source) {
    IntegerModel model;
    const uint8_t kind = source.byte();
    model.has_table = kind % 8 != 0;
    model.shift = kind < 128 ? 0 : source.byte() % 64;
    model.centre = kind & 64 ? source.integer() : 0;
    if (model.has_table) model.table = table_from(source);
    return model;
}

IntegerModel model_of_indices(size_t num_models) {
    IntegerModel model;
    model.has_table = true;
    model.table.num_values = static_cast<int>(num_models < 63 ? num_models : 63);
    for (size_t s = 0; s < static_cast<size_t>(model.table.num_values); ++s) model.table.counts[s] = 1;
    model.table.counts[0] = static_cast<uint16_t>(kTotal - 160 - static_cast<uint32_t>(model.table.num_values) + 1);
    model.table.counts[static_cast<size_t>(model.table.num_values)] = 160;
    return model;
}

namespace {

constexpr int kFloatWidths[] = {4, 2, 2, 8};

Output output_from(ByteSource& source, size_t num_models) {
    Output output;
    output.name = "w";
    const uint8_t flags = source.byte();
    switch (flags % 3) {
        case 0:
            output.kind = Output::Kind::kIntegers;
            output.width = 1 << (flags >> 4 & 3);
            break;
        case 1: {
            const float steps[] = {1.0f, 0.25f, 1e-30f, 3e38f, 1e-44f, 65504.0f, std::numeric_limits<float>::infinity(),
                                   std::numeric_limits<float>::quiet_NaN()};
            output.kind = Output::Kind::kFloats;
            output.type = static_cast<FloatType>(flags >> 4 & 3);
            output.width = kFloatWidths[flags >> 4 & 3];
            output.step = steps[source.byte() & 7];
            output.has_centroids = (flags & 64) != 0;
            for (int8_t& centroid : output.centroids) {
                centroid = output.has_centroids ? static_cast<int8_t>(source.byte() - 128) : int8_t{0};
            }
            if ((flags & 128) != 0) {
                const auto shift = [&](int k) { return 0.25f + static_cast<float>(k) / 256.0f; };
                const int zero = output.centroids[0], one = output.centroids[1], others = output.centroids[2];
                output.kind = Output::Kind::kTrellis;
                output.shifts = {shift(-others), shift(-one), shift(zero), shift(one), shift(others)};
            }
            break;
        }
        default:
            output.kind = Output::Kind::kFields;
            output.width = 1 << (flags >> 4 & 3);
            output.is_signed = (flags & 64) != 0;
            for (size_t k = 0; k < num_models; ++k) {
                output.drops.push_back(flags & 128 ? static_cast<uint8_t>(source.byte() % 64) : uint8_t{0});
            }
    }
    return output;
}

ModelSet models_from(ByteSource& source, bool has_classes, bool allow_wrong) {
    ModelSet set;
    const uint8_t how_many = source.byte();
    const size_t different = 1 + how_many % 5;
    for (size_t k = 0; k < (has_classes ? different : 1); ++k) {
        set.models.push_back(model_from(source));
        if (allow_wrong && how_many >= 240) {
            set.models.back().has_table = true;
            set.models.back().table = wrong_table_from(source);
        }
    }
    // More than the 64 whose direct tables a decoder keeps.
    if (has_classes && how_many % 16 == 15) {
        for (size_t k = 0; set.models.size() < 80; ++k) set.models.push_back(set.models[k % different]);
    }
    set.has_classes = has_classes;
    if (has_classes) set.class_model = source.byte() % 4 ? model_of_indices(set.models.size()) : model_from(source);
    return set;
}

size_t bytes_of(const Output& output) { return output.num_elements * static_cast<size_t>(output.width); }

}  // namespace

DecodingCase case_from(ByteSource& source, bool allow_wrong) {
    DecodingCase result;
    const uint8_t head = source.byte();
    const size_t num_arrays = 1 + head % 3u;
    result.num_threads = head >> 4 == 15 ? 2 : 1;
    result.loops = head >> 2 & 3;
    for (size_t a = 0; a < num_arrays; ++a) {
        const uint8_t shape = source.byte();
        ArraySpec spec;
        const bool has_classes = (shape & 1) != 0;
        spec.num_rows = source.byte();
        const size_t most = (shape >> 1) % 16 == 15 ? kMostElements : kFewElements;
        spec.row_length = source.number16() % (1 + most / std::max<size_t>(spec.num_rows, 1));
        if (has_classes && !allow_wrong) {
            spec.num_rows += spec.num_rows == 0;
            spec.row_length += spec.row_length == 0;
        }
        spec.models = models_from(source, has_classes, allow_wrong);
        Output output = output_from(source, spec.models.models.size());
        output.num_elements = spec.num_rows * spec.row_length;
        if (allow_wrong && shape == 0xFE) ++output.num_elements;
        result.blocks.push_back(std::make_unique<uint8_t[]>(bytes_of(output)));
        output.data = result.blocks.back().get();
        result.arrays.push_back(std::move(spec));
        result.outputs.push_back(std::move(output));
    }
    return result;
}

Output integers_output(const ArraySpec& spec, std::vector<std::unique_ptr<uint8_t[]>>& blocks) {
    Output output;
    output.num_elements = spec.num_rows * spec.row_length;
    blocks.push_back(std::make_unique<uint8_t[]>(bytes_of(output)));
    output.data = blocks.back().get();
    return output;
}

}  // namespace fewbits
