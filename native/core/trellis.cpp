#include "trellis.h"

#include <cstring>
#include <vector>

#include "float_bits.h"
#include "output.h"

namespace fewbits {

namespace {

static_assert(kWeightBlock % kPaths == 0, "a block is whole steps of all paths");

constexpr float kQuarter = 0.25f;
constexpr double kReach = 1 << 20;  // steps: a float32 still tells quarters of one apart
constexpr float kFar = 1e30f;       // the cost of a state that no path has reached
constexpr float kRounding = 0x1.8p23f;  // added and taken off, it leaves the nearest integer, half to even

// The state of a path after a level. WIRE: a convolutional code of Ungerboeck's (1982) with eight states.
inline uint32_t next_state(uint32_t state, uint32_t parity) {
    return (state & 3) << 1 ^ 3 * (state >> 2) ^ parity << 2;
}

// Whether the next value of a path is mirrored.
inline uint32_t is_mirrored(uint32_t state) { return state >> 2; }

inline float quotient(double value, double step) { return static_cast<float>(value / step); }

inline float mirrored(float value, uint32_t mirror) { return float_of(bits_of(value) ^ mirror << 31); }

// ---- from levels to values

// Follows all paths from their start, a block at a time.
class Paths {
public:
    // Writes values in steps. All blocks but the last are whole.
    void follow(const int32_t* levels, size_t count, const TrellisShifts& shifts, float* values) {
        std::array<uint32_t, kWeightBlock> mirrors;
        for (size_t i = 0; i < count; i += kPaths) {
            const size_t lanes = std::min(kPaths, count - i);
            for (size_t lane = 0; lane < lanes; ++lane) {
                mirrors[i + lane] = is_mirrored(state_[lane]);
                state_[lane] = next_state(state_[lane], static_cast<uint32_t>(levels[i + lane]) & 1);
            }
        }
        std::array<uint32_t, 5> words;
        for (size_t k = 0; k < 5; ++k) words[k] = bits_of(shifts[k]);
        for (size_t i = 0; i < count; ++i) {
            const int32_t level = levels[i];
            const uint32_t shift = select(level <= -2, words[0], 0) | select(level == -1, words[1], 0) |
                                   select(level == 0, words[2], 0) | select(level == 1, words[3], 0) |
                                   select(level >= 2, words[4], 0);
            values[i] = mirrored(static_cast<float>(level) + float_of(shift), mirrors[i]);
        }
    }

private:
    std::array<uint32_t, kPaths> state_{};
};

// The greatest magnitude of values, as its bits: magnitudes compare as their bits do.
int32_t greatest_of(const float* values, size_t count) {
    int32_t greatest = 0;
    for (size_t i = 0; i < count; ++i) {
        greatest = std::max(greatest, static_cast<int32_t>(bits_of(values[i]) & 0x7FFFFFFFu));
    }
    return greatest;
}

constexpr int32_t kInfinity = 0x7F800000;

// ---- from weights to levels

// One of the four sets of values that a path can choose from: a quantiser, mirrored or not, and the parity of a level.
// Branch 2 * mirror + parity.
constexpr size_t kBranches = 4;

// The level of a branch nearest to a quotient, and the next one towards 0.
struct Choice {
    float near, inner;
};

inline Choice choices(float quotient, uint32_t mirror, float parity) {
    const float half = (mirrored(quotient, mirror) - kQuarter - parity) * 0.5f;
    const float near = 2.0f * ((half + kRounding) - kRounding) + parity;
    const float inwards = near > 0 ? -2.0f : 2.0f;
    return {near, near == 0 ? near : near + inwards};
}

inline uint32_t place_of(float level) {
    const float limit = kMostPriced;
    const float above = level > -limit ? level : -limit;
    return static_cast<uint32_t>(static_cast<int32_t>(above < limit ? above : limit) + kMostPriced);
}

class Search {
public:
    Search(size_t count, const TrellisShifts& shifts, const TrellisPrices& prices)
        : shifts_(kPrices), prices_(prices), notes_(count) {
        for (size_t k = 0; k < kPrices; ++k) {
            const int level = static_cast<int>(k) - kMostPriced;
            shifts_[k] = shifts[static_cast<size_t>(std::min(std::max(level, -2), 2) + 2)];
        }
        for (auto& costs : cost_) costs.fill(kFar);
        cost_[0].fill(0);
    }

    // Takes a block of quotients, from element `start` on.
    void forward(const float* quotients, size_t start, size_t count) {
        price(quotients, start, count);
        for (size_t i = 0; i < count; i += kPaths) step(i, std::min(kPaths, count - i), &notes_[start + i]);
    }

    // Ends all paths where they cost least.
    void turn() {
        for (size_t lane = 0; lane < kPaths; ++lane) {
            state_[lane] = 0;
            for (uint32_t state = 1; state < 8; ++state) {
                if (cost_[state][lane] < cost_[state_[lane]][lane]) state_[lane] = state;
            }
        }
    }

