// fewbits._core: matrices coded by columns. Python allocates what is filled; shapes are checked here, once.
#include <algorithm>
#include <vector>

#include "bind_arrays.h"
#include "bind_models.h"
#include "core/column_payload.h"
#include "core/columns.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

static_assert(sizeof(TrellisShifts) == 5 * sizeof(float));

// Models, and the shifts (K, 5) of their values.
ElementModels models_of(const In<int32_t>& row_codes, const In<float>& shifts, size_t num_paths) {
    require(shifts.ndim() == 2 && shifts.shape(0) >= 1 && shifts.shape(1) == 5, "shifts are missing.");
    require_size(shifts, shifts.size());
    require_size(row_codes, row_codes.size());
    require(num_paths <= kMostPaths && (num_paths & (num_paths - 1)) == 0, "paths are 0, 1, 2, 4, 8, 16 or 32.");
    return {row_codes.data(), row_codes.size(), shifts.shape(0)};
}

const TrellisShifts* shifts_of(const In<float>& shifts) { return reinterpret_cast<const TrellisShifts*>(shifts.data()); }

bool bound_code_columns(const Out<float>& columns, const In<float>& feedback, const In<float>& steps,
                        const In<int32_t>& row_codes, const In<float>& row_units, const In<double>& scales,
                        const In<float>& shifts, const In<float>& prices, const Out<uint32_t>& states,
                        const Out<int32_t>& codes, const Out<int32_t>& levels, const Out<double>& totals,
                        const Out<int64_t>& counts, const In<float>& felt, const In<float>& shares, size_t segment,
                        size_t looked_at) {
    const ElementModels models = models_of(row_codes, shifts, states.size());
    const size_t count = steps.size();
    require(models.num_rows > 0 && count > 0, "a matrix is empty.");
    require_size(columns, count * models.num_rows);
    require_size(feedback, count * count);
    require_size(steps, count);
    require_size(row_units, models.num_rows);
    require_size(scales, scales.size());
    require_size(prices, models.num_models * kPrices);
    require_size(states, states.size());
    require_size(codes, count);
    require_size(levels, count * models.num_rows);
    require_size(totals, 4 * models.num_models);
    require_size(counts, 4 * models.num_models);
    const size_t num_sums = felt.size() / models.num_rows;
    require_size(felt, models.num_rows * num_sums);
    require_size(shares, models.num_rows * num_sums);
    require(segment >= 1 && segment <= kWeightBlock && segment % std::max<size_t>(1, states.size()) == 0 && looked_at >= 1,
            "a segment is not whole steps of all paths.");
    TrellisStates carried{};
    for (size_t path = 0; path < states.size(); ++path) carried[path] = states.data()[path] & 7;
    nb::gil_scoped_release release;
    const ColumnSearch search{models,           states.size(),  shifts_of(shifts), prices.data(),
                              row_units.data(), scales.data(), scales.size(),
                              {num_sums, felt.data(), shares.data(), segment, looked_at}};
    const bool reached = code_columns(search, count, columns.data(), feedback.data(), steps.data(), carried,
                                      codes.data(), levels.data(), {totals.data(), counts.data()});
    std::copy_n(carried.begin(), states.size(), states.data());
    return reached;
}

void bound_count_models(const In<int32_t>& codes, const In<int32_t>& row_codes, const Out<int64_t>& counts) {
    require(counts.size() >= 1, "models are missing.");
    require_size(counts, counts.size());
    require_size(codes, codes.size());
    require_size(row_codes, row_codes.size());
    count_models({row_codes.data(), row_codes.size(), counts.size()}, codes.data(), codes.size(), counts.data());
}

