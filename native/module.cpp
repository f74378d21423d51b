// The extension module fewbits._core. What a function does is said where it is bound; src/fewbits/_core.pyi types it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "errors.h"
#include "isa.h"

namespace nb = nanobind;

namespace fewbits {

void bind_adaptive(nb::module_& module);
void bind_body(nb::module_& module);
void bind_columns(nb::module_& module);
void bind_crc(nb::module_& module);
void bind_fit(nb::module_& module);
void bind_quantize(nb::module_& module);
void bind_random(nb::module_& module);
void bind_relax(nb::module_& module);
void bind_sparse(nb::module_& module);

namespace {

void set_error(const char* name, const std::exception& error) {
    PyErr_SetString(nb::module_::import_("fewbits.errors").attr(name).ptr(), error.what());
}

// An error of errors.h becomes the one of its name in fewbits.errors.
void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Corrupt& error) {
        set_error("Corrupt", error);
    } catch (const InvalidArgument& error) {
        set_error("InvalidArgument", error);
    }
}

}  // namespace
}  // namespace fewbits

NB_MODULE(_core, module) {
    module.doc() = "The compiled coder of fewbits; reached by fewbits.native.core().";
    nb::register_exception_translator(fewbits::translate);
    module.def("available_isas", &fewbits::available_isas);
    module.def("use_isa", &fewbits::use_isa, nb::arg("name"));
    fewbits::bind_adaptive(module);
    fewbits::bind_body(module);
    fewbits::bind_columns(module);
    fewbits::bind_crc(module);
    fewbits::bind_fit(module);
    fewbits::bind_quantize(module);
    fewbits::bind_random(module);
    fewbits::bind_relax(module);
    fewbits::bind_sparse(module);
}
