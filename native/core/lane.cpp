#include "lane.h"

#include "errors.h"
#include "wide.h"

namespace fewbits {

void LaneEncoder::put(const EncodeTable& table, uint8_t symbol) {
    const uint32_t frequency = table.frequency[symbol];
    uint32_t x = state_;
    if (x >> (32 - kPrecision) >= frequency) {
        words_.push_back(static_cast<uint16_t>(x));
        x >>= 16;
    }
    const uint32_t quotient = x / frequency;
    state_ = (quotient << kPrecision) + table.slots[table.start[symbol] + (x - quotient * frequency)];
}

std::vector<uint8_t> LaneEncoder::finish() const {
    std::vector<uint8_t> bytes;
    if (state_ == 1) return bytes;  // WIRE: nothing was coded, or nothing that cost anything; no word is held then
    // WIRE: the state's leading zero bytes are stripped; the length's parity tells 3 bytes from 4.
    for (uint32_t rest = state_; rest != 0; rest >>= 8) bytes.push_back(static_cast<uint8_t>(rest));
    for (size_t i = words_.size(); i-- > 0;) {
        bytes.push_back(static_cast<uint8_t>(words_[i]));
        bytes.push_back(static_cast<uint8_t>(words_[i] >> 8));
    }
    return bytes;
}

LaneDecoder::LaneDecoder(const uint8_t* bytes, size_t size) {
    const size_t head = size <= 2 ? size : 4 - size % 2;
    words_ = bytes + head;
    end_ = bytes + size;
    if (head == 0) return;
    state_ = 0;
    for (size_t i = 0; i < head; ++i) state_ |= static_cast<uint32_t>(bytes[i]) << 8 * i;
    if (bytes[head - 1] == 0 || (size == 1 && state_ == 1)) {  // state 1 is written as no bytes
        throw Corrupt("a single-lane stream's state is not in its shortest form.");
    }
}

void LaneDecoder::take(const AliasTable& table, uint8_t* symbols, size_t count) {
    uint32_t x = state_;
    for (size_t i = 0; i < count; ++i) {
        const uint32_t slot = x & (kTotal - 1);
        const uint32_t bucket = slot / kBucket;
        const bool own = slot < table.divider[bucket];
        const uint32_t symbol = own ? bucket : table.alias[bucket];
        const uint32_t offset = (slot + (own ? table.own_shift[bucket] : table.alias_shift[bucket])) & 0xFFFF;
        x = table.frequency[symbol] * (x >> kPrecision) + offset;
        if (x < kLowest && words_ != end_) {
            x = x << 16 | load_word(words_);
            words_ += 2;
        }
        symbols[i] = static_cast<uint8_t>(symbol);
    }
    state_ = x;
}

void LaneDecoder::finish() const {
    if (words_ != end_ || state_ != 1) throw Corrupt("a single-lane stream does not end where it started.");
}

}  // namespace fewbits
