// One array of a body while it is decoded: from symbols, escapes and raw bits to elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bits.h"
#include "body.h"
#include "wide.h"

namespace fewbits {

// Symbols decoded at a time: those turned into elements stay with them in first-level cache.
constexpr size_t kBlock = 4096, kBlockInPlace = 2 * kBlock;

// How one class of an array's rows is decoded.
struct ClassRule {
    ClassRule(const IntegerModel& model_, const Output& output, size_t class_index);

    const IntegerModel& model;
    ElementRule element;
    AliasTable alias{};
    SymbolMap map{};            // without a shift: the elements of symbols
    bool maps_all = true;       // whether each of those symbols is an element
    bool can_escape = false;
    bool joins = false;  // with a shift: whether all values of the table are elements, and of 32 bits
    uint64_t raw_position = 0;  // bit of the body where the class's raw bits begin

    // The value of a symbol, or of an escape, without its raw bits.
    uint64_t value_of(uint32_t symbol) const;
    uint64_t value_of(Escape escape) const;
};

class ArrayDecoder {
public:
    // The spec and the output must outlive the decoder. Throws InvalidArgument if they do not fit each other.
    ArrayDecoder(const ArraySpec& spec, const Output& output, const BitReader& body);

    // Sets the rows' classes; without a call all belong to the first. Throws Corrupt if one has no model.
    void set_classes(const std::vector<int64_t>& classes);

    // Places the raw bits, class after class from bit `position` on; returns the bit after them. Throws Corrupt.
    uint64_t place_raw_bits(uint64_t position);

    // Makes the rules of the classes that have rows. Before decoding, after the bits have their places.
    void make_rules();

    size_t num_models() const { return spec_.models.models.size(); }
    size_t row_length() const { return row_length_; }
    size_t num_symbols() const { return num_coded_rows_ * row_length_; }
    size_t num_coded_rows() const { return num_coded_rows_; }

    // The row of a coded row's index: rows whose model has no table are not counted.
    size_t coded_row(size_t index) const { return coded_rows_.empty() ? index : coded_rows_[index]; }
    const ClassRule& rule_of(size_t row) const { return *rules_[class_of(row)]; }

    // Writes the elements of a row's symbols from `column` on, taking their escapes. Where `symbols` is where elements go,
    // they are those already, but for the escapes'.
    void convert(size_t row, size_t column, const uint8_t* symbols, size_t count, EscapeReader& escapes) const;

    // Where an element goes, and how many bytes it has.
    uint8_t* element(size_t row, size_t column) const { return output_.data + (row * row_length_ + column) * width_; }
    size_t width() const { return width_; }
    // Whether a row's elements are bytes that its symbols make with a base added: kernels write them where they go.
    bool decodes_in_place(const ClassRule& rule) const { return width_ == 1 && rule.map.is_sum && rule.maps_all; }

    // Writes the rows that have no symbols.
    void fill_uncoded_rows() const;

private:
    size_t class_of(size_t row) const { return classes_.empty() ? 0 : classes_[row]; }
    const IntegerModel& model_of(size_t class_index) const { return spec_.models.models[class_index]; }
    uint64_t raw_position(size_t row, size_t column, const ClassRule& rule) const;
    // Writes all values at once where a kernel can, and the escapes' elements with anything; false if it cannot.
    bool join(const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t count, uint8_t* out) const;
    void convert_values(const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t begin, size_t end,
                        EscapeReader& escapes, uint8_t* out) const;
    void convert_slowly(const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t begin, size_t end,
                        EscapeReader& escapes, uint8_t* out) const;
    void store(uint8_t* out, const ClassRule& rule, uint64_t value) const;

    const ArraySpec& spec_;
    const Output& output_;
    BitReader body_;
    size_t num_rows_, row_length_, width_;
    std::vector<uint16_t> classes_;
    std::vector<uint32_t> ranks_;       // of each row among the rows of its class
    std::vector<uint32_t> coded_rows_;  // empty if every row is coded
    size_t num_coded_rows_;
    std::vector<size_t> rows_of_class_;
    std::vector<uint64_t> raw_of_class_;
    std::vector<std::unique_ptr<ClassRule>> rules_;
};

}  // namespace fewbits
