#include <algorithm>
#include <vector>

#include "columns.h"
#include "float_bits.h"

namespace fewbits {

namespace {

constexpr float kReach = 1 << 20;       // steps: a float32 still tells quarters of one apart
constexpr float kRounding = 0x1.8p23f;  // added and taken off, it leaves the nearest integer, half to even

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
void round_levels(const ColumnSearch& search, const float* quotients, const uint32_t* tables, size_t count,
                  int32_t* levels) {
    for (size_t r = 0; r < count; ++r) {
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

bool are_reached(const float* quotients, size_t count) {
    bool reached = true;
    for (size_t r = 0; r < count; ++r) reached &= quotients[r] < kReach && quotients[r] > -kReach;
    return reached;
}

// Finds levels. Where errors of rows are fed back, what those before add up to is taken off the quotients first, segment
// by segment; else a segment is a block of the search.
class RowSearch {
public:
    explicit RowSearch(const ColumnSearch& search)
        : search_(search),
          rows_(search.rows),
          trellis_(search.models.num_rows, search.num_paths, search.shifts, search.prices, search.models.num_models),
          sums_(search.rows.num_sums),
          mirrors_(search.models.num_rows) {}

    // `quotients` become those that the levels are for. False if one is out of reach.
    bool find(const TrellisStates& states, std::vector<float>& quotients, const uint32_t* tables, int32_t* levels) {
        const size_t rows = quotients.size(), segment = rows_.num_sums ? rows_.segment : kWeightBlock;
        points_ = quotients;  // as if there were no error yet
        std::fill(sums_.begin(), sums_.end(), 0.0f);
        trellis_.start(states);
        for (size_t start = 0; start < rows; start += segment) {
            const size_t stop = std::min(rows, start + segment), before = (rows_.looked_at - 1) * segment;
            size_t first = start;
            take_off(&quotients[start], start, stop);
            if (!are_reached(&quotients[start], stop - start)) return false;
            if (search_.num_paths) {
                trellis_.forward(&quotients[start], &tables[start], start, stop - start);
                // Levels before this segment may be others now: their errors are put right in the sums.
                first = start > before ? start - before : 0;
            } else {
                round_levels(search_, &quotients[start], &tables[start], stop - start, levels + start);
            }
            if (stop == rows || rows_.num_sums == 0) continue;
            if (search_.num_paths) go_back(quotients.data(), stop, segment, first, levels);
            add_up(first, stop, tables, levels);
        }
        if (search_.num_paths) go_back(quotients.data(), rows, segment, 0, levels);
        return true;
    }

private:
    // Writes the best levels as yet of elements from the first to the last, which begin a segment and end one.
    void go_back(const float* quotients, size_t stop, size_t segment, size_t first, int32_t* levels) {
        trellis_.turn();
        for (size_t start = (stop - 1) / segment * segment;; start -= segment) {
            trellis_.backward(quotients + start, start, std::min(segment, stop - start), levels + start,
                              &mirrors_[start]);
            if (start == first) break;
        }
    }

    void take_off(float* quotients, size_t start, size_t stop) const {
        for (size_t k = 0; k < rows_.num_sums; ++k) {
            const float* share = rows_.shares + k * search_.models.num_rows + start;
            for (size_t r = 0; r < stop - start; ++r) quotients[r] -= share[r] * sums_[k];
        }
    }

    void add_up(size_t first, size_t stop, const uint32_t* tables, const int32_t* levels) {
        for (size_t r = first; r < stop; ++r) {
            const float point = static_cast<float>(levels[r]) + shift_of(search_.shifts[tables[r]], levels[r]);
            const float now = mirrored(point, mirrors_[r]), change = now - points_[r];
            if (change == 0) continue;
            points_[r] = now;
            const float* felt = rows_.felt + r * rows_.num_sums;
            for (size_t k = 0; k < rows_.num_sums; ++k) sums_[k] += felt[k] * change;
        }
    }

    const ColumnSearch& search_;
    const RowFeedback& rows_;
    TrellisSearch trellis_;
    std::vector<float> points_, sums_;
    std::vector<uint32_t> mirrors_;
};

}  // namespace

bool code_columns(const ColumnSearch& search, size_t count, float* columns, const float* feedback, const float* steps,
                  TrellisStates& states, int32_t* codes, int32_t* levels, const ColumnSums& sums) {
    const ElementModels& models = search.models;
    const size_t rows = models.num_rows;
    RowSearch by_row(search);
    const float offset = search.num_paths ? 0.25f : 0.0f;
    std::vector<float> quotients(rows);
    std::vector<uint32_t> tables(rows);
    for (size_t i = 0; i < count; ++i) {
        float* column = columns + i * rows;
        for (size_t r = 0; r < rows; ++r) quotients[r] = column[r] / steps[i];
        if (!are_reached(quotients.data(), rows)) return false;
        codes[i] = code_of(search, quotients.data());
        for (size_t r = 0; r < rows; ++r) tables[r] = models.of(codes[i], r);
        int32_t* found = levels + i * rows;
        if (!by_row.find(states, quotients, tables.data(), found)) return false;
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

}  // namespace fewbits
