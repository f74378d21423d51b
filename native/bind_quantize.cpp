// fewbits._core: quantisation and float fields. Python allocates what is filled; shapes are checked here, once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "bind_arrays.h"
#include "core/fields.h"
#include "core/quantize.h"
#include "core/trellis.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

using Bits = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

// The words of a weight array, in any alignment; those of all other arrays are NumPy's own and aligned.
Weights weights_of(const Bits& bits, int type) {
    require(type >= 0 && type <= 3, "a float type is not one that is coded lossily.");
    const Weights weights{static_cast<const unsigned char*>(bits.data()), static_cast<FloatType>(type), bits.size()};
    require(bits.itemsize() == width_of(weights.type), "an array of words does not have its type's width.");
    return weights;
}

void require_step(double step) {
    require(step > 0 && step <= static_cast<double>(std::numeric_limits<float>::max()),
            "a step must be above 0 and within float32's range.");
}

std::tuple<bool, double, double> bound_measure(const Bits& bits, int type, const Out<int64_t>& bins) {
    const Weights weights = weights_of(bits, type);
    require_size(bins, kMagnitudeBins);
    nb::gil_scoped_release release;
    const Extent extent = measure(weights, bins.data());
    return {extent.finite, extent.greatest, extent.energy};
}

bool bound_round_levels(const Bits& bits, int type, double step, const Out<int32_t>& levels) {
    const Weights weights = weights_of(bits, type);
    require_size(levels, weights.count);
    require_step(step);
    nb::gil_scoped_release release;
    return round_levels(weights, step, levels.data());
}

void bound_row_magnitudes(const In<int32_t>& levels, const Out<int64_t>& sums) {
    require(levels.ndim() == 2, "a matrix is expected.");
    require_size(levels, levels.size());
    require_size(sums, levels.shape(0));
    nb::gil_scoped_release release;
    row_magnitudes(levels.data(), levels.shape(0), levels.shape(1), sums.data());
}

// gains (K, n) and their first levels `low` and numbers `counts` (K,) belong to K classes of rows, `classes` (R,); one
// class needs none.
void bound_rate_distortion_round(const Bits& bits, int type, double step, const In<int32_t>& levels,
                                 const std::optional<In<int64_t>>& classes, const In<int64_t>& low,
                                 const In<int64_t>& counts, const In<double>& gains, const Out<int32_t>& rounded) {
    const Weights weights = weights_of(bits, type);
    require(levels.ndim() == 2 && gains.ndim() == 2, "a matrix is expected.");
    require_size(levels, weights.count);
    require_size(rounded, weights.count);
    require_step(step);
    const size_t num_classes = gains.shape(0), stride = gains.shape(1);
    require_size(gains, gains.size());
    require_size(low, num_classes);
    require_size(counts, num_classes);
    require(num_classes >= 1 && stride <= kMostGains, "there are too many gains, or none.");
    for (size_t k = 0; k < num_classes; ++k) {
        require(counts.data()[k] >= 0 && static_cast<uint64_t>(counts.data()[k]) <= stride, "gains are missing.");
    }
    const size_t num_rows = classes ? levels.shape(0) : 1;
    if (classes) {
        require_size(*classes, num_rows);
        for (size_t row = 0; row < num_rows; ++row) {
            const int64_t index = classes->data()[row];
            require(index >= 0 && static_cast<uint64_t>(index) < num_classes, "a row's class has no gains.");
        }
    }
    nb::gil_scoped_release release;
    const size_t row_length = num_rows ? weights.count / num_rows : 0, width = width_of(weights.type);
    for (size_t row = 0; row < num_rows; ++row) {
        const size_t index = classes ? static_cast<size_t>(classes->data()[row]) : 0, start = row * row_length;
        const Gains of_class{low.data()[index], static_cast<size_t>(counts.data()[index]),
                             gains.data() + index * stride};
        const Weights of_row{weights.bits + start * width, weights.type, row_length};
        rate_distortion_round(of_row, step, levels.data() + start, of_class, rounded.data() + start);
    }
}

std::pair<std::array<double, 3>, std::array<int64_t, 3>> bound_centroid_sums(const Bits& bits, int type, double step,
                                                                             const In<int32_t>& levels) {
    const Weights weights = weights_of(bits, type);
    require_size(levels, weights.count);
    require_step(step);
    nb::gil_scoped_release release;
    const CentroidSums sums = centroid_sums(weights, step, levels.data());
    return {sums.total, sums.count};
}

std::tuple<bool, double, double> bound_measure_distortion(const Bits& bits, int type, double step,
                                                          const In<int32_t>& levels,
                                                          const std::array<int, 3>& centroids) {
    const Weights weights = weights_of(bits, type);
    require_size(levels, weights.count);
    require_step(step);
    nb::gil_scoped_release release;
    const Distortion distortion = measure_distortion(weights, step, levels.data(), centroids);
    return {distortion.finite, distortion.error, distortion.energy};
}

