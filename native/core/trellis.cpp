#include "trellis.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "levels.h"
#include "output.h"

namespace fewbits {

namespace {

constexpr float kQuarter = 0.25f;
constexpr double kReach = 1 << 20;  // steps: a float32 still tells quarters of one apart

// ---- from levels to values

// Follows all paths from their start, a block at a time.
class Paths {
public:
    Paths() { ones_.fill(1); }

    // Writes values, times a step; returns all bits that one has. All blocks but the last are whole.
    uint32_t follow(const int32_t* levels, size_t count, const TrellisShifts& shifts, float step, float* values) {
        if (count % kLevelGroup != 0) levels = std::copy_n(levels, count, last_.data()) - count;
        loops_.points(levels, count, shifts, points_.data(), mirrors_.parities());
        return loops_.values(points_.data(), mirrors_.follow(count), step, ones_.data(), count, values);
    }

private:
    const LevelLoops& loops_ = level_loops();
    Mirrors mirrors_{kWeightBlock, kPaths};
    std::array<int32_t, kWeightBlock> last_{};  // levels that are not whole groups
    std::array<float, kWeightBlock> points_, ones_;
};

inline float quotient(double value, double step) { return static_cast<float>(value / step); }

// Writes the price tables of a block's elements: those of their rows' classes.
void tables_of(const TrellisPrices& prices, size_t start, size_t count, uint32_t* tables) {
    if (prices.classes == nullptr) return;
    size_t row = start / prices.row_length, left = prices.row_length - start % prices.row_length;
    for (size_t i = 0; i < count; ++i, --left) {
        if (left == 0) {
            ++row;
            left = prices.row_length;
        }
        tables[i] = static_cast<uint32_t>(prices.classes[row]);
    }
}

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
    const std::vector<TrellisShifts> shifts_of_all(prices.num_classes, shifts);
    TrellisSearch search(weights.count, kPaths, shifts_of_all.data(), prices.prices, prices.num_classes);
    search.start({});
    std::array<uint32_t, kWeightBlock> tables{};
    for (size_t start = 0; start < weights.count; start += kWeightBlock) {
        const size_t length = std::min(kWeightBlock, weights.count - start);
        read(start, length);
        if (!reached) return false;
        tables_of(prices, start, length, tables.data());
        search.forward(quotients.data(), tables.data(), start, length);
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
        paths.follow(levels + start, length, middle, 1, points.data());
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
    const size_t width = width_of(weights.type);
    const auto float_step = static_cast<float>(step);
    Paths paths;
    double error = 0, energy = 0;
    bool finite = true;
    std::array<double, kWeightBlock> values;
    std::array<float, kWeightBlock> points;
    for_blocks(weights.count, [&](size_t start, size_t length) {
        const uint32_t joined = paths.follow(levels + start, length, shifts, float_step, points.data());
        finite &= round_values(loops, width, joined, points.data(), length);
        loops.values(weights.bits, start, length, values.data());
        for (size_t i = 0; i < length; ++i) {
            const double difference = static_cast<double>(points[i]) - values[i];
            error += difference * difference;
            energy += values[i] * values[i];
        }
    });
    return {finite, error, energy};
}

bool trellis_values(const int32_t* levels, size_t count, double step, const TrellisShifts& shifts, FloatType type,
                    unsigned char* out) {
    const DefaultFloatEnvironment environment;
    const BlockLoops& loops = loops_of(type);
    const auto float_step = static_cast<float>(step);
    const size_t width = width_of(type);
    Paths paths;
    bool finite = true;
    std::array<float, kWeightBlock> points;
    for_blocks(count, [&](size_t start, size_t length) {
        // Words of 4 bytes are the values themselves.
        float* made = width == 4 ? reinterpret_cast<float*>(out) + start : points.data();
        // WIRE: float32, one rounding an operation
        const uint32_t joined = paths.follow(levels + start, length, shifts, float_step, made);
        finite &= round_values(loops, width, joined, made, length);
        if (width != 4) loops.store(made, length, out + start * width);
    });
    return finite;
}

// NUMERICS: a step's 256th must be a normal number, or it is rounded; and a point of 0 has a sign, which integers have not.
bool are_bytes_enough(double step, const TrellisShifts& shifts) {
    const PointTable table(shifts);
    return table.is_exact && table.added[2] != 0 && static_cast<float>(step) >= 0x1p-118f;
}

bool trellis_values(const ByteLevels& coded, size_t count, double step, const TrellisShifts& shifts, FloatType type,
                    unsigned char* out) {
    const DefaultFloatEnvironment environment;
    const BlockLoops& words = loops_of(type);
    const LevelLoops& loops = level_loops();
    const size_t width = width_of(type);
    const auto float_step = static_cast<float>(step);
    const PointTable table(shifts);
    Mirrors paths(kWeightBlock, kPaths);
    std::array<int16_t, kWeightBlock + kLevelGroup> points;
    std::array<float, kWeightBlock> values;
    bool finite = true;
    size_t far = 0;
    for_blocks(count, [&](size_t start, size_t length) {
        uint8_t* const levels = paths.parities();
        std::memcpy(levels, coded.levels + start, length);
        const uint8_t* const mirrors = paths.follow(length);
        const PointRun run = {length, &table};
        loops.small_points(reinterpret_cast<const int8_t*>(levels), mirrors, &run, 1, points.data());
        float* const made = width == 4 ? reinterpret_cast<float*>(out) + start : values.data();
        uint32_t joined = loops.scale_points(points.data(), length, float_step / 256, made);
        for (; far < coded.num_far_levels; ++far) {
            const size_t place = coded.far_levels[far].index - start;
            if (place >= length) break;
            const int32_t level = coded.far_levels[far].level;
            const float point = static_cast<float>(level) + shifts[level < 0 ? 0 : 4];
            made[place] = mirrored(point, mirrors[place]) * float_step;
            joined |= bits_of(made[place]);
        }
        finite &= round_values(words, width, joined, made, length);
        if (width != 4) words.store(made, length, out + start * width);
    });
    return finite;
}

}  // namespace fewbits
