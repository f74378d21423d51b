// Inputs of fuzz_decode_body that decode: real bodies behind descriptions that fit them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fewbits {

std::vector<std::vector<uint8_t>> make_seeds(uint64_t seed, size_t count);

}  // namespace fewbits