// prices (K, kPrices) belong to K classes of rows, `classes` (R,); one class needs none.
bool bound_trellis_levels(const Bits& bits, int type, double step, const TrellisShifts& shifts,
                          const In<float>& prices, const std::optional<In<int64_t>>& classes,
                          const Out<int32_t>& levels) {
    const Weights weights = weights_of(bits, type);
    require(levels.ndim() == 2 && prices.ndim() == 2, "a matrix is expected.");
    require_size(levels, weights.count);
    require_size(prices, prices.size());
    require(prices.shape(0) >= 1 && prices.shape(1) == kPrices, "prices are missing.");
    require_step(step);
    TrellisPrices by_class{prices.data(), prices.shape(0), nullptr, levels.shape(1)};
    if (classes) {
        require_size(*classes, levels.shape(0));
        for (size_t row = 0; row < levels.shape(0); ++row) {
            const int64_t index = classes->data()[row];
            require(index >= 0 && static_cast<uint64_t>(index) < prices.shape(0), "a row's class has no prices.");
        }
        by_class.classes = classes->data();
    }
    nb::gil_scoped_release release;
    return trellis_levels(weights, step, shifts, by_class, levels.data());
}

std::pair<std::array<double, 4>, std::array<int64_t, 4>> bound_trellis_sums(const Bits& bits, int type, double step,
                                                                            const In<int32_t>& levels) {
    const Weights weights = weights_of(bits, type);
    require_size(levels, weights.count);
    require_step(step);
    nb::gil_scoped_release release;
    const TrellisSums sums = trellis_sums(weights, step, levels.data());
    return {sums.total, sums.count};
}

std::tuple<bool, double, double> bound_trellis_distortion(const Bits& bits, int type, double step,
                                                          const TrellisShifts& shifts, const In<int32_t>& levels) {
    const Weights weights = weights_of(bits, type);
    require_size(levels, weights.count);
    require_step(step);
    nb::gil_scoped_release release;
    const Distortion distortion = trellis_distortion(weights, step, shifts, levels.data());
    return {distortion.finite, distortion.error, distortion.energy};
}

Words words_of(const Bits& bits) {
    require(bits.ndim() == 2, "a matrix is expected.");
    const size_t width = bits.itemsize();
    require(width == 1 || width == 2 || width == 4 || width == 8, "words have 1, 2, 4 or 8 bytes.");
    return {static_cast<const unsigned char*>(bits.data()), width, bits.shape(0), bits.shape(1)};
}

std::pair<bool, uint64_t> bound_survey_fields(const Bits& bits, int mantissa, const Out<uint64_t>& magnitudes,
                                              const Out<uint64_t>& exponents) {
    const Words words = words_of(bits);
    // An exponent of at most 11 bits: sums of 2^16 fit in 32.
    const int magnitude_bits = 8 * static_cast<int>(words.width) - 1;
    require(mantissa >= 0 && mantissa < magnitude_bits && magnitude_bits - mantissa <= 11, "no float has this mantissa.");
    require_size(magnitudes, words.num_rows);
    require_size(exponents, words.num_rows);
    nb::gil_scoped_release release;
    const FieldSurvey survey = survey_fields(words, mantissa, magnitudes.data(), exponents.data());
    return {survey.any_sign, survey.num_nonzero};
}

template <class T>
void bound_field_integers(const Bits& bits, const In<uint64_t>& drops, bool with_sign, const Out<T>& integers) {
    const Words words = words_of(bits);
    require_size(drops, words.num_rows);
    require_size(integers, words.num_rows * words.row_length);
    require((words.width == 8) == (sizeof(T) == 8), "integers of 64 bits belong to floats of 64 bits.");
    for (size_t row = 0; row < words.num_rows; ++row) require(drops.data()[row] < 8 * words.width, "all bits dropped.");
    nb::gil_scoped_release release;
    field_integers(words, drops.data(), with_sign, integers.data());
}

}  // namespace

void bind_quantize(nb::module_& module) {
    using nb::arg;
    module.def("measure", &bound_measure, arg("bits"), arg("type"), arg("bins").noconvert());
    module.def("round_levels", &bound_round_levels, arg("bits"), arg("type"), arg("step"), arg("levels").noconvert());
    module.def("row_magnitudes", &bound_row_magnitudes, arg("levels").noconvert(), arg("sums").noconvert());
    module.def("rate_distortion_round", &bound_rate_distortion_round, arg("bits"), arg("type"), arg("step"),
               arg("levels").noconvert(), arg("classes").none(), arg("low"), arg("counts"), arg("gains"),
               arg("rounded").noconvert());
    module.def("centroid_sums", &bound_centroid_sums, arg("bits"), arg("type"), arg("step"),
               arg("levels").noconvert());
    module.def("measure_distortion", &bound_measure_distortion, arg("bits"), arg("type"), arg("step"),
               arg("levels").noconvert(), arg("centroids"));
    module.def("trellis_levels", &bound_trellis_levels, arg("bits"), arg("type"), arg("step"), arg("shifts"),
               arg("prices"), arg("classes").none(), arg("levels").noconvert());
    module.def("trellis_sums", &bound_trellis_sums, arg("bits"), arg("type"), arg("step"), arg("levels"));
    module.def("trellis_distortion", &bound_trellis_distortion, arg("bits"), arg("type"), arg("step"), arg("shifts"),
               arg("levels"));
    module.def("survey_fields", &bound_survey_fields, arg("bits"), arg("mantissa"), arg("magnitudes").noconvert(),
               arg("exponents").noconvert());
    module.def("field_integers", &bound_field_integers<uint32_t>, arg("bits"), arg("drops"), arg("with_sign"),
               arg("integers").noconvert());
    module.def("field_integers", &bound_field_integers<int64_t>, arg("bits"), arg("drops"), arg("with_sign"),
               arg("integers").noconvert());
}

}  // namespace fewbits
