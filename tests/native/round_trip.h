// Integers made from bytes, encoded and decoded in every way there is; all ways must agree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cases.h"

namespace fewbits {

// Integers of an array that its models can code.
struct ArrayValues {
    std::vector<int64_t> values;
    std::vector<int64_t> classes;  // with classes only
};

ArrayValues values_of(ArraySpec& spec, Numbers& numbers);

struct BodyBytes {
    std::vector<uint8_t> bytes;
    uint64_t num_symbols;
};

// Encodes such values in one lane or in chunks.
BodyBytes encode(const std::vector<ArraySpec>& arrays, const std::vector<ArrayValues>& values, bool wide,
                 int num_threads, uint64_t chunk_bits);

// Decodes; false if the body was refused as damaged. Anything else that is thrown goes on.
bool decoded(const std::vector<uint8_t>& body, const DecodingCase& decoding, int num_threads);

// Makes a case of the bytes and checks all of it; stops the program where two ways differ.
void check_round_trip(const uint8_t* bytes, size_t size);

}  // namespace fewbits
