// Which of the inner loops this machine runs.
#pragma once

#include <string>
#include <vector>

#include "wide.h"

namespace fewbits {

// Names of what this machine and this build can run, the simplest first.
std::vector<std::string> available_isas();

// Chooses the inner loops for all calls to come; "" is the best. Throws InvalidArgument if they cannot run here.
void use_isa(const std::string& name);

// Chooses inner loops that are none of this machine's own: tests have some. They must outlive their use.
void use_kernels(const Kernels& loops);

const Kernels& kernels();

#ifdef FEWBITS_X86
// Whether those loops are AVX2's of which AVX-512 has none of its own.
bool uses_avx2();
#endif

}  // namespace fewbits
