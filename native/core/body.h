// All integers of a part as bytes: the body of a payload (docs/format.md, section 8).
//
// Class indices, and everything of small parts, share one single-lane stream; the rest goes in 32-lane chunks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "model.h"
#include "output.h"

namespace fewbits {

constexpr uint64_t kMostSymbolsPerByte = 45440;     // WIRE
constexpr uint64_t kSlackBytes = 64;                // WIRE: what the lanes' states can hold without a word
constexpr uint64_t kChunkBits = uint64_t{1} << 20;  // 128 KiB of words: a chunk's states are then about 0.1 %
constexpr uint64_t kLockstep = 6;                   // chunks: more than these are a multiple, so that no few are left over
constexpr size_t kWholeRow = 4096;                  // symbols of a row that no chunk ends within: rows end in lockstep

// The models of an array's classes, and that of the class indices if there are several.
struct ModelSet {
    std::vector<IntegerModel> models;  // at least one
    bool has_classes = false;
    IntegerModel class_model;
};

// What a decoder knows of an array before its body: rows of equal length and models.
struct ArraySpec {
    size_t num_rows = 0;
    size_t row_length = 0;
    ModelSet models;
};

// Decodes a body into the outputs, one for each array, of num_rows * row_length elements.
//
// Chunks are decoded by up to `num_threads` threads. Throws Corrupt if the body breaks a rule of sections 8 to 10; the
// outputs then hold anything.
void decode_body(const uint8_t* data, size_t size, const std::vector<ArraySpec>& arrays,
                 const std::vector<Output>& outputs, int num_threads);

// One array to be coded.
struct CodedArray {
    enum class Type { kInt32, kUint32, kInt64 };

    const void* values = nullptr;  // num_rows * row_length
    Type type = Type::kInt64;
    size_t num_rows = 0;  // with one class all values are one row
    size_t row_length = 0;
    ModelSet models;
    const int64_t* classes = nullptr;  // (num_rows,), each below the number of models; null with one class
};

// The raw bits of one class of an array, of numbers that fill whole bytes: packed where they belong, by the loops for values.
struct RawRows {
    const uint32_t* values;
    const int64_t* classes;  // of the rows; null: all are of one
    size_t num_rows, row_length;
    int64_t index;  // of the class
    uint32_t base;
    int width;    // bits of a number
    size_t size;  // bytes

    void pack_to(uint8_t* out) const;
};

// A body in pieces, so that its bytes are written once, to where the caller wants them. The arrays must outlive it.
class EncodedBody {
public:
    // Takes over anything that has data() and size().
    template <typename Bytes>
    void append(Bytes&& bytes) {
        const auto held = std::make_shared<std::decay_t<Bytes>>(std::forward<Bytes>(bytes));
        pieces_.push_back({held, held->data(), held->size(), {}});
        size_ += held->size();
    }

    void append_raw(const RawRows& rows) {
        pieces_.push_back({nullptr, nullptr, rows.size, rows});
        size_ += rows.size;
    }

    size_t size() const { return size_; }
    void write_to(uint8_t* out) const;

    uint64_t num_symbols = 0;  // class indices included

private:
    struct Piece {
        std::shared_ptr<const void> held;
        const uint8_t* data;  // null: the raw bits
        size_t size;
        RawRows raw;
    };

    std::vector<Piece> pieces_;
    size_t size_ = 0;
};

// Encodes the integers of a part's arrays, the symbols in 32-lane chunks if `wide`, else all in one lane.
//
// Chunks are encoded by up to `num_threads` threads; they hold about `chunk_bits` each, fewer in tests that want several
// of few symbols. Throws InvalidArgument if a value has a symbol of frequency 0.
EncodedBody encode_body(const std::vector<CodedArray>& arrays, bool wide, int num_threads,
                        uint64_t chunk_bits = kChunkBits);

}  // namespace fewbits
