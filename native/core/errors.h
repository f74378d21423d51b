// What goes wrong, as the caller is to be told: one sentence each, the same as the NumPy coder's.
#pragma once

#include <stdexcept>

namespace fewbits {

// The bytes break a rule of docs/format.md; becomes fewbits.errors.Corrupt.
struct Corrupt : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The caller's fault, not the file's; becomes fewbits.errors.InvalidArgument.
struct InvalidArgument : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace fewbits
