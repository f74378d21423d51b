#include "quantize.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "float_bits.h"

namespace fewbits {

namespace {

// Blocks are what an inner loop works on: small enough for the first cache, so that loops which vectorise can hand over
// to those which cannot (sums, look-ups).
constexpr size_t kBlock = 512;
constexpr int32_t kMostLevel = 1 << 30;

// Each element type gives: its word; a word's exact value; the histogram bin of a word without sign; and what a
// float32 becomes when it is rounded to the type, to nearest even, subnormal numbers kept.

struct Float32 {
    using Word = uint32_t;
    static constexpr Word kMagnitude = 0x7FFFFFFF;
    static constexpr Word kInfinity = 0x7F800000;
    static double value(Word word) { return static_cast<double>(float_of(word)); }
    static uint32_t bin(Word magnitude) { return magnitude >> 18; }
    static float rounded(float value) { return value; }
};

struct Float16 {
    using Word = uint16_t;
    static constexpr Word kMagnitude = 0x7FFF;
    static constexpr Word kInfinity = 0x7C00;
    static float widened(Word word) {
        const uint32_t magnitude = word & 0x7FFFu;
        const uint32_t rebiased = (magnitude << 13) + select(magnitude >= 0x7C00u, 224u << 23, 112u << 23);
        const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
        const uint32_t bits = select(magnitude < 0x400u, bits_of(subnormal), rebiased);
        return float_of(bits | (word & 0x8000u) << 16);
    }
    static double value(Word word) { return static_cast<double>(widened(word)); }
    static uint32_t bin(Word magnitude) { return bits_of(widened(magnitude)) >> 18; }
    static float rounded(float value) {
        const uint32_t magnitude = bits_of(value) & 0x7FFFFFFFu;
        // Below 2^-14 float16 counts in units of 2^-24, which is what a float32 just above 1/2 counts in.
        const float small = (float_of(magnitude) + 0.5f) - 0.5f;
        const uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u)) & ~0x1FFFu;
        const uint32_t kept = select(normal >= 0x47800000u, 0x7F800000u, normal);  // from 2^16 on it overflows
        const uint32_t result = select(magnitude < 0x38800000u, bits_of(small), kept);
        return float_of(result | (bits_of(value) & 0x80000000u));
    }
};

struct BFloat16 {
    using Word = uint16_t;
    static constexpr Word kMagnitude = 0x7FFF;
    static constexpr Word kInfinity = 0x7F80;
    static double value(Word word) { return static_cast<double>(float_of(uint32_t{word} << 16)); }
    static uint32_t bin(Word magnitude) { return uint32_t{magnitude} >> 2; }
    static float rounded(float value) {
        const uint32_t bits = bits_of(value);
        return float_of((bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u);
    }
};

struct Float64 {
    using Word = uint64_t;
    static constexpr Word kMagnitude = 0x7FFFFFFFFFFFFFFF;
    static constexpr Word kInfinity = 0x7FF0000000000000;
    static double value(Word word) {
        double value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    }
    static uint32_t bin(Word magnitude) {
        const double number = value(magnitude);
        if (number >= 0x1.ffffffp127) return 0x7F800000u >> 18;  // rounds to infinity
        return bits_of(static_cast<float>(number)) >> 18;
    }
    static float rounded(float value) { return value; }
};

template <class Function>
auto with_element(FloatType type, const Function& function) {
    switch (type) {
        case FloatType::kFloat32: return function(Float32{});
        case FloatType::kFloat16: return function(Float16{});
        case FloatType::kBfloat16: return function(BFloat16{});
        default: return function(Float64{});
    }
}

template <class Element>
typename Element::Word word_at(const unsigned char* bits, size_t place) {
    typename Element::Word word;
    std::memcpy(&word, bits + place * sizeof word, sizeof word);
    return word;
}

// Calls function(start, length) for consecutive blocks.
template <class Function>
void for_blocks(size_t count, const Function& function) {
    for (size_t start = 0; start < count; start += kBlock) function(start, std::min(kBlock, count - start));
}

// The loops that know the element type. They are called a block at a time, so that all else is compiled once.
struct BlockLoops {
    void (*values)(const unsigned char* bits, size_t start, size_t length, double* out);  // w[start + i]
    // The histogram's bins; returns the greatest word without sign.
    uint64_t (*bins)(const unsigned char* bits, size_t start, size_t length, uint32_t* out);
    void (*round)(float* values, size_t length);  // to the type, in place
};

template <class Element>
struct LoopsOf {
    using Word = typename Element::Word;

