#include "bits.h"

#include <algorithm>
#include <utility>

#include "errors.h"
#include "memory.h"

namespace fewbits {

void BitWriter::make_room(uint64_t more) {
    const uint64_t needed = size_ + more;
    if (needed <= capacity_) return;
    const auto capacity = static_cast<size_t>(std::max<uint64_t>(needed, 2 * uint64_t{capacity_}));
    std::unique_ptr<uint8_t[]> bytes = fresh_bytes(capacity);
    if (size_ != 0) std::memcpy(bytes.get(), bytes_.get(), size_);
    bytes_ = std::move(bytes);
    capacity_ = capacity;
}

void write_escape(BitWriter& writer, Escape escape) {
    // Distances count from 0, codes from 1: the code of d is that of d + 1, which 64 bits hold but for one distance
    // that no table can leave.
    const uint64_t number = escape.distance + 1;
    int zeros = 0;
    while (zeros < 63 && number >> (zeros + 1)) ++zeros;
    writer.write(escape.below ? 1 : 0, 1);
    writer.write(0, zeros);
    for (int bit = zeros; bit >= 0; --bit) writer.write(number >> bit & 1, 1);  // from the most significant
}

Escape EscapeReader::take() {
    const uint64_t end = bits_.num_bits();
    const uint64_t first = position_ + 1;  // after the side
    uint64_t zeros = 0;
    while (first + zeros < end && zeros <= 63 && bits_.read(first + zeros, 1) == 0) ++zeros;
    if (zeros > 63 || first + 2 * zeros >= end) throw Corrupt("an escape code runs past its end.");
    const bool below = bits_.read(position_, 1) != 0;
    uint64_t number = 0;
    for (uint64_t i = 0; i <= zeros; ++i) number = number << 1 | bits_.read(first + zeros + i, 1);
    position_ = first + 2 * zeros + 1;
    return {number - 1, below};
}

void EscapeReader::finish() const {
    const uint64_t left = bits_.num_bits() - position_;
    if (left >= 8 || bits_.read(position_, static_cast<int>(left)) != 0) throw Corrupt("escape bits are left over.");
}

}  // namespace fewbits
