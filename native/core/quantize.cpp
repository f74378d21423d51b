#include "quantize.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "float_bits.h"

namespace fewbits {

namespace {

constexpr int32_t kMostLevel = 1 << 30;

uint32_t magnitude_of(int32_t level) {
    const auto word = static_cast<uint32_t>(level);
    return level < 0 ? 0 - word : word;
}

}  // namespace

Extent measure(const Weights& weights, int64_t* bins) {
    const BlockLoops& loops = loops_of(weights.type);
    uint64_t peak = 0;
    double energy = 0;
    // Two histograms in turn: equal neighbours (zeros, often) need not wait for each other.
    std::array<uint32_t, kMagnitudeBins> other{};
    std::array<double, kWeightBlock> values;
    std::array<uint32_t, kWeightBlock> places;
    const auto add = [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, values.data());
        peak = std::max(peak, loops.bins(weights.bits, start, length, places.data()));
        size_t i = 0;
        for (; i + 2 <= length; i += 2) {
            energy += values[i] * values[i];
            energy += values[i + 1] * values[i + 1];
            ++bins[places[i]];
            ++other[places[i + 1]];
        }
        for (; i < length; ++i) {
            energy += values[i] * values[i];
            ++bins[places[i]];
        }
    };
    const auto flush = [&] {
        for (size_t b = 0; b < kMagnitudeBins; ++b) bins[b] += other[b];
        other.fill(0);
    };
    for (size_t start = 0; start < weights.count; start += kWeightBlock) {
        add(start, std::min(kWeightBlock, weights.count - start));
        if (start % (size_t{1} << 30) == 0 && start) flush();  // long before a uint32 could wrap
    }
    flush();
    constexpr double kInfinite = std::numeric_limits<double>::infinity();
    if (peak >= loops.infinity) return {false, kInfinite, kInfinite};
    return {true, loops.value(peak), energy};
}

bool round_levels(const Weights& weights, double step, int32_t* levels) {
    constexpr double kLimit = kMostLevel;
    // Adding 3 * 2^51 leaves no bits below 1: the sum is rounded to nearest even, the difference is exact.
    constexpr double kRounding = 0x1.8p52;
    const BlockLoops& loops = loops_of(weights.type);
    uint32_t magnitudes = 0;
    std::array<double, kWeightBlock> values;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            const double scaled = values[i] / step;
            // Written so that NaN, too, ends up at a limit: what is out of reach is within an int32 and seen below.
            double value = scaled < kLimit ? scaled : kLimit;
            value = value > -kLimit ? value : -kLimit;
            const auto level = static_cast<int32_t>((value + kRounding) - kRounding);
            levels[start + i] = level;
            magnitudes |= magnitude_of(level);
        }
    });
    return magnitudes < static_cast<uint32_t>(kMostLevel);
}

void row_magnitudes(const int32_t* levels, size_t num_rows, size_t row_length, int64_t* sums) {
    for (size_t row = 0; row < num_rows; ++row, levels += row_length) {
        int64_t sum = 0;
        for (size_t i = 0; i < row_length; ++i) sum += magnitude_of(levels[i]);
        sums[row] = sum;
    }
}

void rate_distortion_round(const Weights& weights, double step, const int32_t* levels, const Gains& gains,
                           int32_t* rounded) {
    if (gains.count == 0) {
        std::copy(levels, levels + weights.count, rounded);
        return;
    }
    const BlockLoops& loops = loops_of(weights.type);
    // The last entry is for levels without a gain, and 0 cannot move: no distortion is below their gain.
    std::array<double, kMostGains + 1> gain_of;
    gain_of.fill(-std::numeric_limits<double>::infinity());
    std::copy(gains.gains, gains.gains + gains.count, gain_of.begin());
    const uint64_t zero = 0 - static_cast<uint64_t>(gains.low);
    if (zero < gains.count) gain_of[static_cast<size_t>(zero)] = -std::numeric_limits<double>::infinity();
    const uint64_t low = static_cast<uint64_t>(gains.low), count = gains.count;
    std::array<double, kWeightBlock> values, added;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            const int32_t level = levels[start + i];
            const int32_t sign = 1 - 2 * static_cast<int32_t>(level < 0);
            // 1 + 2 (scaled - level) sign: what the square of the distance grows by.
            added[i] = 1 + 2 * (values[i] / step - static_cast<double>(level)) * static_cast<double>(sign);
        }
        for (size_t i = 0; i < length; ++i) {
            const int32_t level = levels[start + i];
            // Levels below `low` wrap to large numbers: one comparison tells both ends.
            const uint64_t place = std::min(static_cast<uint64_t>(int64_t{level}) - low, count);
            const int32_t sign = 1 - 2 * static_cast<int32_t>(level < 0);
            const auto moves = static_cast<int32_t>(added[i] < gain_of[static_cast<size_t>(place)]);
            rounded[start + i] = level - sign * moves;  // without a branch: which levels move is hard to foresee
        }
    });
}

