// Tests of the core without Python. Prints each proposition before it is tested; stops at the first that is wrong.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "adaptive.h"
#include "bits.h"
#include "cases.h"
#include "check.h"
#include "columns.h"
#include "errors.h"
#include "lane.h"
#include "leb128.h"
#include "loops.h"
#include "round_trip.h"
#include "sparse.h"
#include "test_kernels.h"
#include "trellis.h"

namespace fewbits {
namespace {

template <typename Error, typename Call>
bool refuses(const Call& call) {
    try {
        call();
    } catch (const Error&) {
        return true;
    }
    return false;
}

void test_tables() {
    Numbers numbers(10);
    for (int round = 0; round < 500; ++round) {
        const std::vector<uint8_t> bytes = numbers.bytes(80);
        ByteSource source(bytes.data(), bytes.size());
        Table table = table_from(source);
        check_table(table);
        const AliasTable alias = alias_table(table);
        const auto direct = std::make_unique<DirectTable>();
        const auto split = std::make_unique<DirectTable>();
        fill_direct(alias, SlotLayout::kPacked, *direct);
        fill_direct(alias, SlotLayout::kSplit, *split);
        uint32_t seen[kMaxSymbols] = {};
        for (size_t slot = 0; slot < kTotal; ++slot) {
            const uint32_t entry = direct->entries[slot], symbol = entry & 63;
            CHECK(entry >> 19 == seen[symbol]++);
            CHECK((entry >> 6 & (kTotal - 1)) + 1 == table.counts[symbol]);
            CHECK(split->symbols[slot] == symbol);
            CHECK(split->entries[slot] == (uint32_t{table.counts[symbol]} << 16 | entry >> 19));
        }
        for (size_t s = 0; s < kMaxSymbols; ++s) CHECK(seen[s] == table.counts[s]);
        const auto place = static_cast<size_t>(numbers.below(kMaxSymbols));
        table.counts[place] = static_cast<uint16_t>(table.counts[place] + 1 + numbers.below(0xFFFF));
        CHECK(refuses<InvalidArgument>([&] { check_table(table); }));
    }
}

void test_bits() {
    Numbers numbers(11);
    for (int round = 0; round < 300; ++round) {
        BitWriter writer;
        std::vector<std::pair<uint64_t, int>> fields;
        for (uint64_t n = numbers.below(60); n > 0; --n) {
            const auto width = static_cast<int>(numbers.below(64));
            fields.emplace_back(numbers.next() & ((uint64_t{1} << width) - 1), width);
            writer.write(fields.back().first, width);
        }
        writer.finish();
        const std::vector<uint8_t> bytes(writer.data(), writer.data() + writer.size());
        const auto block = std::make_unique<uint8_t[]>(bytes.size());
        if (!bytes.empty()) std::memcpy(block.get(), bytes.data(), bytes.size());
        const BitReader reader(block.get(), bytes.size());
        uint64_t position = 0;
        for (const auto& [value, width] : fields) {
            CHECK(reader.read(position, width) == value);
            position += static_cast<uint64_t>(width);
        }
        CHECK((position + 7) / 8 == bytes.size());
        CHECK(reader.read(position + numbers.below(1000) + 8, 63) == 0);
    }
}

void test_escapes() {
    Numbers numbers(12);
    for (int round = 0; round < 300; ++round) {
        BitWriter writer;
        std::vector<Escape> escapes;
        for (uint64_t n = numbers.below(20); n > 0; --n) {
            uint64_t distance = numbers.next() >> numbers.below(64);
            if (distance == ~uint64_t{0} || numbers.below(20) == 0) distance = ~uint64_t{0} - 1;
            escapes.push_back({distance, numbers.below(2) == 0});
            write_escape(writer, escapes.back());
        }
        writer.finish();
        const std::vector<uint8_t> bytes(writer.data(), writer.data() + writer.size());
        EscapeReader reader(bytes.data(), bytes.size());
        for (const Escape& escape : escapes) {
            const Escape read = reader.take();
            CHECK(read.distance == escape.distance && read.below == escape.below);
        }
        reader.finish();
        CHECK(refuses<Corrupt>([&] { for (int i = 0; i < 9; ++i) reader.take(); }));  // padding is 7 bits at most
        if (bytes.empty()) continue;
        EscapeReader cut(bytes.data(), bytes.size() - 1);
        CHECK(refuses<Corrupt>([&] { for (size_t i = 0; i < escapes.size(); ++i) cut.take(); }));
    }
}

void test_variable_length_integers() {
    Numbers numbers(13);
    for (int round = 0; round < 2000; ++round) {
        const uint64_t value = round == 0 ? ~uint64_t{0} : numbers.next() >> numbers.below(64);
        std::vector<uint8_t> bytes;
        write_uint(bytes, value);
        size_t position = 0;
        CHECK(read_uint(bytes.data(), bytes.size(), position) == value && position == bytes.size());
        position = 0;
        CHECK(refuses<Corrupt>([&] { read_uint(bytes.data(), bytes.size() - 1, position); }));
        bytes.back() |= 0x80;
        bytes.push_back(0);
        position = 0;
        CHECK(refuses<Corrupt>([&] { read_uint(bytes.data(), bytes.size(), position); }));
    }
}

void test_single_lane() {
    Numbers numbers(14);
    for (int round = 0; round < 300; ++round) {
        const std::vector<uint8_t> bytes = numbers.bytes(80);
        ByteSource source(bytes.data(), bytes.size());
        const Table table = table_from(source);
        const AliasTable alias = alias_table(table);
        const auto encode = std::make_unique<EncodeTable>();
        fill_encode(alias, *encode);
        std::vector<uint8_t> symbols(static_cast<size_t>(numbers.below(400)));
        const auto num_values = static_cast<uint64_t>(table.num_values);
        for (uint8_t& symbol : symbols) symbol = static_cast<uint8_t>(numbers.below(num_values));
        LaneEncoder encoder;
        for (size_t i = symbols.size(); i-- > 0;) encoder.put(*encode, symbols[i]);
        const std::vector<uint8_t> stream = encoder.finish();
        std::vector<uint8_t> back(symbols.size());
        LaneDecoder decoder(stream.data(), stream.size());
        decoder.take(alias, back.data(), back.size());
        decoder.finish();
        CHECK(back == symbols);
    }
    const uint8_t one = 1, zeros[] = {5, 0};
    CHECK(refuses<Corrupt>([&] { LaneDecoder(&one, 1); }));
    CHECK(refuses<Corrupt>([&] { LaneDecoder(zeros, 2); }));
}

void test_adaptive_streams() {
    Numbers numbers(18);
    for (int round = 0; round < 200; ++round) {
        std::vector<Geometry> geometries(static_cast<size_t>(numbers.below(4)));
        std::vector<std::vector<int64_t>> values;
        for (Geometry& geometry : geometries) {
            const bool is_plain = numbers.below(2) == 0;
            geometry.rows = static_cast<size_t>(1 + numbers.below(20));
            geometry.slices = static_cast<size_t>(1 + numbers.below(20));
            geometry.height = is_plain ? 1 : static_cast<size_t>(1 + numbers.below(9));
            geometry.width = is_plain ? 1 : static_cast<size_t>(1 + numbers.below(9));
            const uint64_t rarity = 1 + numbers.below(30);
            const auto places = 56 + numbers.below(8);
            values.emplace_back(geometry.num_elements());
            for (int64_t& value : values.back()) {
                if (numbers.below(rarity) != 0) continue;
                const auto size = static_cast<int64_t>(numbers.next() >> (numbers.below(50) == 0 ? 33 : places));
                value = numbers.below(2) == 0 ? size : -size;
            }
        }
        std::vector<AdaptiveArray> arrays;
        for (size_t i = 0; i < geometries.size(); ++i) arrays.push_back({geometries[i], values[i].data()});
        const std::vector<uint8_t> stream = encode_adaptive(arrays);
        std::vector<std::vector<int64_t>> back;
        std::vector<int64_t*> outputs;
        for (const std::vector<int64_t>& each : values) back.emplace_back(each.size(), -1);
        for (std::vector<int64_t>& each : back) outputs.push_back(each.data());
        decode_adaptive(stream.data(), stream.size(), geometries, outputs);
        CHECK(back == values);
        double bits = 0;
        for (const double share : adaptive_bits(arrays)) bits += share;
        CHECK(static_cast<double>(8 * stream.size()) < 1.01 * bits + 16);
        std::vector<uint8_t> longer = stream;
        longer.push_back(static_cast<uint8_t>(numbers.below(256)));
        CHECK(refuses<Corrupt>([&] {
            decode_adaptive(longer.data(), longer.size(), geometries, outputs);
            CHECK(back != values);
            throw Corrupt("another array's stream");
        }));
    }
    std::vector<int64_t> one = {int64_t{1} << 31};
    CHECK(refuses<InvalidArgument>([&] { encode_adaptive({{{1, 1, 1, 1}, one.data()}}); }));
    CHECK(refuses<InvalidArgument>([&] { adaptive_bits({{{1, 1, 1, 1}, one.data()}}); }));
    one[0] = std::numeric_limits<int64_t>::min();
    CHECK(refuses<InvalidArgument>([&] { encode_adaptive({{{1, 1, 1, 1}, one.data()}}); }));
}

void test_bodies() {
    Numbers numbers(15);
    for (int round = 0; round < 60; ++round) {
        const std::vector<uint8_t> bytes = numbers.bytes(static_cast<size_t>(40 + numbers.below(400)));
        check_round_trip(bytes.data(), bytes.size());
    }
}

// A 32-bit value just below 2^32 is, modulo 2^32, a small negative one: it must not be taken for that.
void test_great_unsigned_values_are_not_small_negative_ones() {
    ArraySpec spec;
    spec.num_rows = 1;
    spec.row_length = 40;
    spec.models.models.resize(1);
    IntegerModel& model = spec.models.models[0];
    model.has_table = true;
    model.table.low = -10;
    model.table.num_values = 20;
    for (size_t s = 0; s < 20; ++s) model.table.counts[s] = 400;
    model.table.counts[20] = 192;
    ArrayValues values;
    for (int64_t i = 0; i < 40; ++i) values.values.push_back(i % 2 ? i % 10 : (int64_t{1} << 32) - 1 - i);
    DecodingCase decoding;
    decoding.arrays = {spec};
    decoding.outputs.push_back(integers_output(spec, decoding.blocks));
    CHECK(decoded(encode({spec}, {values}, true, 1, kChunkBits).bytes, decoding, 1));
    CHECK(std::memcmp(decoding.blocks[0].get(), values.values.data(), 8 * values.values.size()) == 0);
}

// So many dropped bits leave a magnitude of 0 only, which is an element, but no shift of 32 bits.
void test_more_bits_may_be_dropped_than_an_element_has() {
    ArraySpec spec;
    spec.num_rows = 1;
    spec.row_length = 400;
    spec.models.models.resize(1);
    IntegerModel& model = spec.models.models[0];
    model.has_table = true;
    model.shift = 1;
    model.table.num_values = 1;
    model.table.counts[0] = 8191;
    model.table.counts[1] = 1;
    ArrayValues values;
    for (int64_t i = 0; i < 400; ++i) values.values.push_back(i % 3 == 0);
    const BodyBytes body = encode({spec}, {values}, true, 1, kChunkBits);
    DecodingCase decoding;
    decoding.arrays = {spec};
    Output output = integers_output(spec, decoding.blocks);
    output.kind = Output::Kind::kFields;
    output.width = 4;
    output.is_signed = true;
    for (const uint8_t drop : {31, 32, 40, 63}) {
        output.drops = {drop};
        decoding.outputs = {output};
        for (const Kernels* loops : all_loops()) {
            use_kernels(*loops);
            CHECK(decoded(body.bytes, decoding, 1));
            for (size_t i = 0; i < 400; ++i) CHECK(output.data[4 * i + 3] == (i % 3 == 0 ? 0x80 : 0));
        }
    }
}

// Direct tables are kept for 64 classes at a time: streams in lockstep must not lose theirs to one another.
void test_more_classes_than_tables_are_kept() {
    Numbers numbers(16);
    ArraySpec spec;
    spec.num_rows = 4000;
    spec.row_length = 64;
    spec.models.has_classes = true;
    for (int k = 0; k < 63; ++k) {
        const std::vector<uint8_t> bytes = numbers.bytes(80);
        ByteSource source(bytes.data(), bytes.size());
        IntegerModel model;
        model.has_table = true;
        model.table = table_from(source);
        for (int copies = 0; copies < 2; ++copies) spec.models.models.push_back(model);
    }
    ArrayValues values = values_of(spec, numbers);
    const BodyBytes body = encode({spec}, {values}, true, 1, 1 << 14);
    DecodingCase decoding;
    decoding.arrays = {spec};
    decoding.outputs.push_back(integers_output(spec, decoding.blocks));
    for (const Kernels* loops : all_loops()) {
        use_kernels(*loops);
        CHECK(decoded(body.bytes, decoding, 1));
        CHECK(std::memcmp(decoding.blocks[0].get(), values.values.data(), 8 * values.values.size()) == 0);
    }
}

// Tables that are none, and outputs of another size than their arrays.
void test_wrong_calls() {
    Numbers numbers(17);
    int refused = 0;
    for (int round = 0; round < 3000; ++round) {
        const std::vector<uint8_t> bytes = numbers.bytes(static_cast<size_t>(numbers.below(200)));
        ByteSource source(bytes.data(), bytes.size());
        const DecodingCase decoding = case_from(source, true);
        const std::vector<uint8_t> body = {0, 0, 0};  // one lane, empty streams, no raw bits
        refused += refuses<InvalidArgument>([&] { decoded(body, decoding, decoding.num_threads); }) ? 1 : 0;
    }
    CHECK(refused > 0);
}

// Whole numbers throughout: sums are exact in whatever order they are added. Arrays are exactly as large as they must be.
void test_trellises() {
    Numbers numbers(20);
    const TrellisShifts shifts = {0.3f, 0.2f, 0.25f, 0.25f, 0.2f};
    const auto quarters = [](const TrellisShifts& by_level, int32_t level) {
        return by_level[static_cast<size_t>(std::min(std::max(level, -2), 2) + 2)];
    };
    for (const size_t count : {1, 31, 32, 33, 511, 512, 513, 544, 1500}) {
        // On the heap, each of its exact size, so that a sanitizer sees what is read behind it.
        const std::vector<uint8_t> bytes = numbers.bytes(count);
        std::vector<float> weights(count);
        for (size_t i = 0; i < count; ++i) weights[i] = static_cast<float>(bytes[i]) * 0.05f - 6.4f;
        std::vector<unsigned char> words(4 * count);
        std::memcpy(words.data(), weights.data(), words.size());
        const Weights run = {words.data(), FloatType::kFloat32, count};
        const size_t row_length = count % 3 == 0 ? count / 3 : count;
        std::vector<int64_t> classes(count / row_length, 1);
        std::vector<float> prices(2 * kPrices, 0.0f);
        std::vector<int32_t> levels(count);
        CHECK(trellis_levels(run, 1.0, shifts, {prices.data(), 2, classes.data(), row_length}, levels.data()));
        std::vector<unsigned char> out(4 * count);
        CHECK(trellis_values(levels.data(), count, 1.0, shifts, FloatType::kFloat32, out.data()));
        double error = 0;
        for (size_t i = 0; i < count; ++i) {
            float value;
            std::memcpy(&value, out.data() + 4 * i, 4);
            const float point = static_cast<float>(levels[i]) + quarters(shifts, levels[i]);
            CHECK(value == point || value == -point);
            const double difference = static_cast<double>(value) - static_cast<double>(weights[i]);
            error += difference * difference;
        }
        const Distortion distortion = trellis_distortion(run, 1.0, shifts, levels.data());
        CHECK(distortion.finite && distortion.error == error);
        if (count > 500) CHECK(error < 0.08 * static_cast<double>(count));  // scalar: 1 / 12
        const TrellisSums sums = trellis_sums(run, 1.0, levels.data());
        CHECK(sums.count[0] + sums.count[1] + sums.count[2] + sums.count[3] == static_cast<int64_t>(count));
        weights[count / 2] = 2e6f;
        std::memcpy(words.data(), weights.data(), words.size());
        CHECK(!trellis_levels(run, 1.0, shifts, {prices.data(), 2, nullptr, count}, levels.data()));
        for (const FloatType type : {FloatType::kFloat16, FloatType::kBfloat16, FloatType::kFloat64}) {
            std::vector<unsigned char> others(width_of(type) * count);
            std::fill(levels.begin(), levels.end(), INT32_MIN);
            CHECK(trellis_values(levels.data(), count, 1e-5, shifts, type, others.data()));
            CHECK(!trellis_values(levels.data(), count, 1e38, shifts, type, others.data()));
        }
    }
}

// Levels as bytes at the end of the memory of their values become what they are as words, far ones too.
void test_levels_as_bytes() {
    Numbers numbers(27);
    const TrellisShifts shifts = {0.25f, 0.75f, -0.125f, 0.25f, 0.25f + 3 / 256.0f};
    CHECK(are_bytes_enough(0.5, shifts));
    CHECK(!are_bytes_enough(1e-37, shifts));
    CHECK(!are_bytes_enough(0.5, {0.25f, 0.25f, 0.0f, 0.25f, 0.25f}));
    CHECK(!are_bytes_enough(0.5, {0.25f, 0.25f, 0.25f, 0.25f, 0.3f}));
    for (const size_t count : {0, 1, 15, 16, 17, 511, 512, 513, 1500}) {
        std::vector<int32_t> levels(count);
        std::vector<FarLevel> far;
        for (size_t i = 0; i < count; ++i) {
            const auto size = static_cast<int>(numbers.below(10));
            levels[i] = size < 9 ? size - 4 : static_cast<int32_t>(numbers.next());
            if (std::abs(int64_t{levels[i]}) > 127) far.push_back({i, levels[i]});
        }
        for (const FloatType type :
             {FloatType::kFloat32, FloatType::kFloat16, FloatType::kBfloat16, FloatType::kFloat64}) {
            const size_t width = width_of(type);
            std::vector<unsigned char> expected(width * count), out(width * count);
            const bool finite = trellis_values(levels.data(), count, 0.5, shifts, type, expected.data());
            auto* const bytes = reinterpret_cast<int8_t*>(out.data() + (width - 1) * count);
            for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<int8_t>(levels[i] & 0xFF);
            const ByteLevels coded = {bytes, far.data(), far.size()};
            CHECK(trellis_values(coded, count, 0.5, shifts, type, out.data()) == finite);
            CHECK(!finite || out == expected);
        }
    }
}

// Values are the same from levels' lowest bytes and what is said of those that no byte holds.
void check_bytes(ColumnLevels decoded, size_t count, Numbers& numbers) {
    std::vector<int32_t> levels(decoded.levels, decoded.levels + count);
    for (int32_t& level : levels) {
        if (numbers.below(9) == 0) level = static_cast<int32_t>(numbers.below(6000)) - 3000;
        if (numbers.below(99) == 0) level = numbers.below(2) != 0 ? INT32_MAX : INT32_MIN;
        if (numbers.below(9) == 0) level = 127 - static_cast<int32_t>(numbers.below(256));
    }
    std::vector<int8_t> bytes;
    std::vector<FarLevel> far;
    for (size_t i = 0; i < count; ++i) {
        bytes.push_back(static_cast<int8_t>(levels[i]));
        if (levels[i] < -127 || levels[i] > 127) far.push_back({i, levels[i]});
    }
    bytes.shrink_to_fit();
    far.shrink_to_fit();
    const size_t num_models = decoded.models.num_models;
    // Of the second, points of level 0 are 0, and have a sign.
    const TrellisShifts all[] = {{-0.5f, 0.75f, 0.25f, 0.99609375f, 0.25f}, {0.25f, 0.25f, 0.0f, 0.25f, 0.5f}};
    const std::vector<float> small_steps(decoded.num_columns, 0x1p-118f), too_small(decoded.num_columns, 0x1p-119f);
    std::vector<unsigned char> room(96 * decoded.models.num_rows + 9000);
    const float* const own_steps = decoded.steps;
    for (const TrellisShifts& one : all) {
        std::vector<TrellisShifts> shifts(num_models, one);
        for (const float* steps : {own_steps, small_steps.data()}) {
            for (const FloatType type : {FloatType::kFloat32, FloatType::kFloat16, FloatType::kBfloat16, FloatType::kFloat64}) {
                decoded.shifts = shifts.data();
                decoded.steps = steps;
                decoded.levels = levels.data();
                decoded.small_levels = nullptr;
                decoded.num_far_levels = 0;
                std::vector<unsigned char> expected(width_of(type) * count), out(expected.size());
                const bool finite = column_values(decoded, type, expected.data());
                decoded.levels = nullptr;
                decoded.small_levels = bytes.data();
                decoded.far_levels = far.data();
                decoded.num_far_levels = far.size();
                for (const size_t size : {size_t{0}, room.size() / 4 * 4}) {
                    decoded.room = room.data();
                    decoded.room_size = size;
                    std::fill(out.begin(), out.end(), static_cast<unsigned char>(1));
                    CHECK(column_values(decoded, type, out.data()) == finite);
                    CHECK(out == expected);
                }
                decoded.steps = too_small.data();
                CHECK(refuses<InvalidArgument>([&] { column_values(decoded, type, out.data()); }));
            }
        }
        decoded.steps = own_steps;
        for (const float shift : {0.3f, 1.0f, -0.51f}) {
            shifts.back()[3] = shift;
            std::vector<unsigned char> out(4 * count);
            CHECK(refuses<InvalidArgument>([&] { column_values(decoded, FloatType::kFloat32, out.data()); }));
        }
    }
}

// Columns coded and decoded again. Each array is on the heap, of its exact size; states are carried from call to call.
void test_columns() {
    Numbers numbers(21);
    constexpr size_t kModels = 4, kScales = 3;
    const std::vector<TrellisShifts> shifts(kModels, TrellisShifts{0.3f, 0.2f, 0.25f, 0.25f, 0.2f});
    const std::vector<double> scales = {0.5, 1.5, 3.0};
    const std::vector<float> prices(kModels * kPrices, 0.01f);
    for (const size_t rows : {1, 15, 16, 17, 31, 33, 512, 513, 1100}) {
        for (const size_t num_paths : {0, 1, 2, 4, 8, 32}) {
            const auto size_below = [&](uint64_t most) { return 1 + static_cast<size_t>(numbers.below(most)); };
            // A block of rows is written up to 512 columns at a time.
            const size_t halves[] = {rows == 17 && num_paths == 2 ? 513 : size_below(20), size_below(3)};
            const size_t count = halves[0] + halves[1];
            std::vector<float> weights(count * rows);
            for (float& weight : weights) weight = static_cast<float>(numbers.below(256)) * 0.05f - 6.4f;
            std::vector<float> coded(weights), steps(count), row_units(rows, 1.0f), row_scales(rows, 1.0f);
            for (float& step : steps) step = 0.5f + static_cast<float>(numbers.below(4)) * 0.25f;
            std::vector<int32_t> row_codes(rows), codes(count), levels(count * rows);
            // From one code, which has a model of its own, to more than there are models.
            const auto spread = static_cast<int32_t>(1 + (rows + num_paths) % 6);
            for (int32_t& code : row_codes) {
                code = static_cast<int32_t>(numbers.below(static_cast<uint64_t>(spread))) - spread / 2;
            }
            std::sort(row_codes.begin(), row_codes.end());
            std::vector<int32_t> places(rows);
            const size_t turn = size_below(rows);
            for (size_t r = 0; r < rows; ++r) places[r] = static_cast<int32_t>((r + turn) % rows);
            std::vector<double> totals(4 * kModels);
            std::vector<int64_t> counts(4 * kModels);
            const ElementModels models = {row_codes.data(), rows, kModels};
            // Fed back, but so little that each row stays near its weights as well.
            const size_t num_sums = rows % 3;
            const std::vector<float> felt(rows * num_sums, 0.5f), shares(num_sums * rows, 1e-3f);
            const size_t segment = std::max<size_t>(32, 8 * num_paths);
            const ColumnSearch search = {models,           num_paths,     shifts.data(), prices.data(),
                                         row_units.data(), scales.data(), kScales,
                                         {num_sums, felt.data(), shares.data(), segment, 2}};
            TrellisStates states{};
            size_t first = 0;
            for (const size_t half : halves) {
                const std::vector<float> feedback(half * half);  // none, so that each column stays near its weights
                CHECK(code_columns(search, half, &coded[first * rows], feedback.data(), &steps[first], states,
                                   &codes[first], &levels[first * rows], {totals.data(), counts.data()}));
                first += half;
            }
            for (size_t i = 0; i < coded.size(); ++i) CHECK(std::abs(coded[i] - weights[i]) < 1.7f * steps[i / rows]);
            int64_t total = 0;
            for (const int64_t each : counts) total += each;
            CHECK(total == static_cast<int64_t>(count * rows));

            // Model after model, within one column after column.
            std::vector<int32_t> sorted;
            std::vector<size_t> starts = {0};
            for (size_t model = 0; model < kModels; ++model) {
                for (size_t i = 0; i < coded.size(); ++i) {
                    CHECK(codes[i / rows] >= 0 && codes[i / rows] <= static_cast<int32_t>(kScales));
                    if (models.of(codes[i / rows], i % rows) == model) sorted.push_back(levels[i]);
                }
                starts.push_back(sorted.size());
            }
            sorted.shrink_to_fit();
            ColumnLevels decoded = {models,        num_paths, sorted.data(), nullptr,       nullptr,
                                    0,             starts.data(), codes.data(), count,      shifts.data(),
                                    steps.data(),  row_scales.data(), places.data(), nullptr, 0};
            std::vector<unsigned char> out(4 * coded.size());
            CHECK(column_values(decoded, FloatType::kFloat32, out.data()));
            for (size_t i = 0; i < coded.size(); ++i) {
                float value;
                std::memcpy(&value, out.data() + 4 * (static_cast<size_t>(places[i % rows]) * count + i / rows), 4);
                CHECK(value == coded[i]);
            }
            for (const FloatType type : {FloatType::kFloat16, FloatType::kBfloat16, FloatType::kFloat64}) {
                std::vector<unsigned char> others(width_of(type) * coded.size());
                CHECK(column_values(decoded, type, others.data()));
            }

            // A model with a level less than it has elements, its neighbour with one more.
            for (size_t model = 0; model < kModels; ++model) {
                if (starts[model] == starts[model + 1]) continue;
                std::vector<size_t> fewer(starts);
                for (size_t after = model + 1; after <= kModels; ++after) --fewer[after];
                decoded.starts = fewer.data();
                CHECK(refuses<Corrupt>([&] { column_values(decoded, FloatType::kFloat32, out.data()); }));
            }

            decoded.starts = starts.data();
            check_bytes(decoded, sorted.size(), numbers);

            // Any 32 bits are a level; what is not finite is said.
            for (int32_t& level : sorted) level = numbers.below(2) != 0 ? INT32_MIN : INT32_MAX;
            CHECK(column_values(decoded, FloatType::kFloat64, std::vector<unsigned char>(8 * coded.size()).data()));
            std::fill(row_scales.begin(), row_scales.end(), 1e35f);
            CHECK(!column_values(decoded, FloatType::kFloat32, out.data()));

            // A quotient out of reach, or none at all, wherever it is.
            using Limits = std::numeric_limits<float>;
            for (const float far : {2e6f, -Limits::infinity(), Limits::quiet_NaN()}) {
                std::vector<float> column(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(rows));
                column[static_cast<size_t>(numbers.below(rows))] = far;
                const std::vector<float> alone(1);
                CHECK(!code_columns(search, 1, column.data(), alone.data(), steps.data(), states, codes.data(),
                                    levels.data(), {totals.data(), counts.data()}));
            }
        }
    }
}

// What a column is rounded by is taken off the columns after it.
void test_feedback() {
    const std::vector<TrellisShifts> shifts(1, TrellisShifts{});
    const std::vector<float> prices(kPrices, 0.0f), steps = {1.0f, 1.0f, 1.0f}, row_units = {1.0f, 1.0f};
    const std::vector<int32_t> row_codes = {0, 0};
    const std::vector<float> feedback = {0.0f, 0.5f, -1.0f, 0.0f, 0.0f, 2.0f, 0.0f, 0.0f, 0.0f};
    const ElementModels models = {row_codes.data(), 2, 1};
    const ColumnSearch search = {models, 0, shifts.data(), prices.data(), row_units.data(), nullptr, 0, {}};
    std::vector<float> columns = {2.25f, -3.75f, 1.0f, 0.25f, 0.25f, 0.75f};
    std::vector<int32_t> codes(3), levels(6);
    std::vector<double> totals(4);
    std::vector<int64_t> counts(4);
    TrellisStates states{};
    CHECK(code_columns(search, 3, columns.data(), feedback.data(), steps.data(), states, codes.data(), levels.data(),
                       {totals.data(), counts.data()}));
    // 2 and -4; then 1 - 2 / 2 and 0.25 + 4 / 2; then 0.25 + 2 - 0 and 0.75 - 4 - 2 * 2.
    CHECK((levels == std::vector<int32_t>{2, -4, 0, 2, 2, -7}));
    CHECK((columns == std::vector<float>{2, -4, 0, 2, 2, -7}));
    CHECK((counts == std::vector<int64_t>{1, 0, 0, 5}));
    CHECK(totals[0] == 0 && totals[3] == 0.25 - 0.25 + 0.25 + 0.25 + 0.25);
}

// What rows are rounded by, all together, is taken off the rows after them: by a sixteenth, of those of the next segment.
void test_row_feedback() {
    constexpr size_t kRows = 64, kSegment = 32;
    const std::vector<TrellisShifts> shifts(1, TrellisShifts{});
    const std::vector<float> prices(kPrices, 0.0f), row_units(kRows, 1.0f), felt(kRows, 1.0f), steps = {0.5f}, feedback(1);
    std::vector<float> shares(kRows, 0.0f), columns(kRows, 0.125f);
    std::fill(shares.begin() + kSegment, shares.end(), 0.0625f);
    const std::vector<int32_t> row_codes(kRows, 0);
    const ElementModels models = {row_codes.data(), kRows, 1};
    const ColumnSearch search = {models, 0, shifts.data(), prices.data(), row_units.data(), nullptr, 0,
                                 {1, felt.data(), shares.data(), kSegment, 1}};
    std::vector<int32_t> codes(1), levels(kRows);
    std::vector<double> totals(4);
    std::vector<int64_t> counts(4);
    TrellisStates states{};
    CHECK(code_columns(search, 1, columns.data(), feedback.data(), steps.data(), states, codes.data(), levels.data(),
                       {totals.data(), counts.data()}));
    // A quarter of a step is none, thirty-two times: the others are half a step more, and round up.
    for (size_t r = 0; r < kRows; ++r) CHECK(levels[r] == (r < kSegment ? 0 : 1));
    for (size_t r = 0; r < kRows; ++r) CHECK(columns[r] == (r < kSegment ? 0.0f : 0.5f));
}

void test_sparse_products() {
    Numbers numbers(18);
    for (int round = 0; round < 400; ++round) {
        const auto rows = static_cast<size_t>(numbers.below(9)), columns = static_cast<size_t>(1 + numbers.below(90));
        const auto width = static_cast<size_t>(numbers.below(round % 4 == 0 ? 2 : 300));
        const size_t num_bytes = (columns + 7) / 8;
        const uint64_t sparsity = 1 + numbers.below(4);
        std::vector<uint8_t> bits(rows * num_bytes), wide(rows), values;
        std::vector<int32_t> starts(1);
        std::vector<float> dense(rows * columns), in(columns * width), expected(rows * width), out(rows * width);
        for (float& value : in) value = static_cast<float>(numbers.below(17)) - 8.0F;
        for (size_t row = 0; row < rows; ++row) {
            wide[row] = static_cast<uint8_t>(numbers.below(2));
            size_t count = 0;
            for (size_t column = 0; column < columns; ++column) {
                if (numbers.below(sparsity) != 0) continue;
                const int value = static_cast<int>(numbers.below(wide[row] != 0 ? 256 : 16)) - (wide[row] != 0 ? 128 : 8);
                dense[row * columns + column] = static_cast<float>(value);
                bits[row * num_bytes + column / 8] |= static_cast<uint8_t>(1u << column % 8);
                if (wide[row] != 0) {
                    values.push_back(static_cast<uint8_t>(value));
                } else if (count % 2 == 0) {
                    values.push_back(static_cast<uint8_t>(value & 15));
                } else {
                    values.back() = static_cast<uint8_t>(values.back() | (value & 15) << 4);
                }
                ++count;
            }
            starts.push_back(static_cast<int32_t>(values.size()));
            for (size_t i = 0; i < width; ++i) {
                for (size_t column = 0; column < columns; ++column) {
                    expected[row * width + i] += dense[row * columns + column] * in[column * width + i];
                }
            }
        }
        const size_t num_value_bytes = values.size();
        values.resize(num_value_bytes + kSparsePadding, 0xA5);
        SparseMatrix matrix{rows, columns, bits.data(), starts.data(), wide.data(), values.data(), num_value_bytes};
        CHECK(is_sound(matrix));
        for (const Kernels* loops : all_loops()) {
            use_kernels(*loops);
            for (size_t num_threads = 1; num_threads <= 3; ++num_threads) {
                std::fill(out.begin(), out.end(), -1.0F);
                multiply(matrix, in.data(), width, num_threads, out.data());
                CHECK(out == expected);
            }
        }
        if (num_value_bytes != 0) {
            matrix.num_value_bytes -= 1;
            CHECK(!is_sound(matrix));
            matrix.num_value_bytes += 1;
            starts[rows] += 1;
            CHECK(!is_sound(matrix));
        }
    }
}

struct Test {
    const char* proposition;
    void (*run)();
};

constexpr Test kTests[] = {
    {"tables lay out every slot once and refuse frequencies that are none", test_tables},
    {"bits come back, and beyond their end there are zeros", test_bits},
    {"escapes come back, and a cut code is refused", test_escapes},
    {"integers of variable length come back, in one form only", test_variable_length_integers},
    {"one lane gives its symbols back", test_single_lane},
    {"decoding loops all do what the checked one does", test_decoding_loops},
    {"encoding loops all do what the plain one does", test_encoding_loops},
    {"encoding loops divide exactly at the limits of states, for every frequency",
     test_encoding_at_the_limits_of_states},
    {"mapping loops all write the same bytes", test_mapping_loops},
    {"placing loops all give the same symbols", test_placing_loops},
    {"packing loops write the bits that a writer does", test_packing_loops},
    {"joining loops give the elements of their values", test_joining_loops},
    {"adaptive streams give their integers back, and no other stream does", test_adaptive_streams},
    {"bodies come back on every instruction set and number of threads, damaged ones as refused", test_bodies},
    {"great unsigned values are not small negative ones", test_great_unsigned_values_are_not_small_negative_ones},
    {"more bits may be dropped than an element has", test_more_bits_may_be_dropped_than_an_element_has},
    {"more classes may run in lockstep than direct tables are kept", test_more_classes_than_tables_are_kept},
    {"wrong descriptions are refused by name", test_wrong_calls},
    {"levels of a trellis are near their weights, and nothing behind their arrays is read", test_trellises},
    {"levels as bytes become what they are as words", test_levels_as_bytes},
    {"columns are near their weights and come back as they were left, and nothing behind their arrays is read",
     test_columns},
    {"what a column is rounded by is taken off those after it", test_feedback},
    {"what rows are rounded by is taken off those after them", test_row_feedback},
    {"sparse products are those of the dense matrix, and nothing behind their arrays is read", test_sparse_products},
};

}  // namespace
}  // namespace fewbits

int main() {
    for (const fewbits::Kernels* loops : fewbits::all_loops()) std::printf("inner loops: %s\n", loops->name);
    std::printf("avx512 of the last is native/core/wide_avx512.cpp on emulated instructions\n");
    for (const fewbits::Test& test : fewbits::kTests) {
        std::printf("%s\n", test.proposition);
        std::fflush(stdout);
        test.run();
    }
    std::printf("%zu propositions hold\n", sizeof fewbits::kTests / sizeof fewbits::kTests[0]);
    return 0;
}
