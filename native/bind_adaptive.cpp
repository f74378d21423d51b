// fewbits._core: the adaptive stream. Geometries cross as tuples (rows, slices, height, width) without zeros.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <vector>

#include "core/adaptive.h"
#include "core/errors.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

using Shape = std::array<size_t, 4>;
using In = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<int64_t, nb::c_contig, nb::device::cpu>;

template <class Array>
Geometry geometry_of(const Shape& shape, const Array& array) {
    // Divided, not multiplied: a product may wrap.
    size_t left = array.size();
    for (const size_t dimension : shape) {
        if (dimension == 0 || left % dimension != 0) throw InvalidArgument("an array is not laid out as said.");
        left /= dimension;
    }
    if (left != 1 || reinterpret_cast<uintptr_t>(array.data()) % alignof(int64_t) != 0) {
        throw InvalidArgument("an array is not laid out as said.");
    }
    return {shape[0], shape[1], shape[2], shape[3]};
}

std::vector<AdaptiveArray> arrays_of(const std::vector<In>& arrays, const std::vector<Shape>& shapes) {
    if (arrays.size() != shapes.size()) throw InvalidArgument("each array needs a geometry.");
    std::vector<AdaptiveArray> result;
    for (size_t i = 0; i < arrays.size(); ++i) result.push_back({geometry_of(shapes[i], arrays[i]), arrays[i].data()});
    return result;
}

nb::bytes bound_encode_adaptive(const std::vector<In>& arrays, const std::vector<Shape>& shapes) {
    const std::vector<AdaptiveArray> coded = arrays_of(arrays, shapes);
    std::vector<uint8_t> bytes;
    {
        nb::gil_scoped_release release;
        bytes = encode_adaptive(coded);
    }
    return nb::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void bound_decode_adaptive(const nb::bytes& data, const std::vector<Out>& arrays, const std::vector<Shape>& shapes) {
    if (arrays.size() != shapes.size()) throw InvalidArgument("each array needs a geometry.");
    std::vector<Geometry> geometries;
    std::vector<int64_t*> values;
    for (size_t i = 0; i < arrays.size(); ++i) {
        geometries.push_back(geometry_of(shapes[i], arrays[i]));
        values.push_back(arrays[i].data());
    }
    const auto* bytes = static_cast<const uint8_t*>(data.data());
    const size_t size = data.size();
    nb::gil_scoped_release release;
    decode_adaptive(bytes, size, geometries, values);
}

std::vector<double> bound_adaptive_bits(const std::vector<In>& arrays, const std::vector<Shape>& shapes) {
    const std::vector<AdaptiveArray> coded = arrays_of(arrays, shapes);
    nb::gil_scoped_release release;
    return adaptive_bits(coded);
}

}  // namespace

void bind_adaptive(nb::module_& module) {
    module.def("encode_adaptive", &bound_encode_adaptive, nb::arg("arrays"), nb::arg("geometries"));
    module.def("decode_adaptive", &bound_decode_adaptive, nb::arg("data"), nb::arg("arrays"), nb::arg("geometries"));
    module.def("adaptive_bits", &bound_adaptive_bits, nb::arg("arrays"), nb::arg("geometries"));
}

}  // namespace fewbits