CentroidSums centroid_sums(const Weights& weights, double step, const int32_t* levels) {
    // A term is added to all three sums, as itself or as a 0 which changes none (a sum that starts at 0 is never -0):
    // three sums in flight and no branch.
    static constexpr double kIsKind[3][4] = {{0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
    const BlockLoops& loops = loops_of(weights.type);
    double one = 0, two = 0, more = 0;
    CentroidSums sums;
    std::array<double, kWeightBlock> beyond;
    std::array<uint32_t, kWeightBlock> kinds;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, beyond.data());
        for (size_t i = 0; i < length; ++i) {
            const int32_t level = levels[start + i];
            const double distance = beyond[i] / step - static_cast<double>(level);
            beyond[i] = level < 0 ? -distance : distance;
            kinds[i] = std::min(magnitude_of(level), 3u);
        }
        uint64_t counts = 0;  // four counters of 16 bits: a block has fewer elements than one could hold
        for (size_t i = 0; i < length; ++i) {
            one += beyond[i] * kIsKind[0][kinds[i]];
            two += beyond[i] * kIsKind[1][kinds[i]];
            more += beyond[i] * kIsKind[2][kinds[i]];
            counts += uint64_t{1} << (16 * kinds[i]);
        }
        for (size_t k = 0; k < 3; ++k) sums.count[k] += static_cast<int64_t>(counts >> (16 * (k + 1)) & 0xFFFF);
    });
    sums.total = {one, two, more};
    return sums;
}

Distortion measure_distortion(const Weights& weights, double step, const int32_t* levels,
                              const std::array<int, 3>& centroids) {
    const BlockLoops& loops = loops_of(weights.type);
    const auto float_step = static_cast<float>(step);
    std::array<uint32_t, 3> shifts;  // as bits, of |level| 1, 2, and 3 or more
    for (size_t k = 0; k < 3; ++k) shifts[k] = bits_of(static_cast<float>(centroids[k]) / 256.0f);
    double error = 0, energy = 0;
    int32_t greatest = 0;  // as bits: magnitudes compare as their bits do
    std::array<float, kWeightBlock> decoded;
    std::array<double, kWeightBlock> values, errors;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        for (size_t i = 0; i < length; ++i) {
            const int32_t level = levels[start + i];
            const uint32_t magnitude = magnitude_of(level);
            const uint32_t shift = select(magnitude == 1, shifts[0], 0) | select(magnitude == 2, shifts[1], 0) |
                                   select(magnitude >= 3, shifts[2], 0);
            // Subtracting is adding with the other sign.
            const float outwards = float_of(shift ^ select(level < 0, 0x80000000u, 0));
            decoded[i] = (static_cast<float>(level) + outwards) * float_step;
        }
        loops.round(decoded.data(), length);
        for (size_t i = 0; i < length; ++i) {
            const auto magnitude = static_cast<int32_t>(bits_of(decoded[i]) & 0x7FFFFFFFu);
            greatest = std::max(greatest, magnitude);
        }
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            const double difference = static_cast<double>(decoded[i]) - values[i];
            errors[i] = difference * difference;
        }
        for (size_t i = 0; i < length; ++i) {
            error += errors[i];
            energy += values[i] * values[i];
        }
    });
    return {greatest < 0x7F800000, error, energy};
}

}  // namespace fewbits
