// The binary range coder of the adaptive stream (docs/format.md, section 9.4); fewbits.coder.binary is its twin.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "errors.h"

namespace fewbits {

constexpr uint64_t kDecisionsPerByte = 45500;  // WIRE
constexpr uint64_t kDecisionSlackBytes = 64;   // WIRE

// Codes binary decisions, one of three ways. The interval of what may still come is [low, low + range) in units of the
// 32-bit window; a decoder knows of low only how far the stream lies above it.
class BinaryCoder {
public:
    enum class Direction { kEncode, kDecode, kMeasure };

    explicit BinaryCoder(Direction direction) : direction_(direction) {}

    BinaryCoder(const uint8_t* bytes, size_t size) : direction_(Direction::kDecode), input_(bytes), size_(size) {
        if (size > 0 && bytes[size - 1] == 0) throw Corrupt("an adaptive stream ends with a zero byte.");
        most_decisions_ = decision_limit(size);
        for (int i = 0; i < 4; ++i) above_low_ = above_low_ << 8 | next_byte();
    }

    static uint64_t decision_limit(size_t size) { return (size + kDecisionSlackBytes) * kDecisionsPerByte; }

    bool decodes() const { return direction_ == Direction::kDecode; }
    double bits() const { return bits_; }

    // Codes a decision that is 1 with probability `probability` / 65536, 8 ... 65528; when decoding, `bit` is not read.
    bool code(bool bit, uint32_t probability) {
        if (direction_ == Direction::kMeasure) {
            bits_ += 16 - std::log2(static_cast<double>(bit ? probability : 65536 - probability));
            return bit;
        }
        ++decisions_;
        const uint64_t bound = range_ * probability >> 16;  // WIRE: the lower part is 1
        if (decodes()) {
            if (decisions_ > most_decisions_) throw Corrupt("an adaptive stream has too few bytes for its integers.");
            bit = above_low_ < bound;
            if (!bit) above_low_ -= bound;
        } else if (!bit) {
            low_ += bound;
            if (low_ >> 32 != 0) carry();
        }
        range_ = bit ? bound : range_ - bound;
        while (range_ < 1u << 24) shift();
        return bit;
    }

    // The shortest bytes which, followed by zeros, lie in the interval; of these the least.
    std::vector<uint8_t> finish() {
        for (int kept = 0; kept <= 4; ++kept) {
            const uint64_t unit = uint64_t{1} << (32 - 8 * kept);
            const uint64_t value = (low_ + unit - 1) / unit * unit;
            if (value >= low_ + range_) continue;
            low_ = value;
            if (low_ >> 32 != 0) carry();
            for (int i = 0; i < kept; ++i) output_.push_back(static_cast<uint8_t>(low_ >> (24 - 8 * i)));
            break;
        }
        while (!output_.empty() && output_.back() == 0) output_.pop_back();
        if (decisions_ > decision_limit(output_.size())) {
            throw InvalidArgument("arrays cost too few bits for an adaptive stream: it would be refused.");
        }
        return std::move(output_);
    }

    // Throws Corrupt unless finish() of the same decisions gives the bytes that were read.
    //
    // Proof. Let v be the stream's number, u the place value of its last byte b > 0, d = v - low. The least multiple of
    // u from low on is v if and only if d < u. Then the multiple of 256 u below v is also below low, and the one above,
    // v + (256 - b) u, is outside the interval if and only if (256 - b) u + d >= range: no shorter stream will do.
    void check_end() const {
        const uint64_t unread = consumed_ - std::min<uint64_t>(consumed_, size_);
        const bool all_read = size_ <= consumed_;
        // A place above the window exceeds both d and range, so that the conditions hold; so does 2^32.
        const uint64_t unit = uint64_t{1} << 8 * std::min<uint64_t>(unread, 4);
        const bool shortest =
            size_ == 0 || (above_low_ < unit && (uint64_t{256} - input_[size_ - 1]) * unit + above_low_ >= range_);
        if (!all_read || !shortest) throw Corrupt("an adaptive stream does not end where its integers do.");
    }

private:
    uint64_t next_byte() {
        const uint64_t at = consumed_++;
        return at < size_ ? input_[at] : 0;
    }

    void shift() {
        range_ <<= 8;
        if (decodes()) {
            above_low_ = above_low_ << 8 | next_byte();
        } else {
            output_.push_back(static_cast<uint8_t>(low_ >> 24));
            low_ = (low_ & 0xFFFFFF) << 8;
        }
    }

    // Adds one to the bytes written. They do not overflow: the interval stays within the unit interval.
    void carry() {
        low_ &= 0xFFFFFFFF;
        size_t i = output_.size();
        while (i > 0 && ++output_[--i] == 0) {
        }
    }

    Direction direction_;
    uint64_t low_ = 0, range_ = uint64_t{1} << 32, above_low_ = 0;
    uint64_t decisions_ = 0, most_decisions_ = 0, consumed_ = 0;
    const uint8_t* input_ = nullptr;
    size_t size_ = 0;
    std::vector<uint8_t> output_;
    double bits_ = 0;
};

}  // namespace fewbits
