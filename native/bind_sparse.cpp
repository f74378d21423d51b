// fewbits._core: layers computed from factors. Python allocates what is filled; sizes are checked here, at every call,
// and what a matrix says of itself once, when it is made.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "core/errors.h"
#include "core/sparse.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

SparseMatrix matrix_of(const In<uint8_t>& bits, const In<int32_t>& starts, const In<uint8_t>& wide, const In<uint8_t>& values, size_t columns) {
    const size_t num_bytes = (columns + 7) / 8;
    if (starts.size() == 0 || bits.size() != (starts.size() - 1) * num_bytes || wide.size() + 1 != starts.size() ||
        values.size() < kSparsePadding) {
        throw InvalidArgument("the arrays of a sparse matrix do not belong together.");
    }
    return {starts.size() - 1, columns, bits.data(), starts.data(), wide.data(), values.data(), values.size() - kSparsePadding};
}

bool bound_is_sound(const In<uint8_t>& bits, const In<int32_t>& starts, const In<uint8_t>& wide, const In<uint8_t>& values, size_t columns) {
    return is_sound(matrix_of(bits, starts, wide, values, columns));
}

void bound_multiply(const In<uint8_t>& bits, const In<int32_t>& starts, const In<uint8_t>& wide, const In<uint8_t>& values, size_t columns,
                    const In<float>& in, size_t num_threads, const Out& out) {
    const SparseMatrix matrix = matrix_of(bits, starts, wide, values, columns);
    if (columns == 0 || in.size() % columns != 0 || out.size() != matrix.rows * (in.size() / columns)) {
        throw InvalidArgument("a sparse matrix is multiplied by one of another size.");
    }
    nb::gil_scoped_release release;
    multiply(matrix, in.data(), in.size() / columns, num_threads, out.data());
}

}  // namespace

void bind_sparse(nb::module_& module) {
    using nb::arg;
    module.def("is_sparse_sound", &bound_is_sound, arg("bits"), arg("starts"), arg("wide"), arg("values"), arg("columns"));
    module.def("multiply_sparse", &bound_multiply, arg("bits"), arg("starts"), arg("wide"), arg("values"), arg("columns"),
               arg("matrix"), arg("num_threads"), arg("out").noconvert());
}

}  // namespace fewbits