    // Takes the blocks again, the last one first, and writes their levels.
    void backward(const float* quotients, size_t start, size_t count, int32_t* levels) {
        for (size_t i = (count - 1) / kPaths * kPaths;; i -= kPaths) {
            for (size_t lane = 0; lane < std::min(kPaths, count - i); ++lane) {
                const uint32_t state = state_[lane], note = notes_[start + i + lane];
                const uint32_t late = note >> state & 1, mirror = state & 1;
                const uint32_t parity = state >> 2 ^ late;
                state_[lane] = before(state, late);
                const Choice choice = choices(quotients[i + lane], mirror, static_cast<float>(parity));
                const bool inner = note >> (8 + 2 * mirror + parity) & 1;
                levels[i + lane] = static_cast<int32_t>(inner ? choice.inner : choice.near);
            }
            if (i == 0) break;
        }
    }

private:
    // The two states that lead to a state differ in their middle bit: `late` if it is set. See `next_state`.
    static uint32_t before(uint32_t state, uint32_t late) {
        return ((state ^ state >> 1) & 1) | late << 1 | (state & 1) << 2;
    }

    void price(const float* quotients, size_t start, size_t count) {
        std::array<uint32_t, kWeightBlock> tables{};  // where each element's prices begin
        if (prices_.classes != nullptr) {
            size_t row = start / prices_.row_length, left = prices_.row_length - start % prices_.row_length;
            for (size_t i = 0; i < count; ++i, --left) {
                if (left == 0) {
                    ++row;
                    left = prices_.row_length;
                }
                tables[i] = static_cast<uint32_t>(prices_.classes[row]) * static_cast<uint32_t>(kPrices);
            }
        }
        inner_.fill(0);
        for (uint32_t branch = 0; branch < kBranches; ++branch) {
            const uint32_t mirror = branch >> 1;
            const auto parity = static_cast<float>(branch & 1);
            std::array<uint32_t, kWeightBlock> near, inner;
            for (size_t i = 0; i < count; ++i) {
                const Choice choice = choices(quotients[i], mirror, parity);
                near[i] = place_of(choice.near);
                inner[i] = place_of(choice.inner);
            }
            std::array<float, kWeightBlock> near_shift, inner_shift, near_price, inner_price;
            for (size_t i = 0; i < count; ++i) {
                near_shift[i] = shifts_[near[i]];
                inner_shift[i] = shifts_[inner[i]];
                near_price[i] = prices_.prices[tables[i] + near[i]];
                inner_price[i] = prices_.prices[tables[i] + inner[i]];
            }
            for (size_t i = 0; i < count; ++i) {
                const Choice choice = choices(quotients[i], mirror, parity);
                const float value = mirrored(quotients[i], mirror);
                const float far = value - (choice.near + near_shift[i]), close = value - (choice.inner + inner_shift[i]);
                const float cost = far * far + near_price[i], other = close * close + inner_price[i];
                branch_[branch][i] = other < cost ? other : cost;
                inner_[i] |= static_cast<uint32_t>(other < cost) << (8 + branch);
            }
        }
    }

    // Adds, compares, selects: one step of some paths, the others rest.
    void step(size_t i, size_t lanes, uint16_t* notes) {
        std::array<std::array<float, kPaths>, 8> costs;
        std::array<uint32_t, kPaths> note{};
        for (uint32_t state = 0; state < 8; ++state) {
            const float* early = cost_[before(state, 0)].data();
            const float* late = cost_[before(state, 1)].data();
            const float* early_branch = &branch_[2 * (state & 1) + (state >> 2)][i];
            const float* late_branch = &branch_[2 * (state & 1) + (state >> 2 ^ 1)][i];
            float* cost = costs[state].data();
            for (size_t lane = 0; lane < lanes; ++lane) {
                const float a = early[lane] + early_branch[lane], b = late[lane] + late_branch[lane];
                cost[lane] = b < a ? b : a;
                note[lane] |= static_cast<uint32_t>(b < a) << state;
            }
        }
        // Only differences matter: the least is taken off, so that sums stay exact to the same place.
        std::array<float, kPaths> least = costs[0];
        for (uint32_t state = 1; state < 8; ++state) {
            for (size_t lane = 0; lane < lanes; ++lane) {
                least[lane] = costs[state][lane] < least[lane] ? costs[state][lane] : least[lane];
            }
        }
        for (uint32_t state = 0; state < 8; ++state) {
            for (size_t lane = 0; lane < lanes; ++lane) cost_[state][lane] = costs[state][lane] - least[lane];
        }
        for (size_t lane = 0; lane < lanes; ++lane) notes[lane] = static_cast<uint16_t>(note[lane] | inner_[i + lane]);
    }

