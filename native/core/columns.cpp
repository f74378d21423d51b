#include "columns.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "errors.h"
#include "levels.h"
#include "output.h"

namespace fewbits {

namespace {

constexpr size_t kLeastStrip = 16;  // columns whose points are turned into rows together: of a row, a cache line
constexpr size_t kCopied = 32;      // levels that are copied together: there is room for as many more

static_assert(kCopied <= 2 * kLevelGroup, "Mirrors has room for what is copied in vain");

// Makes values of levels: points of a strip of columns, column after column, then its rows.
//
// A point is a level and its shift, in steps, with the other sign where it is mirrored: a whole number of 256ths in 16
// bits if levels are bytes ("small"), else a float32.
class Columns {
public:
    Columns(const ColumnLevels& coded, FloatType type)
        : coded_(coded), type_(loops_of(type)), rows_(coded.models.num_rows), width_(width_of(type)),
          small_(coded.small_levels != nullptr), mirrors_(rows_, coded.num_paths),
          steps_(coded.steps, coded.steps + coded.num_columns), scales_(coded.row_scales, coded.row_scales + rows_) {
        steps_.resize(coded.num_columns + kLeastColumns);
        scales_.resize(rows_ + kRowBlock);
        if (small_) make_tables();
        const int32_t* codes = coded.models.row_codes;
        for (size_t r = 0; r < rows_; ++r) {
            if (r == 0 || codes[r] != codes[r - 1]) {
                codes_.push_back(codes[r]);
                runs_.push_back({0, nullptr});
            }
            ++runs_.back().size;
        }
        for (size_t m = 0, far = 0; m < coded.models.num_models; ++m) {
            while (far_index(far) < coded.starts[m]) ++far;
            next_.push_back({coded.starts[m], coded.starts[m + 1], far, far_index(far)});
        }
        make_room();
        levels_.resize(small_ ? 0 : rows_ + kLevelGroup);
        ones_.assign(small_ ? 0 : rows_, 1.0f);
    }

    // False if a value is not finite.
    bool write(unsigned char* out) {
        for (size_t first = 0; first < coded_.num_columns; first += strip_) {
            const size_t count = std::min(strip_, coded_.num_columns - first);
            patches_.clear();
            for (size_t i = 0; i < count; ++i) {
                if (small_) {
                    read_small(first + i, small_points() + i * pitch_);
                } else {
                    read(first + i, points() + i * pitch_);
                }
            }
            for (size_t row = 0; row < rows_; row += kRowBlock) {
                for_blocks(count, [&](size_t start, size_t length) { write_block(row, first, start, length, out); });
            }
            // Backwards: the lowest byte of a far level may be 0, and look like a point of 0, which is noted later.
            for (size_t i = patches_.size(); i-- > 0;) write_patch(patches_[i], out);
        }
        return finite_;
    }

private:
    struct Next {  // levels of a model: which one is next, where they end, the next far one's number and index
        size_t at, end, far, far_index;
    };

    struct Patch {  // a value that no small point stands for
        size_t row, column;
        float point;
    };

    // Makes tables of small points; steps are then of 256ths.
    void make_tables() {
        bool exact = true;
        for (size_t m = 0; m < coded_.models.num_models; ++m) {
            tables_.emplace_back(coded_.shifts[m]);
            exact &= tables_.back().is_exact;
            has_zeros_ |= tables_.back().added[2] == 0;
        }
        // NUMERICS: nothing is rounded where a step's 256th is a normal number.
        for (size_t i = 0; i < coded_.num_columns; ++i) exact &= steps_[i] >= 0x1p-118f;
        if (!exact) throw InvalidArgument("points are no 256ths, or steps too small for them.");
        for (float& step : steps_) step /= 256;
    }

