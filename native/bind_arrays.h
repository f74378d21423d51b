// Arrays as the bindings take them, and what they check of them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>

#include "core/errors.h"

namespace fewbits {

template <class T>
using In = nanobind::ndarray<const T, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using Out = nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu>;

inline void require(bool condition, const char* message) {
    if (!condition) throw InvalidArgument(message);
}

template <class Array>
void require_size(const Array& array, size_t size) {
    using Scalar = typename Array::Scalar;
    require(array.size() == size, "two arrays differ in size.");
    require(reinterpret_cast<uintptr_t>(array.data()) % alignof(Scalar) == 0, "an array is not aligned.");
}

}  // namespace fewbits
