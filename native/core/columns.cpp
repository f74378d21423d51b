#include "columns.h"

#include <algorithm>
#include <vector>

#include "errors.h"
#include "output.h"

namespace fewbits {

namespace {

constexpr float kReach = 1 << 20;       // steps: a float32 still tells quarters of one apart
constexpr float kRounding = 0x1.8p23f;  // added and taken off, it leaves the nearest integer, half to even
constexpr size_t kStrip = 16;      // columns that are written together

inline size_t kind_of(int32_t level) {
    return level == 0 ? 0 : level == -1 ? 1 : level == 1 ? 2 : 3;
}

inline float shift_of(const TrellisShifts& shifts, int32_t level) {
    return shifts[static_cast<size_t>(std::min(std::max(level, -2), 2) + 2)];
}

// The code of a column of quotients.
int32_t code_of(const ColumnSearch& search, const float* quotients) {
    const size_t rows = search.models.num_rows;
    double total = 0;
    for (size_t r = 0; r < rows; ++r) {
        total += static_cast<double>(float_of(bits_of(quotients[r]) & 0x7FFFFFFFu) * search.row_units[r]);
    }
    const double mean = total / static_cast<double>(rows);
    return static_cast<int32_t>(std::lower_bound(search.scales, search.scales + search.num_scales, mean) -
                                search.scales);
}

// Which path a row is on: its place among the states. Without a trellis there is one, which is never mirrored.
inline size_t path_of(size_t row, size_t num_paths) { return num_paths ? row & (num_paths - 1) : 0; }

inline void move_on(uint32_t& state, int32_t level, size_t num_paths) {
    if (num_paths) state = next_state(state, static_cast<uint32_t>(level) & 1);
}

// Without a trellis: the nearest level, or the next one towards 0 where it costs less.
void round_column(const ColumnSearch& search, const float* quotients, const uint32_t* tables, int32_t* levels) {
    for (size_t r = 0; r < search.models.num_rows; ++r) {
        const auto cost = [&](int32_t level) {
            const float point = static_cast<float>(level) + shift_of(search.shifts[tables[r]], level);
            const int32_t place = std::min(std::max(level, -kMostPriced), kMostPriced) + kMostPriced;
            const float distance = quotients[r] - point;
            return distance * distance + search.prices[tables[r] * kPrices + static_cast<size_t>(place)];
        };
        const auto near = static_cast<int32_t>((quotients[r] + kRounding) - kRounding);
        const int32_t inner = near == 0 ? 0 : near > 0 ? near - 1 : near + 1;
        levels[r] = cost(inner) < cost(near) ? inner : near;
    }
}

// With one: the levels of least cost in all, from the states that paths are in.
void search_column(TrellisSearch& trellis, const TrellisStates& states, const std::vector<float>& quotients,
                   const std::vector<uint32_t>& tables, int32_t* levels) {
    const size_t rows = quotients.size();
    trellis.start(states);
    for_blocks(rows, [&](size_t start, size_t length) {
        trellis.forward(&quotients[start], &tables[start], start, length);
    });
    trellis.turn();
    for (size_t start = (rows - 1) / kWeightBlock * kWeightBlock;; start -= kWeightBlock) {
        trellis.backward(&quotients[start], start, std::min(kWeightBlock, rows - start), levels + start);
        if (start == 0) break;
    }
}

}  // namespace

bool code_columns(const ColumnSearch& search, size_t count, float* columns, const float* feedback, const float* steps,
                  TrellisStates& states, int32_t* codes, int32_t* levels, const ColumnSums& sums) {
    const ElementModels& models = search.models;
    const size_t rows = models.num_rows;
    TrellisSearch trellis(rows, search.num_paths, search.shifts, search.prices, models.num_models);
    const float offset = search.num_paths ? 0.25f : 0.0f;
    std::vector<float> quotients(rows);
    std::vector<uint32_t> tables(rows);
    for (size_t i = 0; i < count; ++i) {
        float* column = columns + i * rows;
        bool reached = true;
        for (size_t r = 0; r < rows; ++r) {
            quotients[r] = column[r] / steps[i];
            reached &= quotients[r] < kReach && quotients[r] > -kReach;
        }
        if (!reached) return false;
        codes[i] = code_of(search, quotients.data());
        for (size_t r = 0; r < rows; ++r) tables[r] = models.of(codes[i], r);
        int32_t* found = levels + i * rows;
        if (search.num_paths) {
            search_column(trellis, states, quotients, tables, found);
        } else {
            round_column(search, quotients.data(), tables.data(), found);
        }
        for (size_t r = 0; r < rows; ++r) {
            uint32_t& state = states[path_of(r, search.num_paths)];
            const uint32_t mirror = is_mirrored(state);
            const auto level = static_cast<float>(found[r]);
            const float point = mirrored(level + shift_of(search.shifts[tables[r]], found[r]), mirror);
            const float middle = mirrored(level + offset, mirror);
            const double distance = static_cast<double>(quotients[r]) - static_cast<double>(middle);
            const size_t kind = 4 * tables[r] + kind_of(found[r]);
            sums.totals[kind] += middle < 0 ? -distance : distance;
            ++sums.counts[kind];
            column[r] = point * steps[i];
            move_on(state, found[r], search.num_paths);
        }
        for (size_t j = i + 1; j < count; ++j) {
            const float share = feedback[i * count + j];
            float* after = columns + j * rows;
            for (size_t r = 0; r < rows; ++r) after[r] -= share * column[r];
        }
    }
    return true;
}

bool column_values(const ColumnLevels& coded, FloatType type, unsigned char* out) {
    const DefaultFloatEnvironment environment;
    const BlockLoops& loops = loops_of(type);
    const ElementModels& models = coded.models;
    const size_t rows = models.num_rows, columns = coded.num_columns, width = width_of(type);
    std::vector<size_t> next(coded.starts, coded.starts + models.num_models);
    std::vector<float> strip(kStrip * rows);
    TrellisStates states{};
    bool finite = true;
    for (size_t first = 0; first < columns; first += kStrip) {
        const size_t count = std::min(kStrip, columns - first);
        for (size_t i = 0; i < count; ++i) {
            const int32_t code = coded.codes[first + i];
            const float step = coded.steps[first + i];
            for (size_t r = 0; r < rows; ++r) {
                const uint32_t model = models.of(code, r);
                if (next[model] == coded.starts[model + 1]) throw Corrupt("a model has fewer levels than elements.");
                const int32_t level = coded.levels[next[model]++];
                uint32_t& state = states[path_of(r, coded.num_paths)];
                const float point = static_cast<float>(level) + shift_of(coded.shifts[model], level);
                // WIRE: float32, one rounding an operation.
                strip[r * kStrip + i] = mirrored(point, is_mirrored(state)) * step * coded.row_scales[r];
                move_on(state, level, coded.num_paths);
            }
        }
        for (size_t r = 0; r < rows; ++r) {
            float* values = &strip[r * kStrip];
            loops.round(values, count);
            for (size_t i = 0; i < count; ++i) finite &= (bits_of(values[i]) & 0x7FFFFFFFu) < 0x7F800000u;
            loops.store(values, count, out + (r * columns + first) * width);
        }
    }
    return finite;
}

}  // namespace fewbits