    // Takes room for a strip: as many columns as there is room for, or few. A row's last points are read with others.
    void make_room() {
        // An odd number of cache lines, so that a strip's columns do not all want the same places of a cache.
        const size_t size = small_ ? sizeof(int16_t) : sizeof(float), line = 64 / size;
        pitch_ = ((rows_ + kCopied) / line | 1) * line + 2 * line;
        const size_t fit = coded_.room_size / (pitch_ * size);
        points_ = coded_.room;
        if (fit >= coded_.num_columns + kLeastColumns) {
            strip_ = coded_.num_columns;
        } else if (fit >= kLeastStrip + kLeastColumns) {
            strip_ = (fit - kLeastColumns) / kLeastStrip * kLeastStrip;
        } else {
            strip_ = kLeastStrip;
            own_room_.reset(new unsigned char[(strip_ + kLeastColumns) * pitch_ * size]);  // not filled
            points_ = own_room_.get();
        }
    }

    int16_t* small_points() const { return reinterpret_cast<int16_t*>(points_); }
    float* points() const { return reinterpret_cast<float*>(points_); }

    // The model of a column's run of rows; takes its levels.
    uint32_t take(size_t column, size_t run, size_t& at) {
        const uint32_t model = coded_.models.of_sum(static_cast<int64_t>(coded_.codes[column]) + codes_[run]);
        Next& next = next_[model];
        at = next.at;
        if (next.end - at < runs_[run].size) throw Corrupt("a model has fewer levels than elements.");
        next.at += runs_[run].size;
        return model;
    }

    // Takes a column's points from the levels of its models.
    void read_small(size_t column, int16_t* points) {
        uint8_t* const levels = mirrors_.parities();
        const size_t num_patches = patches_.size();
        size_t row = 0;
        for (size_t k = 0; k < codes_.size(); ++k) {
            PointRun& run = runs_[k];
            size_t at;
            const uint32_t model = take(column, k, at);
            copy(at, run.size, levels + row);
            run.table = &tables_[model];
            if (next_[model].far_index < next_[model].at) patch_far(model, at, row, column);
            row += run.size;
        }
        const uint8_t* mirrors = mirrors_.follow(rows_);
        for (size_t i = num_patches; i < patches_.size(); ++i) {
            patches_[i].point = mirrored(patches_[i].point, mirrors[patches_[i].row]);
        }
        if (has_zeros_) patch_zeros(levels, mirrors, column);
        loops_.small_points(reinterpret_cast<const int8_t*>(levels), mirrors, runs_.data(), runs_.size(), points);
    }

    // The same from levels of 32 bits.
    void read(size_t column, float* points) {
        size_t row = 0;
        for (size_t k = 0; k < codes_.size(); ++k) {
            const size_t size = runs_[k].size;
            size_t at;
            const uint32_t model = take(column, k, at);
            const int32_t* levels = coded_.levels + at;
            if (coded_.starts[coded_.models.num_models] - at < size + kLevelGroup) {
                levels = std::copy_n(levels, size, levels_.data()) - size;
            }
            loops_.points(levels, size, coded_.shifts[model], points + row, mirrors_.parities() + row);
            row += size;
        }
        const uint8_t* mirrors = mirrors_.follow(rows_);
        loops_.values(points, mirrors, 1, ones_.data(), rows_, points);
    }

    // The index of a far level, by its number.
    size_t far_index(size_t far) const {
        return far < coded_.num_far_levels ? coded_.far_levels[far].index : SIZE_MAX;
    }

    // Notes the far levels of a run, whose levels are from `at` on, and rows from `row` on.
    void patch_far(uint32_t model, size_t at, size_t row, size_t column) {
        Next& next = next_[model];
        for (; next.far_index < next.at; next.far_index = far_index(++next.far)) {
            const int32_t level = coded_.far_levels[next.far].level;
            const float point = static_cast<float>(level) + coded_.shifts[model][level < 0 ? 0 : 4];
            patches_.push_back({row + next.far_index - at, column, point});
        }
    }

