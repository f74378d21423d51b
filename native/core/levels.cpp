#include "levels.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "isa.h"

namespace fewbits {

namespace {

uint64_t load(const uint8_t* bytes) {
    uint64_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

void store(uint8_t* bytes, uint64_t word) { std::memcpy(bytes, &word, sizeof word); }

}  // namespace

const LevelLoops& level_loops() {
#ifdef FEWBITS_X86
    if (uses_avx2()) return kAvx2LevelLoops;
#endif
    return kScalarLevelLoops;
}

bool round_values(const BlockLoops& type, size_t width, uint32_t joined, float* values, size_t count) {
    constexpr uint32_t kInfinity = 0x7F800000;
    if (width == 2) {
        type.round(values, count);
        for (size_t i = 0; i < count; ++i) joined |= bits_of(values[i]);
    }
    // Where all together do not have all of its bits, none is infinity.
    uint32_t infinite = 0;
    if ((joined & kInfinity) != kInfinity) return true;
    for (size_t i = 0; i < count; ++i) infinite |= select((bits_of(values[i]) & kInfinity) == kInfinity, 1, 0);
    return infinite == 0;
}

const uint8_t* Mirrors::follow() {
    uint8_t* mirrors = &mirrors_[kBefore];
    const size_t paths = num_paths_;
    if (paths == 0) return mirrors;
    const uint8_t* parity = parities() - paths;
    if (paths >= 8) {
        for (size_t r = 0; r < rows_; r += 8) {
            uint8_t* here = mirrors + r;
            store(here, load(parity + r) ^ load(here - 2 * paths) ^ load(here - 3 * paths));
        }
    } else {
        // What a word has from itself is added to it; the two before it stay in registers.
        const size_t bits = 8 * paths;
        uint64_t before = load(mirrors - 8), earlier = load(mirrors - 16);
        for (size_t r = 0; r < rows_; r += 8) {
            uint64_t word = load(parity + r);
            if (paths == 4) {
                word ^= before ^ before << 32 ^ earlier >> 32;
            } else {
                word ^= before >> (64 - 2 * bits) ^ before >> (64 - 3 * bits);
                word ^= word << 2 * bits ^ word << 3 * bits;
                if (paths == 1) word ^= word << 32 ^ word << 48;
            }
            store(mirrors + r, word);
            earlier = before;
            before = word;
        }
    }
    carry(parities(), 1);
    carry(mirrors, 3);
    return mirrors;
}

// Puts the last bytes of each path before the block, as many as `steps`, where the next one reads them.
void Mirrors::carry(uint8_t* bytes, size_t steps) const {
    std::array<uint8_t, kBefore> last;
    const size_t first = (num_paths_ - rows_ % num_paths_) % num_paths_;  // where path 0 is in a step
    const uint8_t* from = bytes + rows_ - steps * num_paths_;
    for (size_t k = 0; k < steps * num_paths_; k += num_paths_) {
        std::rotate_copy(from + k, from + k + first, from + k + num_paths_, &last[k]);
    }
    std::copy_n(last.data(), steps * num_paths_, bytes - steps * num_paths_);
}

}  // namespace fewbits
