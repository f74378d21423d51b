// fewbits._core: the training step of latents. Python allocates what is filled; sizes are checked here, once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/errors.h"
#include "core/relax.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

using In = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

template <class Array>
void require_size(const Array& array, size_t size) {
    if (array.size() != size) throw InvalidArgument("two arrays differ in size.");
}

double bound_relax(const In& latents, const In& first, float further, float step, float limit, size_t num_threads,
                   const Out& values, const Out& slopes) {
    const size_t count = latents.size();
    require_size(first, count);
    require_size(values, count);
    require_size(slopes, count);
    nb::gil_scoped_release release;
    return relax(latents.data(), count, {step, limit, further, first.data()}, num_threads, values.data(),
                 slopes.data());
}

double bound_relax_backward(const In& values, const In& value_gradients, const In& slopes, float step,
                            float bits_gradient, size_t num_threads, const Out& gradients) {
    const size_t count = values.size();
    require_size(value_gradients, count);
    require_size(slopes, count);
    require_size(gradients, count);
    nb::gil_scoped_release release;
    return relax_backward(values.data(), value_gradients.data(), slopes.data(), count, step, bits_gradient, num_threads,
                          gradients.data());
}

}  // namespace

void bind_relax(nb::module_& module) {
    using nb::arg;
    module.def("relax", &bound_relax, arg("latents"), arg("first"), arg("further"), arg("step"), arg("limit"),
               arg("num_threads"), arg("values").noconvert(), arg("slopes").noconvert());
    module.def("relax_backward", &bound_relax_backward, arg("values"), arg("value_gradients"), arg("slopes"),
               arg("step"), arg("bits_gradient"), arg("num_threads"), arg("gradients").noconvert());
}

}  // namespace fewbits
