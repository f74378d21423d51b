// Payloads of one matrix that is coded by columns (docs/payload/sic.md), decoded without a stop.
//
// The Python code of fewbits.methods.sic.payload reads the same, and says what is wrong: here it is Corrupt or
// InvalidArgument, often without a reason.
#pragma once

#include <array>
#include <vector>

#include "body.h"
#include "descriptions.h"
#include "float_type.h"

namespace fewbits {

constexpr int64_t kMostScaleCode = 1000;      // WIRE: either way
constexpr int64_t kMostColumnCode = 1 << 16;  // WIRE: of a model, of a column or row, either way
constexpr size_t kNumScales = 2 * kMostScaleCode + 1;

// What stands before the integers of a matrix, and where these are.
struct ColumnPayload {
    size_t num_paths = 0;  // 0: no trellis
    std::vector<size_t> scale_codes;  // of classes of rows, from 0 to 2000
    std::vector<int32_t> model_codes;
    std::vector<std::array<int8_t, 4>> corrections;  // of the first models
    std::vector<IntegerModel> models;
    std::vector<IntegerModel> side_models;  // of column steps, column codes and, with two classes or more, row classes
    const uint8_t* side = nullptr;
    const uint8_t* body = nullptr;  // the side's end
    const uint8_t* end = nullptr;
};

// Memory of any values to decode in.
struct ColumnRoom {
    int8_t* levels;         // one for each element
    unsigned char* points;  // aligned to 4 bytes
    size_t points_size;     // bytes; too few are as none
};

// Reads what precedes the integers. Throws Corrupt or InvalidArgument.
template <class ShippedTable>
ColumnPayload read_column_payload(const uint8_t* data, size_t size, const ShippedTable& shipped_table) {
    constexpr uint64_t kMostModels = 4096;  // WIRE: and classes of rows
    constexpr uint8_t kNoTrellis = 6;       // WIRE
    const auto require = [](bool condition) {
        if (!condition) throw Corrupt("");
    };
    size_t position = 0;
    const auto number = [&](uint64_t most) {
        const uint64_t value = read_uint(data, size, position);
        require(value <= most);
        return static_cast<size_t>(value);
    };
    const auto signed_number = [&](int64_t most) {
        const int64_t value = read_sint(data, size, position);
        require(value >= -most && value <= most);
        return value;
    };
    ColumnPayload payload;
    require(size > 0 && data[0] <= kNoTrellis);
    if (data[0] < kNoTrellis) payload.num_paths = size_t{1} << data[0];
    position = 1;
    const size_t num_classes = number(kMostModels - 1) + 1;
    for (size_t i = 0; i < num_classes; ++i) {
        payload.scale_codes.push_back(static_cast<size_t>(signed_number(kMostScaleCode) + kMostScaleCode));
        payload.model_codes.push_back(static_cast<int32_t>(signed_number(kMostColumnCode)));
    }
    const size_t num_models = number(kMostModels - 1) + 1;
    payload.corrections.resize(number(num_models));
    for (auto& four : payload.corrections) {
        for (int8_t& one : four) {
            require(position < size);
            one = static_cast<int8_t>(data[position++]);
        }
    }
    const auto read = [&](std::vector<IntegerModel>& models, size_t count) {
        for (size_t i = 0; i < count; ++i) models.push_back(read_model(data, size, position, shipped_table));
    };
    read(payload.models, num_models);
    read(payload.side_models, num_classes > 1 ? 3 : 2);
    const uint64_t side_size = read_uint(data, size, position);
    require(side_size <= size - position);
    payload.side = data + position;
    payload.body = payload.side + side_size;
    payload.end = data + size;
    return payload;
}

enum class ColumnResult { kWritten, kNotFinite, kTooFar };

// Decodes a matrix to words of a type. `scales`: kNumScales, 2^(code / 8) of the codes from -1000 on. kTooFar if more than
// one level in 256, and 64, are none of -127 ... 127.
//
// Throws Corrupt. What is written is then, or if not all is written, anything.
ColumnResult decode_column_payload(const ColumnPayload& payload, size_t num_rows, size_t num_columns,
                                   const float* scales, const ColumnRoom& room, FloatType type, unsigned char* out,
                                   int num_threads);

}  // namespace fewbits