bool bound_column_values(const In<int32_t>& levels, const In<int64_t>& starts, const In<int32_t>& codes,
                         const In<int32_t>& row_codes, const In<float>& steps, const In<float>& row_scales,
                         const In<int32_t>& places, const In<float>& shifts, size_t num_paths, int type,
                         const nb::ndarray<nb::c_contig, nb::device::cpu>& bits) {
    const ElementModels models = models_of(row_codes, shifts, num_paths);
    require(type >= 0 && type <= 3, "a float type is not one that is coded lossily.");
    require(bits.itemsize() == width_of(static_cast<FloatType>(type)), "an array of words does not have its type's width.");
    require_size(levels, levels.size());
    require_size(codes, codes.size());
    require_size(steps, codes.size());
    require_size(row_scales, models.num_rows);
    require_size(places, models.num_rows);
    require(std::is_sorted(row_codes.data(), row_codes.data() + models.num_rows), "codes of rows do not ascend.");
    require(std::all_of(places.data(), places.data() + models.num_rows,
                        [&](int32_t place) { return static_cast<uint32_t>(place) < models.num_rows; }),
            "a row has no place.");
    require(bits.size() == levels.size() && bits.size() == models.num_rows * codes.size(), "two arrays differ in size.");
    require_size(starts, models.num_models + 1);
    std::vector<size_t> first(starts.data(), starts.data() + starts.size());
    require(first.front() == 0 && first.back() == levels.size() && std::is_sorted(first.begin(), first.end()),
            "levels do not begin and end as they should.");
    nb::gil_scoped_release release;
    const ColumnLevels coded{models,       num_paths,         levels.data(), nullptr,           nullptr, 0,
                             first.data(), codes.data(),      codes.size(),  shifts_of(shifts), steps.data(),
                             row_scales.data(), places.data(), nullptr, 0};
    return column_values(coded, static_cast<FloatType>(type), static_cast<unsigned char*>(bits.data()));
}

// Whether all values are finite; None if they are to be decoded as is written out, which says what is wrong, if it is.
nb::object bound_decode_columns(nb::handle data, size_t num_rows, size_t num_columns, const In<float>& scales,
                                const nb::callable& shipped_table, const Out<int32_t>& levels, const Out<int32_t>& points,
                                int type, const nb::ndarray<nb::c_contig, nb::device::cpu>& bits, int num_threads) {
    require(type >= 0 && type <= 3, "a float type is not one that is coded lossily.");
    require(bits.itemsize() == width_of(static_cast<FloatType>(type)), "an array of words does not have its type's width.");
    require(num_rows > 0 && bits.size() / num_rows == num_columns && bits.size() % num_rows == 0 && num_columns > 0,
            "two arrays differ in size.");
    require_size(scales, kNumScales);
    require(4 * levels.size() >= bits.size(), "there is no room for levels.");
    const HeldBytes bytes(data);
    ColumnResult result;
    try {
        const ColumnPayload payload = read_column_payload(
            bytes.data(), bytes.size(), [&](int code) { return table_of(shipped_table(code)); });
        const ColumnRoom room = {reinterpret_cast<int8_t*>(levels.data()), reinterpret_cast<unsigned char*>(points.data()),
                                 4 * points.size()};
        nb::gil_scoped_release release;
        result = decode_column_payload(payload, num_rows, num_columns, scales.data(), room, static_cast<FloatType>(type),
                                       static_cast<unsigned char*>(bits.data()), num_threads);
    } catch (const std::runtime_error&) {  // Corrupt, InvalidArgument
        return nb::none();
    }
    if (result == ColumnResult::kTooFar) return nb::none();
    return nb::bool_(result == ColumnResult::kWritten);
}

}  // namespace

void bind_columns(nb::module_& module) {
    using nb::arg;
    module.def("code_columns", &bound_code_columns, arg("columns").noconvert(), arg("feedback"), arg("steps"),
               arg("row_codes"), arg("row_units"), arg("scales"), arg("shifts"), arg("prices"),
               arg("states").noconvert(), arg("codes").noconvert(), arg("levels").noconvert(),
               arg("totals").noconvert(), arg("counts").noconvert(), arg("felt"), arg("shares"), arg("segment"),
               arg("looked_at"));
    module.def("decode_columns", &bound_decode_columns, arg("data"), arg("num_rows"), arg("num_columns"), arg("scales"),
               arg("shipped_table"), arg("levels").noconvert(), arg("points").noconvert(), arg("type"),
               arg("bits").noconvert(), arg("num_threads"));
    module.def("count_models", &bound_count_models, arg("codes"), arg("row_codes"), arg("counts").noconvert());
    module.def("column_values", &bound_column_values, arg("levels"), arg("starts"), arg("codes"), arg("row_codes"),
               arg("steps"), arg("row_scales"), arg("places"), arg("shifts"), arg("num_paths"), arg("type"),
               arg("bits").noconvert());
}

}  // namespace fewbits
