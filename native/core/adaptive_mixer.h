// Estimates of a decision's odds, and their mixer (docs/format.md, section 9.4): integers only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fewbits {

// WIRE: 1024 log2(1 + i / 16), rounded.
constexpr int16_t kLogarithms[17] = {0,   90,  174, 254, 330, 402, 470, 536, 599,
                                     659, 717, 773, 827, 879, 929, 977, 1024};
// WIRE: 65536 / (1 + 2^(-i / 2)), rounded.
constexpr int32_t kProbabilities[27] = {32768, 38390, 43691, 48418, 52429, 55691, 58254, 60214, 61681,
                                        62762, 63550, 64119, 64528, 64820, 65028, 65176, 65281, 65355,
                                        65408, 65446, 65472, 65491, 65504, 65513, 65520, 65525, 65528};

// log2 of x >= 1 in units of 1/1024, linear between sixteenths of an octave.
inline int32_t logarithm(uint32_t x) {
    // NUMERICS: exact, and a double holds what is needed: the exponent, then the fraction from its highest bit down.
    const auto exact = static_cast<double>(x);
    uint64_t bits = 0;
    std::memcpy(&bits, &exact, sizeof bits);
    const auto octave = static_cast<int32_t>(bits >> 52) - 1023;
    const auto i = static_cast<size_t>(bits >> 48 & 15);
    const auto fraction = static_cast<int32_t>(bits >> 36 & 4095);
    const int32_t step = kLogarithms[i + 1] - kLogarithms[i];
    return octave * 1024 + kLogarithms[i] + (step * fraction >> 12);
}

// The probability, in 1/65536 and 8 ... 65528, of log odds in units of 1/1024 of a factor of 2.
inline uint32_t squash(int64_t log_odds) {
    const auto size = static_cast<int32_t>(std::min<int64_t>(log_odds < 0 ? -log_odds : log_odds, 13 * 1024 - 1));
    const int32_t i = size >> 9, fraction = size & 511;
    const int32_t step = kProbabilities[i + 1] - kProbabilities[i];
    const int32_t p = kProbabilities[i] + ((step * fraction + 256) >> 9);
    return static_cast<uint32_t>(log_odds < 0 ? 65536 - p : p);
}

// How often a decision was 0 and 1, in 64ths.
struct Counts {
    uint32_t zeros = 0, ones = 0;

    // In 1/65536. Not of counts without any.
    uint32_t probability() const { return static_cast<uint32_t>((uint64_t{ones} << 16) / (uint64_t{zeros} + ones)); }

    // With `weight` 64ths of a decision more, of this probability of 1; never without any.
    Counts blend(uint32_t weight, uint32_t probability) const {
        const uint32_t more_ones = weight * probability >> 16;  // weight < 2^16
        return {zeros + weight - more_ones + 1, ones + more_ones + 1};
    }

    int32_t stretch() const { return logarithm(ones) - logarithm(zeros); }
};

// WIRE
constexpr uint32_t kHit = 64;
constexpr uint32_t kContextLimit = 192 * kHit;
constexpr uint32_t kDensityLimit = 1023 * kHit;  // fits in 16 bits

// Counts that are kept.
struct Counter {
    uint16_t zeros = 0, ones = 0;

    Counts counts() const { return {zeros, ones}; }

    void hit(bool bit, uint32_t limit) {
        uint32_t new_zeros = zeros + (bit ? 0 : kHit), new_ones = ones + (bit ? kHit : 0);
        if (new_zeros + new_ones > limit) {
            new_zeros = (new_zeros + 1) / 2;
            new_ones = (new_ones + 1) / 2;
        }
        zeros = static_cast<uint16_t>(new_zeros);
        ones = static_cast<uint16_t>(new_ones);
    }
};

// Log odds about to be mixed, as deviations from a base.
struct Inputs {
    explicit Inputs(int32_t log_odds) : base(log_odds) {}

    void add(int32_t deviation) { deviations[count++] = deviation; }
    void add(const Counts& counts) { add(counts.stretch() - base); }

    int32_t base;
    int count = 0;
    int32_t deviations[12];
};

// Weights in 1/65536, learned by descent on the code length.
struct Mixer {
    int32_t weights[12];

    uint32_t mix(const Inputs& inputs) const {
        int64_t sum = int64_t{inputs.base} * 65536;
        for (int i = 0; i < inputs.count; ++i) sum += int64_t{weights[i]} * inputs.deviations[i];
        return squash(sum >> 16);  // NUMERICS: rounds down, as all shifts here
    }

    void learn(const Inputs& inputs, uint32_t probability, bool bit, int64_t rate) {
        const int64_t error = (bit ? 65536 : 0) - static_cast<int64_t>(probability);
        for (int i = 0; i < inputs.count; ++i) {
            const int64_t step = (error * inputs.deviations[i] * rate + (1 << 23)) >> 24;
            weights[i] = static_cast<int32_t>(std::clamp<int64_t>(weights[i] + step, -kMostWeight, kMostWeight));
        }
    }

    static constexpr int64_t kMostWeight = 8 << 16;  // WIRE
};

}  // namespace fewbits