    std::vector<float> shifts_;
    TrellisPrices prices_;
    // Of each element: in bits 0 ... 7, whether the best way to each state comes from the late one of the two before
    // it; in bits 8 ... 11, whether each branch's best level is the inner one.
    std::vector<uint16_t> notes_;
    std::array<std::array<float, kWeightBlock + kPaths>, kBranches> branch_;
    std::array<uint32_t, kWeightBlock + kPaths> inner_;
    std::array<std::array<float, kPaths>, 8> cost_;  // of the best way to each state
    std::array<uint32_t, kPaths> state_{};           // on the way back
};

}  // namespace

bool trellis_levels(const Weights& weights, double step, const TrellisShifts& shifts, const TrellisPrices& prices,
                    int32_t* levels) {
    if (weights.count == 0) return true;
    const BlockLoops& loops = loops_of(weights.type);
    std::array<double, kWeightBlock> values;
    std::array<float, kWeightBlock> quotients;
    bool reached = true;
    const auto read = [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            reached &= values[i] < kReach * step && values[i] > -kReach * step;
            quotients[i] = quotient(values[i], step);
        }
    };
    Search search(weights.count, shifts, prices);
    for (size_t start = 0; start < weights.count; start += kWeightBlock) {
        const size_t length = std::min(kWeightBlock, weights.count - start);
        read(start, length);
        if (!reached) return false;
        search.forward(quotients.data(), start, length);
    }
    search.turn();
    for (size_t start = (weights.count - 1) / kWeightBlock * kWeightBlock;; start -= kWeightBlock) {
        const size_t length = std::min(kWeightBlock, weights.count - start);
        read(start, length);
        search.backward(quotients.data(), start, length, levels + start);
        if (start == 0) break;
    }
    return true;
}

TrellisSums trellis_sums(const Weights& weights, double step, const int32_t* levels) {
    const BlockLoops& loops = loops_of(weights.type);
    const TrellisShifts middle = {kQuarter, kQuarter, kQuarter, kQuarter, kQuarter};
    Paths paths;
    TrellisSums sums;
    // As in `centroid_sums`: a term is added to all sums, as itself or as a 0, so that no sum waits and nothing branches.
    static constexpr double kIsKind[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
    std::array<double, 4> totals{};
    std::array<double, kWeightBlock> values, beyond;
    std::array<float, kWeightBlock> points;
    std::array<uint32_t, kWeightBlock> kinds;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        loops.values(weights.bits, start, length, values.data());
        paths.follow(levels + start, length, middle, points.data());
        for (size_t i = 0; i < length; ++i) {
            const int32_t level = levels[start + i];
            kinds[i] = select(level == -1, 1, 0) | select(level == 1, 2, 0) | select(level < -1 || level > 1, 3, 0);
            const double distance = values[i] / step - static_cast<double>(points[i]);
            beyond[i] = points[i] < 0 ? -distance : distance;
        }
        uint64_t counts = 0;  // four counters of 16 bits: a block has fewer elements than one could hold
        for (size_t i = 0; i < length; ++i) {
            for (size_t k = 0; k < 4; ++k) totals[k] += beyond[i] * kIsKind[kinds[i]][k];
            counts += uint64_t{1} << (16 * kinds[i]);
        }
        for (size_t k = 0; k < 4; ++k) sums.count[k] += static_cast<int64_t>(counts >> (16 * k) & 0xFFFF);
    });
    sums.total = totals;
    return sums;
}

Distortion trellis_distortion(const Weights& weights, double step, const TrellisShifts& shifts, const int32_t* levels) {
    const BlockLoops& loops = loops_of(weights.type);
    const auto float_step = static_cast<float>(step);
    Paths paths;
    double error = 0, energy = 0;
    int32_t greatest = 0;
    std::array<double, kWeightBlock> values;
    std::array<float, kWeightBlock> points;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        paths.follow(levels + start, length, shifts, points.data());
        for (size_t i = 0; i < length; ++i) points[i] *= float_step;
        loops.round(points.data(), length);
        greatest = std::max(greatest, greatest_of(points.data(), length));
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            const double difference = static_cast<double>(points[i]) - values[i];
            error += difference * difference;
            energy += values[i] * values[i];
        }
    });
    return {greatest < kInfinity, error, energy};
}

bool trellis_values(const int32_t* levels, size_t count, double step, const TrellisShifts& shifts, FloatType type,
                    unsigned char* out) {
    const DefaultFloatEnvironment environment;
    const BlockLoops& loops = loops_of(type);
    const auto float_step = static_cast<float>(step);
    const size_t width = width_of(type);
    Paths paths;
    int32_t greatest = 0;
    std::array<float, kWeightBlock> points;
    for_blocks(count, [&](size_t start, size_t length) {
        paths.follow(levels + start, length, shifts, points.data());
        for (size_t i = 0; i < length; ++i) points[i] *= float_step;  // WIRE: float32, one rounding an operation
        loops.round(points.data(), length);
        greatest = std::max(greatest, greatest_of(points.data(), length));
        loops.store(points.data(), length, out + start * width);
    });
    return greatest < kInfinity;
}

}  // namespace fewbits
