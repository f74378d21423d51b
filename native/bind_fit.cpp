// fewbits._core: choosing integer models. A model crosses as (shift, centre, table): the table is None, the code of a
// shipped table, or (low, frequencies, escape).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <utility>

#include "core/errors.h"
#include "core/fit.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

template <typename T>
using Integers = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const uint16_t, nb::shape<192, 64>, nb::c_contig, nb::device::cpu>;
using Sizes = nb::ndarray<const int64_t, nb::shape<192>, nb::c_contig, nb::device::cpu>;

template <typename Array>
void require_integers(const Array& array) {
    using Scalar = typename Array::Scalar;
    if (array.size() == 0) throw InvalidArgument("an array to be fitted is empty.");
    if (reinterpret_cast<uintptr_t>(array.data()) % alignof(Scalar) != 0) {
        throw InvalidArgument("an array to be fitted is not aligned.");
    }
}

nb::object table_object(const FittedModel& fitted) {
    if (!fitted.model.has_table) return nb::none();
    if (fitted.shipped >= 0) return nb::int_(fitted.shipped);
    const Table& table = fitted.model.table;
    nb::list frequencies;
    for (int s = 0; s < table.num_values; ++s) frequencies.append(nb::int_(table.counts[static_cast<size_t>(s)]));
    return nb::make_tuple(table.low, nb::tuple(frequencies), table.escape());
}

nb::tuple model_tuple(const FittedModel& fitted) {
    return nb::make_tuple(fitted.model.shift, fitted.model.centre, table_object(fitted));
}

template <typename T>
nb::tuple bound_fit_values(const Integers<T>& values, const Shipped& shipped) {
    require_integers(values);
    const FittedModel fitted = [&] {
        nb::gil_scoped_release release;
        return fit_model(spectrum_of(values.data(), values.size()), shipped);
    }();
    return nb::make_tuple(model_tuple(fitted), fitted.cost);
}

template <typename T>
void require_rows(const Integers<T>& values, const Integers<int64_t>& classes, size_t num_classes) {
    require_integers(values);
    require_integers(classes);
    if (values.ndim() != 2 || classes.ndim() != 1 || classes.size() != values.shape(0)) {
        throw InvalidArgument("rows to be fitted need a class each.");
    }
    if (num_classes < 2 || num_classes > classes.size()) throw InvalidArgument("rows are of two classes or more.");
}

nb::tuple rows_tuple(const FittedRows& fitted) {
    nb::list models;
    for (const FittedModel& model : fitted.models) models.append(model_tuple(model));
    nb::object class_model = nb::none();
    if (fitted.class_model) class_model = model_tuple(*fitted.class_model);
    return nb::make_tuple(models, class_model, fitted.cost);
}

template <typename T>
nb::tuple bound_fit_rows(const Integers<T>& values, const Integers<int64_t>& classes, size_t num_classes,
                         const Shipped& shipped) {
    require_rows(values, classes, num_classes);
    return rows_tuple([&] {
        nb::gil_scoped_release release;
        return fit_rows(values.data(), values.shape(0), values.shape(1), classes.data(), num_classes, shipped);
    }());
}

template <typename T>
nb::tuple bound_best_fit(const Integers<T>& values, const Integers<int64_t>& classes, size_t num_classes,
                         int64_t class_bytes, const Shipped& shipped) {
    require_rows(values, classes, num_classes);
    if (class_bytes < 0 || class_bytes > 1 << 20) throw InvalidArgument("a class takes 0 to 2^20 bytes.");
    return rows_tuple([&] {
        nb::gil_scoped_release release;
        return best_fit(values.data(), values.shape(0), values.shape(1), classes.data(), num_classes, class_bytes,
                        shipped);
    }());
}

template <typename T>
void bind_integers(nb::module_& module) {
    using nb::arg;
    module.def("fit_values", &bound_fit_values<T>, arg("values").noconvert(), arg("shipped"));
    module.def("fit_rows", &bound_fit_rows<T>, arg("values").noconvert(), arg("classes").noconvert(),
               arg("num_classes"), arg("shipped"));
    module.def("best_fit", &bound_best_fit<T>, arg("values").noconvert(), arg("classes").noconvert(),
               arg("num_classes"), arg("class_bytes"), arg("shipped"));
}

}  // namespace

void bind_fit(nb::module_& module) {
    nb::class_<Shipped>(module, "ShippedTables")
        .def(
            "__init__",
            [](Shipped* place, const Counts& counts, const Sizes& num_values) {
                require_integers(counts);
                require_integers(num_values);
                new (place) Shipped(counts.data(), num_values.data());
            },
            nb::arg("counts"), nb::arg("num_values"));
    bind_integers<int32_t>(module);
    bind_integers<uint32_t>(module);
    bind_integers<int64_t>(module);
}

}  // namespace fewbits
