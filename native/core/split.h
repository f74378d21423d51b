// The coded part of an array: its values as symbols, escapes and raw bits (docs/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bits.h"
#include "body.h"

namespace fewbits {

// A value outside of its table: which symbol of the array it is, and how far out.
struct EscapedSymbol {
    size_t position;
    Escape escape;
};

// The coded part of one array: symbols in order, which of them are escapes and for what, and the raw bits by class.
struct SymbolStream {
    std::unique_ptr<uint8_t[]> symbols;
    size_t num_symbols = 0;
    std::vector<EscapedSymbol> escapes;
    std::vector<BitWriter> raw;
    std::vector<RawRows> packed;  // of a class instead, if loops can pack them
    size_t row_length = 0;          // symbols of a row
    std::vector<uint32_t> classes;  // of the rows that have symbols
};

// The array must outlive what it becomes. Throws InvalidArgument for a class without a model, a table that is none, and a value that has no symbol.
SymbolStream split(const CodedArray& array);

// The sum of a group's costs, less than 2^32. Here, where loops become vector code, unlike in body_encode.cpp.
uint32_t sum_of_costs(const uint32_t* costs, size_t count);

}  // namespace fewbits