    // NUMERICS: notes where a point of 0 is mirrored, and its value -0.
    void patch_zeros(const uint8_t* levels, const uint8_t* mirrors, size_t column) {
        size_t row = 0;
        for (const PointRun& run : runs_) {
            const size_t end = row + run.size;
            if (run.table->added[2] != 0) row = end;
            for (; row < end; ++row) {
                if (levels[row] == 0 && (mirrors[row] & 1) != 0) patches_.push_back({row, column, -0.0f});
            }
        }
    }

    void write_patch(const Patch& patch, unsigned char* out) {
        float value = patch.point * coded_.steps[patch.column] * coded_.row_scales[patch.row];
        finite_ &= round_values(type_, width_, bits_of(value), &value, 1);
        out += (static_cast<size_t>(coded_.places[patch.row]) * coded_.num_columns + patch.column) * width_;
        if (width_ == 4) {
            std::memcpy(out, &value, 4);
        } else {
            type_.store(&value, 1, out);
        }
    }

    // Copies levels, and something behind them.
    void copy(size_t at, size_t size, uint8_t* out) const {
        const int8_t* levels = coded_.small_levels + at;
        if (coded_.starts[coded_.models.num_models] - at < size + kCopied) {
            std::memcpy(out, levels, size);
        } else {
            for (size_t i = 0; i < size; i += kCopied) std::memcpy(out + i, levels + i, kCopied);
        }
    }

    // Writes the values of some rows and columns.
    void write_block(size_t row, size_t first, size_t start, size_t length, unsigned char* out) {
        const bool direct = width_ == 4 && length >= kLeastColumns;
        float* made[kRowBlock];
        unsigned char* words[kRowBlock];
        const size_t count = std::min(kRowBlock, rows_ - row);
        for (size_t k = 0; k < kRowBlock; ++k) {
            made[k] = made_ + k * kWeightBlock;
            if (k >= count) continue;
            const size_t place = static_cast<size_t>(coded_.places[row + k]) * coded_.num_columns + first + start;
            words[k] = out + place * width_;
            if (direct) made[k] = reinterpret_cast<float*>(words[k]);
        }
        const size_t padded = std::max(length, kLeastColumns);
        const float* steps = &steps_[first + start];
        const size_t at = start * pitch_ + row;
        const float* scales = &scales_[row];
        const uint32_t joined = small_ ? loops_.write_rows(small_points() + at, pitch_, padded, steps, scales, made)
                                       : loops_.write_float_rows(points() + at, pitch_, length, steps, scales, made);
        if (direct && are_finite(joined)) return;
        for (size_t k = 0; k < count; ++k) {
            finite_ &= round_values(type_, width_, joined, made[k], length);
            if (!direct) type_.store(made[k], length, words[k]);
        }
    }

    const ColumnLevels& coded_;
    const LevelLoops& loops_ = level_loops();
    const BlockLoops& type_;
    size_t rows_, width_, pitch_, strip_;
    bool small_, has_zeros_ = false, finite_ = true;
    Mirrors mirrors_;
    std::vector<int32_t> codes_;  // of a column's runs of rows
    std::vector<PointRun> runs_;  // of the column that was read last
    std::vector<Next> next_;
    std::vector<PointTable> tables_;
    std::vector<Patch> patches_;  // of a strip
    std::vector<int32_t> levels_;  // of a run
    std::vector<float> steps_, scales_, ones_;
    std::unique_ptr<unsigned char[]> own_room_;
    unsigned char* points_;  // a strip of columns, `pitch_` points from one to the next
    float made_[kRowBlock * kWeightBlock];
};

}  // namespace

void count_models(const ElementModels& models, const int32_t* codes, size_t num_columns, int64_t* counts) {
    for (size_t start = 0, end = 0; start < models.num_rows; start = end) {
        while (end < models.num_rows && models.row_codes[end] == models.row_codes[start]) ++end;
        for (size_t i = 0; i < num_columns; ++i) counts[models.of(codes[i], start)] += static_cast<int64_t>(end - start);
    }
}

bool column_values(const ColumnLevels& coded, FloatType type, unsigned char* out) {
    const DefaultFloatEnvironment environment;
    return Columns(coded, type).write(out);
}

}  // namespace fewbits
