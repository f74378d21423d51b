// The inner loops under test: those this machine runs, and the AVX-512 ones on emulated instructions.
#pragma once

#include <vector>

#include "isa.h"
#include "values.h"

namespace fewbits {

// native/core/wide_avx512.cpp, compiled against emulated/immintrin.h.
extern const Kernels kEmulatedAvx512Kernels;

// All of them, the scalar ones first.
inline std::vector<const Kernels*> all_loops() {
    std::vector<const Kernels*> all;
    for (const std::string& name : available_isas()) {
        use_isa(name);
        all.push_back(&kernels());
    }
#ifdef FEWBITS_X86
    // Of the two that AVX2 has a machine chooses one; both must do.
    if (all.size() > 1) {
        all.push_back(&kAvx2Kernels);
        all.push_back(&kAvx2ShuffleKernels);
    }
#endif
    all.push_back(&kEmulatedAvx512Kernels);
    return all;
}

// Those over values that this machine runs.
inline std::vector<const ValueLoops*> all_value_loops() {
    std::vector<const ValueLoops*> all;
    for (const std::string& name : available_isas()) {
        use_isa(name);
        all.push_back(&value_loops());
    }
    return all;
}

}  // namespace fewbits
