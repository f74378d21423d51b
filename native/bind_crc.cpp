// fewbits._core: checksums.
#include <nanobind/nanobind.h>

#include "core/crc32.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

constexpr size_t kReleaseAbove = 1 << 16;  // bytes above which other threads of Python may run meanwhile

// The bytes of an object that has them, held while this lives.
class HeldBytes {
public:
    explicit HeldBytes(nb::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    }
    ~HeldBytes() { PyBuffer_Release(&buffer_); }
    HeldBytes(const HeldBytes&) = delete;
    HeldBytes& operator=(const HeldBytes&) = delete;

    const uint8_t* data() const { return static_cast<const uint8_t*>(buffer_.buf); }
    size_t size() const { return static_cast<size_t>(buffer_.len); }

private:
    Py_buffer buffer_;
};

// `value` modulo 2^32, as zlib takes it.
uint32_t bound_crc32(nb::handle data, const nb::int_& value) {
    const uint32_t start = static_cast<uint32_t>(PyLong_AsUnsignedLongMask(value.ptr()));
    const HeldBytes bytes(data);
    if (bytes.size() <= kReleaseAbove) return crc32(bytes.data(), bytes.size(), start);
    nb::gil_scoped_release release;
    return crc32(bytes.data(), bytes.size(), start);
}

}  // namespace

void bind_crc(nb::module_& module) {
    module.def("crc32", &bound_crc32, nb::arg("data"), nb::arg("value") = 0);
}

}  // namespace fewbits
