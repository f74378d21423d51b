// What decoded integers become: elements of an array in memory.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "float_type.h"

namespace fewbits {

// A level that no byte of -127 ... 127 stands for, and which one it is.
struct FarLevel {
    size_t index;
    int32_t level;
};

// The far ones of levels that are bytes: at most one in 256, and a few. Threads may add to them.
class FarLevels {
public:
    // Of so many levels, whose bytes are from `first` on.
    FarLevels(const uint8_t* first, size_t num_levels) : first_(first), found_(num_levels / 256 + 64) {}

    size_t most() const { return found_.size(); }
    bool lost_some() const { return num_ > most(); }
    size_t size() const { return num_; }  // unless some are lost

    void add(const uint8_t* byte, int64_t level) {
        const size_t i = num_++;
        if (i < most()) found_[i] = {static_cast<size_t>(byte - first_), static_cast<int32_t>(level)};
    }

    // All of them by ascending index, unless some are lost.
    const FarLevel* sorted();

private:
    const uint8_t* first_;
    std::vector<FarLevel> found_;
    std::atomic<size_t> num_{0};
};

// How the integers q of one array are written: elements of `width` bytes, in order.
struct Output {
    enum class Kind {
        kIntegers,  // q modulo 2^(8 width)
        kLevels,    // q modulo 256, in one byte; what is beyond -127 ... 127 is told as well
        kFloats,    // quantised values: docs/payload/ecsq.md
        kTrellis,   // the same of a trellis, once all its levels are there
        kFields,    // sign and magnitude of a float: docs/payload/lossless.md, transforms 2 to 4
    };

    Kind kind = Kind::kIntegers;
    int width = 8;            // bytes: 1, 2, 4 or 8
    uint8_t* data = nullptr;  // num_elements * width bytes, of any alignment
    size_t num_elements = 0;
    std::string name;         // of the tensor, as errors quote it

    FloatType type = FloatType::kFloat32;  // kFloats, kTrellis
    float step = 1.0f;
    bool has_centroids = false;
    int8_t centroids[3] = {};  // in 1/256 of a step
    std::array<float, 5> shifts{};  // kTrellis: TrellisShifts

    FarLevels* far_levels = nullptr;  // kLevels

    bool is_signed = false;      // kFields
    std::vector<uint8_t> drops;  // kFields: low bits that were dropped, for each class
};

// Turns integers of one class of an array into elements.
class ElementRule {
public:
    ElementRule(const Output& output, size_t class_index);

    // Sets `word` to the element's bits; false if q is none of an element: see `refusal`.
    bool word_of(int64_t q, uint64_t& word) const;

    // The sentence about a q that is no element.
    std::string refusal() const;

    uint64_t limit() const { return limit_; }  // fields: the greatest magnitude, before its dropped bits
    int drop() const { return drop_; }
    const float* shifts() const { return shifts_; }  // floats: by the magnitude of the level, 3 for more; of 0 none

private:
    bool float_word(int64_t q, uint64_t& word) const;
    bool field_word(int64_t q, uint64_t& word) const;

    std::string name_;
    Output::Kind kind_;
    FloatType type_;
    float step_;
    float shifts_[4] = {};  // by the magnitude of the level, 3 for more
    bool has_centroids_;
    uint64_t top_ = 0;  // fields: what q is XORed with
    int sign_place_ = 0;
    int drop_ = 0;
    bool is_signed_;
    uint64_t limit_ = 0;
};

// float32 as float16 or bfloat16, to nearest even, subnormal numbers kept; infinity where it is out of range.
uint16_t float16_of(float value);
uint16_t bfloat16_of(float value);

// Holds the default floating point environment (nearest even, subnormal numbers kept) while it lives.
//
// NUMERICS: a process may have asked for zeros in place of subnormal numbers; what a file decodes to must not change.
class DefaultFloatEnvironment {
public:
    DefaultFloatEnvironment();
    ~DefaultFloatEnvironment();
    DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
    DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

private:
    alignas(16) unsigned char saved_[64];
};

}  // namespace fewbits
