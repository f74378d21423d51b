// fewbits._core: bodies of payloads. Models cross as the objects of fewbits.coder.integers, read by their attributes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bind_arrays.h"
#include "bind_models.h"
#include "core/body.h"
#include "core/errors.h"
#include "core/memory.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

using AnyArray = nb::ndarray<nb::c_contig, nb::device::cpu>;
using ReadArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

// What decoded integers are written to; holds the array.
struct BoundOutput {
    Output output;
    AnyArray array;
};

BoundOutput output_of(const AnyArray& array, Output::Kind kind) {
    BoundOutput bound{{}, array};
    const size_t width = array.itemsize();
    if (width != 1 && width != 2 && width != 4 && width != 8) {
        throw InvalidArgument("an output's elements must be of 1, 2, 4 or 8 bytes.");
    }
    bound.output.kind = kind;
    bound.output.width = static_cast<int>(width);
    bound.output.data = static_cast<uint8_t*>(array.data());
    bound.output.num_elements = array.size();
    return bound;
}

BoundOutput integers_output(const AnyArray& array) { return output_of(array, Output::Kind::kIntegers); }

BoundOutput floats_output(const AnyArray& array, const std::string& name, int type, double step,
                          const std::optional<nb::tuple>& centroids) {
    BoundOutput bound = output_of(array, Output::Kind::kFloats);
    const int widths[] = {4, 2, 2, 8};
    if (type < 0 || type > 3 || widths[type] != bound.output.width) {
        throw InvalidArgument("an output's elements do not have the width of their float type.");
    }
    bound.output.name = name;
    bound.output.type = static_cast<FloatType>(type);
    bound.output.step = static_cast<float>(step);
    if (centroids) {
        bound.output.has_centroids = true;
        for (size_t i = 0; i < 3; ++i) bound.output.centroids[i] = nb::cast<int8_t>((*centroids)[i]);
    }
    return bound;
}

BoundOutput trellis_output(const AnyArray& array, const std::string& name, int type, double step,
                           const std::array<float, 5>& shifts) {
    BoundOutput bound = floats_output(array, name, type, step, std::nullopt);
    require(step > 0 && std::isfinite(step), "a step must be positive and finite.");
    require(array.itemsize() != 4 || reinterpret_cast<uintptr_t>(array.data()) % 4 == 0, "an array is not aligned.");
    bound.output.kind = Output::Kind::kTrellis;
    bound.output.shifts = shifts;
    return bound;
}

BoundOutput fields_output(const AnyArray& array, const std::string& name, bool is_signed, const nb::bytes& drops) {
    BoundOutput bound = output_of(array, Output::Kind::kFields);
    bound.output.name = name;
    bound.output.is_signed = is_signed;
    const auto* bytes = static_cast<const uint8_t*>(drops.data());
    bound.output.drops.assign(bytes, bytes + drops.size());
    for (const uint8_t drop : bound.output.drops) {
        if (drop > 63) throw InvalidArgument("more than 63 bits are dropped.");
    }
    return bound;
}

IntegerModel model_of(nb::handle object) {
    IntegerModel model;
    const nb::object table = object.attr("table");
    model.has_table = !table.is_none();
    if (model.has_table) model.table = table_of(table);
    model.shift = nb::cast<int>(object.attr("shift"));
    model.centre = nb::cast<int64_t>(object.attr("centre"));
    if (model.shift < 0 || model.shift > 63) throw InvalidArgument("an integer model's shift is not 0 to 63.");
    return model;
}

ModelSet models_of(nb::handle object) {
    ModelSet set;
    for (nb::handle model : object.attr("models")) set.models.push_back(model_of(model));
    if (set.models.empty()) throw InvalidArgument("a model set has no models.");
    const nb::object class_model = object.attr("class_model");
    set.has_classes = !class_model.is_none();
    if (set.has_classes) set.class_model = model_of(class_model);
    return set;
}

void decode(nb::handle data, const std::vector<ArraySpec>& specs, const std::vector<Output>& outputs, int threads) {
    const HeldBytes bytes(data);
    nb::gil_scoped_release release;
    decode_body(bytes.data(), bytes.size(), specs, outputs, threads);
}

void bound_decode_body(nb::handle data, const nb::list& arrays, const std::vector<BoundOutput*>& bound, int threads) {
    std::vector<ArraySpec> specs;
    for (nb::handle array : arrays) {
        specs.push_back({nb::cast<size_t>(array.attr("num_rows")), nb::cast<size_t>(array.attr("row_length")),
                         models_of(array.attr("models"))});
    }
    std::vector<Output> outputs;
    for (const BoundOutput* each : bound) outputs.push_back(each->output);
    decode(data, specs, outputs, threads);
}

