// Tables, models, arrays and outputs made from bytes: any bytes mean something, so that fuzzers and tests share them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "body.h"

namespace fewbits {

constexpr size_t kFewElements = 400;     // of most arrays: cases are to be quick
constexpr size_t kMostElements = 16384;  // of one array

// Bytes from first to last, then zeros.
class ByteSource {
public:
    ByteSource(const uint8_t* bytes, size_t size) : at_(bytes), left_(size) {}

    uint8_t byte();
    uint32_t number16();
    uint64_t number64();

    // Small ones, and ones near the ends of 16, 32 and 64 bits.
    int64_t integer();

    const uint8_t* rest() const { return at_; }
    size_t size() const { return left_; }

private:
    const uint8_t* at_;
    size_t left_;
};

// A small generator of numbers that are the same everywhere (splitmix64).
class Numbers {
public:
    explicit Numbers(uint64_t seed) : state_(seed) {}

    uint64_t next();
    uint64_t below(uint64_t bound) { return next() % bound; }
    std::vector<uint8_t> bytes(size_t count);

private:
    uint64_t state_;
};

// A table that passes check_table, of one of several shapes.
Table table_from(ByteSource& source);

// A model with such a table or none.
IntegerModel model_from(ByteSource& source);

// A model of class indices that all of them can be coded with.
IntegerModel model_of_indices(size_t num_models);

// What a decoder is called with, but for the body.
struct DecodingCase {
    std::vector<ArraySpec> arrays;
    std::vector<Output> outputs;
    std::vector<std::unique_ptr<uint8_t[]>> blocks;  // of the outputs, exactly as large as they have to be
    int num_threads = 1;
    size_t loops = 0;  // whose inner loops, modulo how many there are

    DecodingCase() = default;
    DecodingCase(DecodingCase&&) = default;
    DecodingCase(const DecodingCase&) = delete;
};

// With `allow_wrong` also tables that are none, and outputs of another size than their arrays.
DecodingCase case_from(ByteSource& source, bool allow_wrong);

// An output of int64 for an array, in a block of its own.
Output integers_output(const ArraySpec& spec, std::vector<std::unique_ptr<uint8_t[]>>& blocks);

}  // namespace fewbits
