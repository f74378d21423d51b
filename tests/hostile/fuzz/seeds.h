// Inputs of a fuzzer that decode: of fuzz_decode_body real bodies behind descriptions that fit them, of fuzz_decode_columns
// real matrices. Each has a file that says how one is made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cases.h"
#include "errors.h"
#include "isa.h"

namespace fewbits {

// No bytes if it came to nothing; InvalidArgument may be thrown as well.
std::vector<uint8_t> make_seed(Numbers& numbers);

inline std::vector<std::vector<uint8_t>> make_seeds(uint64_t seed, size_t count) {
    use_isa("");
    Numbers numbers(seed);
    std::vector<std::vector<uint8_t>> seeds;
    while (seeds.size() < count) {
        try {
            std::vector<uint8_t> made = make_seed(numbers);
            if (!made.empty()) seeds.push_back(std::move(made));
        } catch (const InvalidArgument&) {
            // a table that is none
        }
    }
    return seeds;
}

}  // namespace fewbits
