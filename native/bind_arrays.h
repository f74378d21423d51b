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

// The bytes of an object that has them, held while this lives.
class HeldBytes {
public:
    explicit HeldBytes(nanobind::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_SIMPLE) != 0) throw nanobind::python_error();
    }
    ~HeldBytes() { PyBuffer_Release(&buffer_); }
    HeldBytes(const HeldBytes&) = delete;
    HeldBytes& operator=(const HeldBytes&) = delete;

    const uint8_t* data() const { return static_cast<const uint8_t*>(buffer_.buf); }
    size_t size() const { return static_cast<size_t>(buffer_.len); }

private:
    Py_buffer buffer_;
};

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
