#include "levels.h"

#include <algorithm>
#include <array>
#include <cmath>
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

PointTable::PointTable(const TrellisShifts& shifts) {
    for (size_t k = 0; k < 5; ++k) {
        const float whole = 256 * shifts[k];
        is_exact &= whole >= -128 && whole <= 255 && whole == std::floor(whole);
        added[k] = static_cast<int16_t>(is_exact ? whole : 0);
        low[11 + k] = static_cast<uint8_t>(added[k]);
        high[11 + k] = static_cast<uint8_t>(added[k] >> 8);
    }
}

bool round_values(const BlockLoops& type, size_t width, uint32_t joined, float* values, size_t count) {
    constexpr uint32_t kInfinity = 0x7F800000;
    if (width == 2) {
        type.round(values, count);
        for (size_t i = 0; i < count; ++i) joined |= bits_of(values[i]);
    }
    if (are_finite(joined)) return true;
    uint32_t infinite = 0;
    for (size_t i = 0; i < count; ++i) infinite |= select((bits_of(values[i]) & kInfinity) == kInfinity, 1, 0);
    return infinite == 0;
}

const uint8_t* Mirrors::follow(size_t count) {
    uint8_t* mirrors = &mirrors_[kBefore];
    const size_t paths = num_paths_;
    if (paths == 0) return mirrors;
    const uint8_t* parity = parities() - paths;
    if (paths >= 8) {
        for (size_t r = 0; r < count; r += 8) {
            uint8_t* here = mirrors + r;
            store(here, load(parity + r) ^ load(here - 2 * paths) ^ load(here - 3 * paths));
        }
    } else {
        // The two words before one stay in registers. So that little has to wait for them, mirrors of one or two paths are
        // taken from those 14 bytes before: with D for a step, (1 + D^2 + D^3)(1 + D^2 + D^3 + D^4) = 1 + D^7, and of that
        // the square is 1 + D^14.
        uint64_t before = load(mirrors - 8), earlier = load(mirrors - 16);
        for (size_t r = 0; r < count; r += 8) {
            uint64_t word = load(parity + r);
            if (paths == 4) {
                word ^= before ^ before << 32 ^ earlier >> 32;
            } else {
                const auto sum = [&](size_t bytes) {
                    const uint8_t* here = parity + r - bytes;
                    return load(here - 2 * paths) ^ load(here - 3 * paths) ^ load(here - 4 * paths);
                };
                word ^= sum(0) ^ earlier >> 16 ^ before << 48;
                if (paths == 1) word ^= load(parity + r - 7) ^ sum(7);
            }
            store(mirrors + r, word);
            earlier = before;
            before = word;
        }
    }
    carry(parities(), count, paths == 1 ? 12 : paths == 2 ? 5 : 1);
    carry(mirrors, count, paths == 1 ? 14 : paths == 2 ? 7 : 3);
    return mirrors;
}

// Puts the last bytes of each path before the block, as many as `steps`, where the next one reads them.
void Mirrors::carry(uint8_t* bytes, size_t count, size_t steps) const {
    std::array<uint8_t, kBefore> last;
    const size_t first = (num_paths_ - count % num_paths_) % num_paths_;  // where path 0 is in a step
    const uint8_t* from = bytes + count - steps * num_paths_;
    for (size_t k = 0; k < steps * num_paths_; k += num_paths_) {
        std::rotate_copy(from + k, from + k + first, from + k + num_paths_, &last[k]);
    }
    std::copy_n(last.data(), steps * num_paths_, bytes - steps * num_paths_);
}

}  // namespace fewbits
