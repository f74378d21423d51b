#include "columns.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#ifdef FEWBITS_X86
#include <emmintrin.h>
#endif

#include "errors.h"
#include "levels.h"
#include "output.h"

namespace fewbits {

namespace {

constexpr size_t kStrip = 32;  // columns that are written together

// Makes values of levels, a column after the other.
class Columns {
public:
    Columns(const ColumnLevels& coded, const BlockLoops& loops, size_t width)
        : coded_(coded), loops_(loops), rows_(coded.models.num_rows), width_(width), mirrors_(rows_, coded.num_paths) {
        const int32_t* codes = coded.models.row_codes;
        for (size_t r = 0; r < rows_; ++r) {
            if (r == 0 || codes[r] != codes[r - 1]) runs_.push_back({codes[r], 0});
            ++runs_.back().size;
        }
        for (size_t m = 0; m < coded.models.num_models; ++m) next_.push_back(coded.levels + coded.starts[m]);
        values_.resize(rows_ + kLevelGroup);
        last_.resize(rows_ + kLevelGroup);
    }

    // Writes the words of a column's values.
    void write(size_t column, unsigned char* words) {
        read(coded_.codes[column]);
        const uint8_t* mirrors = mirrors_.follow();
        const float step = coded_.steps[column];
        for_blocks(rows_, [&](size_t start, size_t length) {
            // Words of 4 bytes are the values themselves.
            float* made = width_ == 4 ? reinterpret_cast<float*>(words) + start : &values_[start];
            const uint32_t joined =
                inner_.values(&values_[start], mirrors + start, step, coded_.row_scales + start, length, made);
            finite_ &= round_values(loops_, width_, joined, made, length);
            if (width_ != 4) loops_.store(made, length, words + start * width_);
        });
    }

    bool is_finite() const { return finite_; }

private:
    struct Run {  // of rows with one code
        int32_t code;
        size_t size;
    };

    // Takes a column's levels from those of their models.
    void read(int32_t code) {
        size_t row = 0;
        for (const Run& run : runs_) {
            const uint32_t model = coded_.models.of_sum(static_cast<int64_t>(code) + run.code);
            const int32_t*& next = next_[model];
            const auto left = static_cast<size_t>(coded_.levels + coded_.starts[model + 1] - next);
            if (left < run.size) throw Corrupt("a model has fewer levels than elements.");
            const auto in_all = static_cast<size_t>(coded_.levels + coded_.starts[coded_.models.num_models] - next);
            const int32_t* levels = next;
            if (in_all < run.size + kLevelGroup) levels = std::copy_n(levels, run.size, last_.data()) - run.size;
            inner_.points(levels, run.size, coded_.shifts[model], &values_[row], mirrors_.parities() + row);
            next += run.size;
            row += run.size;
        }
    }

    const ColumnLevels& coded_;
    const LevelLoops& inner_ = level_loops();
    const BlockLoops& loops_;
    size_t rows_, width_;
    Mirrors mirrors_;
    std::vector<Run> runs_;
    std::vector<const int32_t*> next_;  // levels of each model
    std::vector<float> values_;
    std::vector<int32_t> last_;  // levels, where there are not enough after them for a whole group
    bool finite_ = true;
};

// Copies the words of a strip of columns, `pitch` bytes from one to the next, to rows at their places.
template <size_t kWidth>
void transpose(const unsigned char* strip, size_t pitch, const ColumnLevels& coded, size_t count, unsigned char* out) {
    const auto row_at = [&](size_t r) { return out + static_cast<size_t>(coded.places[r]) * coded.num_columns * kWidth; };
    size_t r = 0;
#ifdef FEWBITS_X86
    // Four rows of four columns at a time, by instructions that every such processor has.
    if (kWidth == 4 && count % 4 == 0) {
        for (; r + 4 <= coded.models.num_rows; r += 4) {
            unsigned char* const rows[] = {row_at(r), row_at(r + 1), row_at(r + 2), row_at(r + 3)};
            for (size_t i = 0; i < count; i += 4) {
                const auto read = [&](size_t k) {
                    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(strip + (i + k) * pitch + r * kWidth));
                };
                const __m128i words[] = {read(0), read(1), read(2), read(3)};
                const __m128i low[] = {_mm_unpacklo_epi32(words[0], words[1]), _mm_unpacklo_epi32(words[2], words[3])};
                const __m128i high[] = {_mm_unpackhi_epi32(words[0], words[1]), _mm_unpackhi_epi32(words[2], words[3])};
                const auto write = [&](size_t k, __m128i row) {
                    _mm_storeu_si128(reinterpret_cast<__m128i*>(rows[k] + i * kWidth), row);
                };
                write(0, _mm_unpacklo_epi64(low[0], low[1]));
                write(1, _mm_unpackhi_epi64(low[0], low[1]));
                write(2, _mm_unpacklo_epi64(high[0], high[1]));
                write(3, _mm_unpackhi_epi64(high[0], high[1]));
            }
        }
    }
#endif
    for (; r < coded.models.num_rows; ++r) {
        unsigned char* row = row_at(r);
        for (size_t i = 0; i < count; ++i) std::memcpy(row + i * kWidth, strip + i * pitch + r * kWidth, kWidth);
    }
}

}  // namespace

void count_models(const ElementModels& models, const int32_t* codes, size_t num_columns, int64_t* counts) {
    for (size_t start = 0, end = 0; start < models.num_rows; start = end) {
        while (end < models.num_rows && models.row_codes[end] == models.row_codes[start]) ++end;
        for (size_t i = 0; i < num_columns; ++i) counts[models.of(codes[i], start)] += static_cast<int64_t>(end - start);
    }
}

bool column_values(const ColumnLevels& coded, FloatType type, unsigned char* out) {
    const DefaultFloatEnvironment environment;
    const size_t columns = coded.num_columns, width = width_of(type);
    Columns decoded(coded, loops_of(type), width);
    // An odd number of cache lines, so that a strip's columns do not all want the same places of a cache.
    const size_t pitch = (coded.models.num_rows * width / 64 | 1) * 64 + 128;
    const std::unique_ptr<unsigned char[]> strip(new unsigned char[std::min(kStrip, columns) * pitch]);  // not filled
    for (size_t first = 0; first < columns; first += kStrip) {
        const size_t count = std::min(kStrip, columns - first);
        for (size_t i = 0; i < count; ++i) decoded.write(first + i, &strip[i * pitch]);
        unsigned char* place = out + first * width;
        switch (width) {
            case 2: transpose<2>(strip.get(), pitch, coded, count, place); break;
            case 4: transpose<4>(strip.get(), pitch, coded, count, place); break;
            default: transpose<8>(strip.get(), pitch, coded, count, place); break;
        }
    }
    return decoded.is_finite();
}

}  // namespace fewbits
