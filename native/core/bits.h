// Bit streams beside the entropy coder: raw bits and escapes (docs/format.md, sections 8 and 9.3).
//
// Whole words are loaded and stored as they lie in memory: on little-endian machines, which are all that torch runs on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace fewbits {

// Appends bits to bytes, each byte filled from its least significant bit.
class BitWriter {
public:
    // The state of a writer while a loop appends: a copy of its own, so that it stays in registers.
    class Run {
    public:
        // Appends the low `width` (0 ... 56) bits of a value that has no others.
        void write(uint64_t value, int width) {
            held_ |= value << count_;  // count_ is below 8 here: nothing is shifted out
            std::memcpy(at_, &held_, 8);
            count_ += width;
            at_ += count_ >> 3;
            held_ >>= count_ & 56;
            count_ &= 7;
        }

    private:
        friend class BitWriter;
        uint8_t* at_ = nullptr;  // where the held bits go; always followed by room for eight bytes
        uint64_t held_ = 0;
        int count_ = 0;
    };

    // Takes memory for this many bits at once, where more than a few runs are to come.
    void reserve(uint64_t num_bits) { make_room(num_bits / 8 + 16); }

    // Begins a run that appends up to `num_bits` bits; `end` takes its state back.
    Run begin(uint64_t num_bits) {
        make_room(num_bits / 8 + 16);
        run_.at_ = bytes_.get() + size_;
        return run_;
    }

    void end(const Run& run) {
        run_ = run;
        size_ = static_cast<size_t>(run.at_ - bytes_.get());
    }

    // Appends the low `width` (0 ... 63) bits of a value that has no others.
    void write(uint64_t value, int width) {
        Run run = begin(64);
        run.write(value & 0xFFFFFFFF, width < 32 ? width : 32);
        if (width > 32) run.write(value >> 32, width - 32);
        end(run);
    }

    // Pads with zeros to a whole byte. Nothing may be appended after.
    void finish() {
        if (run_.count_ == 0) return;
        ++size_;  // the byte is there: a run stores what it holds
        run_.count_ = 0;
    }

    const uint8_t* data() const { return bytes_.get(); }
    size_t size() const { return size_; }

private:
    void make_room(uint64_t more);

    std::unique_ptr<uint8_t[]> bytes_;  // not a vector: what is written over need not be cleared first
    size_t size_ = 0, capacity_ = 0;
    Run run_;
};

// Bits of the same streams, read from anywhere. Reading beyond the end gives zeros, never foreign memory.
class BitReader {
public:
    BitReader() = default;
    BitReader(const uint8_t* bytes, size_t size) : bytes_(bytes), size_(size) {}

    uint64_t num_bits() const { return 8 * static_cast<uint64_t>(size_); }
    const uint8_t* bytes() const { return bytes_; }

    // `width` (0 ... 63) bits from bit `position` on.
    uint64_t read(uint64_t position, int width) const {
        const uint64_t mask = (uint64_t{1} << width) - 1;
        const auto shift = static_cast<int>(position & 7);
        uint64_t value = load(position >> 3) >> shift;
        if (shift + width > 64) value |= load_byte((position >> 3) + 8) << (64 - shift);
        return value & mask;
    }

private:
    uint64_t load_byte(uint64_t at) const { return at < size_ ? bytes_[at] : 0; }

    uint64_t load(uint64_t at) const {
        uint64_t word = 0;
        if (at + 8 <= size_) {
            std::memcpy(&word, bytes_ + at, 8);
            return word;
        }
        for (int i = 0; i < 8; ++i) word |= load_byte(at + static_cast<uint64_t>(i)) << 8 * i;
        return word;
    }

    const uint8_t* bytes_ = nullptr;
    size_t size_ = 0;
};

// A value beyond a table: how far (0 for the first value beyond), and on which side.
struct Escape {
    uint64_t distance;
    bool below;
};

void write_escape(BitWriter& writer, Escape escape);

// Reads escapes one after the other. Throws Corrupt where a code runs past the end.
class EscapeReader {
public:
    EscapeReader() = default;
    EscapeReader(const uint8_t* bytes, size_t size) : bits_(bytes, size) {}

    Escape take();

    // Throws Corrupt unless only padding, zeros that do not fill a byte, is left.
    void finish() const;

private:
    BitReader bits_;
    uint64_t position_ = 0;
};

}  // namespace fewbits
