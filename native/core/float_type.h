// The dtypes that are coded lossily.
#pragma once

namespace fewbits {

// WIRE: their codes in docs/format.md, section 3.
enum class FloatType : int { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2, kFloat64 = 3 };

}  // namespace fewbits