    static void values(const unsigned char* bits, size_t start, size_t length, double* out) {
        for (size_t i = 0; i < length; ++i) out[i] = Element::value(word_at<Element>(bits, start + i));
    }

    static uint64_t bins(const unsigned char* bits, size_t start, size_t length, uint32_t* out) {
        Word peak = 0;
        for (size_t i = 0; i < length; ++i) {
            const Word magnitude = word_at<Element>(bits, start + i) & Element::kMagnitude;
            peak = std::max(peak, magnitude);
        }
        for (size_t i = 0; i < length; ++i) {
            const Word magnitude = word_at<Element>(bits, start + i) & Element::kMagnitude;
            out[i] = Element::bin(magnitude);
        }
        return peak;
    }

    static void round(float* values, size_t length) {
        for (size_t i = 0; i < length; ++i) values[i] = Element::rounded(values[i]);
    }
};

BlockLoops loops_of(FloatType type) {
    return with_element(type, [](auto element) -> BlockLoops {
        using Loops = LoopsOf<decltype(element)>;
        return {Loops::values, Loops::bins, Loops::round};
    });
}

uint32_t magnitude_of(int32_t level) {
    const auto word = static_cast<uint32_t>(level);
    return level < 0 ? 0 - word : word;
}

}  // namespace

size_t width_of(FloatType type) {
    return with_element(type, [](auto element) { return sizeof(typename decltype(element)::Word); });
}

Extent measure(const Weights& weights, int64_t* bins) {
    const BlockLoops loops = loops_of(weights.type);
    uint64_t peak = 0;
    double energy = 0;
    // Two histograms in turn: equal neighbours (zeros, often) need not wait for each other.
    std::array<uint32_t, kMagnitudeBins> other{};
    std::array<double, kBlock> values;
    std::array<uint32_t, kBlock> places;
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
    for (size_t start = 0; start < weights.count; start += kBlock) {
        add(start, std::min(kBlock, weights.count - start));
        if (start % (size_t{1} << 30) == 0 && start) flush();  // long before a uint32 could wrap
    }
    flush();
    return with_element(weights.type, [&](auto element) -> Extent {
        using Element = decltype(element);
        if (peak >= Element::kInfinity) {
            return {false, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
        }
        return {true, Element::value(static_cast<typename Element::Word>(peak)), energy};
    });
}

bool round_levels(const Weights& weights, double step, int32_t* levels) {
    constexpr double kLimit = kMostLevel;
    // Adding 3 * 2^51 leaves no bits below 1: the sum is rounded to nearest even, the difference is exact.
    constexpr double kRounding = 0x1.8p52;
    const BlockLoops loops = loops_of(weights.type);
    uint32_t magnitudes = 0;
    std::array<double, kBlock> values;
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
    const BlockLoops loops = loops_of(weights.type);
    // The last entry is for levels without a gain, and 0 cannot move: no distortion is below their gain.
    std::array<double, kMostGains + 1> gain_of;
    gain_of.fill(-std::numeric_limits<double>::infinity());
    std::copy(gains.gains, gains.gains + gains.count, gain_of.begin());
    const uint64_t zero = 0 - static_cast<uint64_t>(gains.low);
    if (zero < gains.count) gain_of[static_cast<size_t>(zero)] = -std::numeric_limits<double>::infinity();
    const uint64_t low = static_cast<uint64_t>(gains.low), count = gains.count;
    std::array<double, kBlock> values, added;
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
    const BlockLoops loops = loops_of(weights.type);
    double one = 0, two = 0, more = 0;
    CentroidSums sums;
    std::array<double, kBlock> beyond;
    std::array<uint32_t, kBlock> kinds;
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
    const BlockLoops loops = loops_of(weights.type);
    const auto float_step = static_cast<float>(step);
    std::array<uint32_t, 3> shifts;  // as bits, of |level| 1, 2, and 3 or more
    for (size_t k = 0; k < 3; ++k) shifts[k] = bits_of(static_cast<float>(centroids[k]) / 256.0f);
    double error = 0, energy = 0;
    int32_t greatest = 0;  // as bits: magnitudes compare as their bits do
    std::array<float, kBlock> decoded;
    std::array<double, kBlock> values, errors;
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
