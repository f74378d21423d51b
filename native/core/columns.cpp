#include "columns.h"

#include <algorithm>
#include <cstring>
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

// Makes values of levels, a column after the other.
class Columns {
public:
    Columns(const ColumnLevels& coded, const BlockLoops& loops)
        : coded_(coded), loops_(loops), rows_(coded.models.num_rows), codes_(coded.models.row_codes, coded.models.row_codes + rows_) {
        std::sort(codes_.begin(), codes_.end());
        codes_.erase(std::unique(codes_.begin(), codes_.end()), codes_.end());
        kinds_.resize(rows_);
        sizes_.resize(codes_.size());
        for (size_t r = 0; r < rows_; ++r) {
            const auto at = std::lower_bound(codes_.begin(), codes_.end(), coded.models.row_codes[r]) - codes_.begin();
            kinds_[r] = static_cast<uint32_t>(at);
            ++sizes_[kinds_[r]];
        }
        std::vector<size_t> at(sizes_.size());
        for (size_t k = 1; k < at.size(); ++k) at[k] = at[k - 1] + sizes_[k - 1];
        order_.resize(rows_);
        for (size_t r = 0; r < rows_; ++r) order_[at[kinds_[r]]++] = static_cast<uint32_t>(r);
        for (size_t m = 0; m < coded.models.num_models; ++m) {
            next_.push_back(coded.levels + coded.starts[m]);
            left_.push_back(coded.starts[m + 1] - coded.starts[m]);
        }
        models_.resize(codes_.size());
        levels_.resize(rows_);
        values_.resize(rows_);
        mirrors_.resize(rows_);
    }

    // Writes the words of a column's values.
    void write(size_t column, unsigned char* words) {
        read(coded_.codes[column]);
        follow();
        const float step = coded_.steps[column];
        for (size_t r = 0; r < rows_; ++r) {
            // WIRE: float32, one rounding an operation.
            values_[r] = mirrored(static_cast<float>(levels_[r]) + values_[r], mirrors_[r]) * step * coded_.row_scales[r];
        }
        loops_.round(values_.data(), rows_);
        int32_t greatest = 0;  // magnitudes compare as their bits do
        for (size_t r = 0; r < rows_; ++r) {
            greatest = std::max(greatest, static_cast<int32_t>(bits_of(values_[r]) & 0x7FFFFFFFu));
        }
        finite_ &= greatest < 0x7F800000;
        loops_.store(values_.data(), rows_, words);
    }

    bool is_finite() const { return finite_; }

private:
    // Takes a column's levels from those of their models, with their shifts, which values begin with.
    void read(int32_t code) {
        for (size_t k = 0; k < codes_.size(); ++k) {
            models_[k] = coded_.models.of_sum(static_cast<int64_t>(code) + codes_[k]);
            if (left_[models_[k]] < sizes_[k]) throw Corrupt("a model has fewer levels than elements.");
            left_[models_[k]] -= sizes_[k];
        }
        if (std::adjacent_find(models_.begin(), models_.end()) == models_.end()) {
            // Each code has a model of its own: its rows' levels lie side by side.
            const uint32_t* row = order_.data();
            for (size_t k = 0; k < codes_.size(); ++k) {
                const TrellisShifts& shifts = coded_.shifts[models_[k]];
                const int32_t*& next = next_[models_[k]];
                for (size_t j = 0; j < sizes_[k]; ++j) put(row[j], next[j], shifts);
                next += sizes_[k];
                row += sizes_[k];
            }
            return;
        }
        for (size_t r = 0; r < rows_; ++r) {
            const uint32_t model = models_[kinds_[r]];
            put(r, *next_[model]++, coded_.shifts[model]);
        }
    }

    void put(size_t row, int32_t level, const TrellisShifts& shifts) {
        levels_[row] = level;
        values_[row] = shift_of(shifts, level);
    }

    // Tells which of the levels' values are mirrored.
    void follow() {
        if (coded_.num_paths == 0) return;
        if (coded_.num_paths <= 2) {  // states that stay in registers: the loop waits for nothing else
            for (size_t path = 0; path < coded_.num_paths; ++path) {
                uint32_t state = states_[path];
                for (size_t r = path; r < rows_; r += coded_.num_paths) step(state, r);
                states_[path] = state;
            }
            return;
        }
        for (size_t r = 0; r < rows_; r += coded_.num_paths) {
            for (size_t lane = 0; lane < std::min(coded_.num_paths, rows_ - r); ++lane) step(states_[lane], r + lane);
        }
    }

    void step(uint32_t& state, size_t row) {
        mirrors_[row] = is_mirrored(state);
        state = next_state(state, static_cast<uint32_t>(levels_[row]) & 1);
    }

    const ColumnLevels& coded_;
    const BlockLoops& loops_;
    size_t rows_;
    std::vector<int32_t> codes_;    // of rows, each once
    std::vector<uint32_t> kinds_;   // of rows: places among the codes
    std::vector<size_t> sizes_;     // how many rows have each code
    std::vector<uint32_t> order_;   // rows, by their codes
    std::vector<uint32_t> models_;  // by code, in the present column
    std::vector<const int32_t*> next_;
    std::vector<size_t> left_;
    std::vector<int32_t> levels_;
    std::vector<float> values_;
    std::vector<uint32_t> mirrors_;
    TrellisStates states_{};
    bool finite_ = true;
};

// Copies words that lie column after column to where they lie row after row.
template <size_t kWidth>
void transpose(const unsigned char* strip, size_t rows, size_t count, unsigned char* out, size_t columns) {
    for (size_t r = 0; r < rows; ++r) {
        for (size_t i = 0; i < count; ++i) {
            std::memcpy(out + (r * columns + i) * kWidth, strip + (i * rows + r) * kWidth, kWidth);
        }
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
    const size_t rows = coded.models.num_rows, columns = coded.num_columns, width = width_of(type);
    Columns decoded(coded, loops_of(type));
    std::vector<unsigned char> strip(kStrip * rows * width);
    for (size_t first = 0; first < columns; first += kStrip) {
        const size_t count = std::min(kStrip, columns - first);
        for (size_t i = 0; i < count; ++i) decoded.write(first + i, &strip[i * rows * width]);
        unsigned char* place = out + first * width;
        switch (width) {
            case 2: transpose<2>(strip.data(), rows, count, place, columns); break;
            case 4: transpose<4>(strip.data(), rows, count, place, columns); break;
            default: transpose<8>(strip.data(), rows, count, place, columns); break;
        }
    }
    return decoded.is_finite();
}

}  // namespace fewbits
