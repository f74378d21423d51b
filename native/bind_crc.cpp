// fewbits._core: checksums.
#include <nanobind/nanobind.h>

#include "bind_arrays.h"
#include "core/crc32.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

constexpr size_t kReleaseAbove = 1 << 16;  // bytes above which other threads of Python may run meanwhile

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
