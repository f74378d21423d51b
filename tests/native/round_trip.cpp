#include "round_trip.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "check.h"
#include "errors.h"
#include "loops.h"

namespace fewbits {
namespace {

int64_t value_of(const IntegerModel& model, Numbers& numbers, unsigned rarity) {
    const uint64_t mask = (uint64_t{1} << model.shift) - 1;
    const uint64_t low = numbers.next() & mask;
    uint64_t high = 0;
    if (model.has_table) {
        const Table& table = model.table;
        if (table.escape() != 0 && numbers.below(rarity) == 0) {
            const uint64_t number = numbers.next();
            ByteSource source(reinterpret_cast<const uint8_t*>(&number), sizeof number);
            // Only a high part that a shift leaves whole can be coded.
            const uint64_t any = static_cast<uint64_t>(source.integer()) << model.shift;
            high = static_cast<uint64_t>(static_cast<int64_t>(any) >> model.shift);
        } else if (numbers.below(2) == 0) {
            high = static_cast<uint64_t>(table.low) + numbers.below(static_cast<uint64_t>(table.num_values));
        } else {
            uint64_t slot = numbers.below(kTotal - table.escape());
            size_t symbol = 0;
            while (slot >= table.counts[symbol]) slot -= table.counts[symbol++];
            high = static_cast<uint64_t>(table.low) + symbol;
        }
    }
    return static_cast<int64_t>((high << model.shift) + low + static_cast<uint64_t>(model.centre));
}

// Whether a shift loses no bit of the table's values: a value modulo 2^64 then has one high part only.
bool is_codable(const IntegerModel& model) {
    if (!model.has_table || model.shift == 0) return true;
    const int64_t limit = std::numeric_limits<int64_t>::max() >> model.shift;
    return model.table.low >= -limit - 1 && model.table.low <= limit - model.table.num_values;
}

template <typename Value>
bool all_fit(const std::vector<int64_t>& values) {
    for (const int64_t value : values) {
        if (value < int64_t{std::numeric_limits<Value>::min()} || value > int64_t{std::numeric_limits<Value>::max()}) {
            return false;
        }
    }
    return true;
}

std::vector<uint8_t> elements_of(const DecodingCase& decoding) {
    std::vector<uint8_t> all;
    for (const Output& output : decoding.outputs) {
        all.insert(all.end(), output.data, output.data + output.num_elements * static_cast<size_t>(output.width));
    }
    return all;
}

// Decodes with every instruction set, on one and on three threads, to the case's own elements: all agree.
void check_elements(const std::vector<uint8_t>& body, const DecodingCase& decoding,
                    const std::vector<uint8_t>& expected, bool expected_to_decode) {
    for (const Kernels* loops : all_loops()) {
        use_kernels(*loops);
        for (const int num_threads : {1, 3}) {
            CHECK(decoded(body, decoding, num_threads) == expected_to_decode);
            if (expected_to_decode) CHECK(elements_of(decoding) == expected);
        }
    }
}

}  // namespace

ArrayValues values_of(ArraySpec& spec, Numbers& numbers) {
    ArrayValues result;
    if (spec.models.has_classes) {
        spec.models.class_model = model_of_indices(spec.models.models.size());
        for (size_t row = 0; row < spec.num_rows; ++row) {
            result.classes.push_back(static_cast<int64_t>(numbers.below(spec.models.models.size())));
        }
    }
    for (IntegerModel& model : spec.models.models) {
        if (is_codable(model)) continue;
        model.table.low = -(model.table.num_values / 2);
        model.shift = std::min(model.shift, 40);
    }
    const auto rarity = static_cast<unsigned>(1 + numbers.below(64));
    for (size_t row = 0; row < spec.num_rows; ++row) {
        const size_t k = spec.models.has_classes ? static_cast<size_t>(result.classes[row]) : 0;
        for (size_t i = 0; i < spec.row_length; ++i) {
            result.values.push_back(value_of(spec.models.models[k], numbers, rarity));
        }
    }
    return result;
}

BodyBytes encode(const std::vector<ArraySpec>& arrays, const std::vector<ArrayValues>& values, bool wide,
                 int num_threads, uint64_t chunk_bits) {
    std::vector<CodedArray> coded;
    std::vector<std::vector<uint32_t>> narrow(arrays.size());
    for (size_t a = 0; a < arrays.size(); ++a) {
        CodedArray array;
        array.values = values[a].values.data();
        const bool fits_int32 = all_fit<int32_t>(values[a].values);
        if (fits_int32 || all_fit<uint32_t>(values[a].values)) {
            for (const int64_t value : values[a].values) narrow[a].push_back(static_cast<uint32_t>(value));
            array.values = narrow[a].data();
            array.type = fits_int32 ? CodedArray::Type::kInt32 : CodedArray::Type::kUint32;
        }
        array.num_rows = arrays[a].num_rows;
        array.row_length = arrays[a].row_length;
        array.models = arrays[a].models;
        array.classes = arrays[a].models.has_classes ? values[a].classes.data() : nullptr;
        coded.push_back(array);
    }
    const EncodedBody body = encode_body(coded, wide, num_threads, chunk_bits);
    BodyBytes result{std::vector<uint8_t>(body.size()), body.num_symbols};
    body.write_to(result.bytes.data());
    return result;
}

bool decoded(const std::vector<uint8_t>& body, const DecodingCase& decoding, int num_threads) {
    // A block of exactly this size: a sanitizer sees a byte read beyond it, which a vector's spare room would hide.
    const auto block = std::make_unique<uint8_t[]>(body.size());
    if (!body.empty()) std::memcpy(block.get(), body.data(), body.size());
    try {
        decode_body(block.get(), body.size(), decoding.arrays, decoding.outputs, num_threads);
    } catch (const Corrupt&) {
        return false;
    }
    return true;
}

void check_round_trip(const uint8_t* bytes, size_t size) {
    ByteSource source(bytes, size);
    DecodingCase decoding = case_from(source, false);
    const uint64_t chunk_bits = 64 + source.number16();
    Numbers numbers(source.number64());
    std::vector<ArrayValues> values;
    for (ArraySpec& spec : decoding.arrays) values.push_back(values_of(spec, numbers));

    DecodingCase integers;
    integers.arrays = decoding.arrays;
    std::vector<uint8_t> expected_integers;
    for (size_t a = 0; a < integers.arrays.size(); ++a) {
        integers.outputs.push_back(integers_output(integers.arrays[a], integers.blocks));
        const auto* first = reinterpret_cast<const uint8_t*>(values[a].values.data());
        expected_integers.insert(expected_integers.end(), first, first + 8 * values[a].values.size());
    }
    use_kernels(kScalarKernels);
    const BodyBytes lane = encode(integers.arrays, values, false, 1, chunk_bits);
    const std::vector<uint8_t>& lane_body = lane.bytes;
    const std::vector<uint8_t> wide_body = encode(integers.arrays, values, true, 1, chunk_bits).bytes;
    for (const Kernels* loops : all_loops()) {
        use_kernels(*loops);
        for (const int num_threads : {1, 3}) {
            CHECK(encode(integers.arrays, values, true, num_threads, chunk_bits).bytes == wide_body);
        }
    }
    // A body in one lane may be too short for its symbols, where these cost nothing (docs/format.md, section 10).
    const bool is_long_enough = lane.num_symbols <= kMostSymbolsPerByte * (lane_body.size() + kSlackBytes);
    use_kernels(kScalarKernels);
    CHECK(decoded(lane_body, integers, 1) == is_long_enough);
    if (is_long_enough) CHECK(elements_of(integers) == expected_integers);
    check_elements(wide_body, integers, expected_integers, true);

    use_kernels(kScalarKernels);
    const bool are_elements = decoded(wide_body, decoding, 1);
    const std::vector<uint8_t> expected = elements_of(decoding);
    check_elements(wide_body, decoding, expected, are_elements);
    CHECK(decoded(lane_body, decoding, 1) == (is_long_enough && are_elements));
    if (is_long_enough && are_elements) CHECK(elements_of(decoding) == expected);

    for (std::vector<uint8_t> damaged : {wide_body, lane_body}) {
        for (int flips = 0; flips < 3; ++flips) {
            damaged[static_cast<size_t>(numbers.below(damaged.size()))] ^= static_cast<uint8_t>(1u << numbers.below(8));
            use_kernels(kScalarKernels);
            const bool still_decodes = decoded(damaged, decoding, 1);
            check_elements(damaged, decoding, elements_of(decoding), still_decodes);
        }
    }
}

}  // namespace fewbits