// Arrays of one row and one model each, written one after the other: thousands, of which no objects are made.
void bound_decode_rows(nb::handle data, const nb::list& models, const In<int64_t>& lengths,
                       const Out<int32_t>& values, int threads) {
    require_size(lengths, models.size());
    Output row;
    row.width = 4;
    row.data = reinterpret_cast<uint8_t*>(values.data());
    std::vector<ArraySpec> specs;
    std::vector<Output> outputs;
    size_t left = values.size();
    for (size_t i = 0; i < models.size(); ++i) {
        row.num_elements = static_cast<size_t>(lengths.data()[i]);
        require(row.num_elements <= left, "rows have more elements than there is room for.");
        specs.push_back({1, row.num_elements, {{model_of(models[i])}, false, {}}});
        outputs.push_back(row);
        row.data += 4 * row.num_elements;
        left -= row.num_elements;
    }
    decode(data, specs, outputs, threads);
}

CodedArray::Type type_of(const ReadArray& values) {
    if (values.dtype() == nb::dtype<int32_t>()) return CodedArray::Type::kInt32;
    if (values.dtype() == nb::dtype<uint32_t>()) return CodedArray::Type::kUint32;
    if (values.dtype() == nb::dtype<int64_t>()) return CodedArray::Type::kInt64;
    throw InvalidArgument("integers to be coded must be int32, uint32 or int64.");
}

// Bytes of any values, to be written to by who made them.
nb::bytes fresh_python_bytes(size_t size, uint8_t*& out) {
    nb::bytes bytes = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    if (!bytes.is_valid()) throw std::bad_alloc();
    out = reinterpret_cast<uint8_t*>(PyBytes_AsString(bytes.ptr()));
    prefer_huge_pages(out, size);
    return bytes;
}

nb::bytes bound_join(const nb::list& pieces) {
    size_t size = 0;
    for (nb::handle piece : pieces) size += nb::cast<nb::bytes>(piece).size();
    uint8_t* out;
    nb::bytes bytes = fresh_python_bytes(size, out);
    for (nb::handle piece : pieces) {
        const auto one = nb::cast<nb::bytes>(piece);
        std::memcpy(out, one.data(), one.size());
        out += one.size();
    }
    return bytes;
}

nb::tuple bound_encode_body(const nb::list& arrays, bool wide, int threads, const nb::bytes& head) {
    std::vector<CodedArray> coded;
    std::vector<ReadArray> held;  // what the pointers point into
    for (nb::handle array : arrays) {
        CodedArray one;
        const auto values = nb::cast<ReadArray>(array.attr("values"));
        one.values = values.data();
        one.type = type_of(values);
        one.models = models_of(array.attr("models"));
        const nb::object classes = array.attr("classes");
        if (classes.is_none() == one.models.has_classes) {
            throw InvalidArgument("an array has classes of rows and no model for them, or the reverse.");
        }
        if (classes.is_none()) {
            one.num_rows = 1;
            one.row_length = values.size();
        } else {
            const auto indices = nb::cast<ReadArray>(classes);
            if (indices.dtype() != nb::dtype<int64_t>() || values.ndim() != 2 || indices.ndim() != 1 ||
                indices.shape(0) != values.shape(0) || values.size() == 0) {
                throw InvalidArgument("an array with classes must have a row for each of them, and not be empty.");
            }
            one.classes = static_cast<const int64_t*>(indices.data());
            held.push_back(indices);
            one.num_rows = values.shape(0);
            one.row_length = values.shape(1);
        }
        coded.push_back(std::move(one));
        held.push_back(values);
    }
    EncodedBody body;
    {
        nb::gil_scoped_release release;
        body = encode_body(coded, wide, threads);
    }
    uint8_t* out;
    nb::bytes bytes = fresh_python_bytes(head.size() + body.size(), out);
    std::memcpy(out, head.data(), head.size());
    body.write_to(out + head.size());
    return nb::make_tuple(bytes, body.num_symbols);
}

}  // namespace

void bind_body(nb::module_& module) {
    nb::class_<BoundOutput>(module, "Output")
        .def_static("integers", &integers_output, nb::arg("array").noconvert())
        .def_static("floats", &floats_output, nb::arg("array").noconvert(), nb::arg("name"), nb::arg("type"),
                    nb::arg("step"), nb::arg("centroids").none())
        .def_static("trellis", &trellis_output, nb::arg("array").noconvert(), nb::arg("name"), nb::arg("type"),
                    nb::arg("step"), nb::arg("shifts"))
        .def_static("fields", &fields_output, nb::arg("array").noconvert(), nb::arg("name"),
                    nb::arg("is_signed"), nb::arg("drops"));
    module.def(
        "prefer_huge_pages", [](const AnyArray& array) { prefer_huge_pages(array.data(), array.nbytes()); },
        nb::arg("array").noconvert());
    module.def("release_memory", &release_memory, nb::call_guard<nb::gil_scoped_release>());
    module.def("decode_body", &bound_decode_body, nb::arg("data"), nb::arg("arrays"), nb::arg("outputs"),
               nb::arg("num_threads"));
    module.def("decode_rows", &bound_decode_rows, nb::arg("data"), nb::arg("models"), nb::arg("lengths"),
               nb::arg("values").noconvert(), nb::arg("num_threads"));
    module.def("join", &bound_join, nb::arg("pieces"));
    module.def("encode_body", &bound_encode_body, nb::arg("arrays"), nb::arg("wide"), nb::arg("num_threads"),
               nb::arg("head"));
}

}  // namespace fewbits
