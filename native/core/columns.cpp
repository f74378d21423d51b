#include "columns.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#ifdef FEWBITS_X86
#include <emmintrin.h>
#endif

#include "errors.h"
#include "isa.h"
#include "output.h"

namespace fewbits {

namespace {

constexpr size_t kStrip = 32;  // columns that are written together

// Tells which elements of columns are mirrored, from the parities of their levels, eight at a time.
//
// Only the lowest bits of bytes mean anything. The code is linear: of the elements of one path, with parities p and mirrors
// m, m[t] = p[t - 1] ^ m[t - 2] ^ m[t - 3], and all are 0 before the first.
class Mirrors {
public:
    Mirrors(size_t rows, size_t num_paths) : rows_(rows), num_paths_(num_paths) {
        parities_.resize(kBefore + rows + kColumnGroup);
        mirrors_.resize(kBefore + rows + kColumnGroup);
    }

    uint8_t* parities() { return &parities_[kBefore]; }  // of a column, which `follow` reads

    const uint8_t* follow() {
        uint8_t* mirrors = &mirrors_[kBefore];
        const size_t paths = num_paths_;
        if (paths == 0) return mirrors;
        const uint8_t* parity = parities() - paths;
        if (paths >= 8) {
            for (size_t r = 0; r < rows_; r += 8) {
                uint8_t* here = mirrors + r;
                store(here, load(parity + r) ^ load(here - 2 * paths) ^ load(here - 3 * paths));
            }
        } else {
            // What a word has from itself is added to it; the two before it stay in registers.
            const size_t bits = 8 * paths;
            uint64_t before = load(mirrors - 8), earlier = load(mirrors - 16);
            for (size_t r = 0; r < rows_; r += 8) {
                uint64_t word = load(parity + r);
                if (paths == 4) {
                    word ^= before ^ before << 32 ^ earlier >> 32;
                } else {
                    word ^= before >> (64 - 2 * bits) ^ before >> (64 - 3 * bits);
                    word ^= word << 2 * bits ^ word << 3 * bits;
                    if (paths == 1) word ^= word << 32 ^ word << 48;
                }
                store(mirrors + r, word);
                earlier = before;
                before = word;
            }
        }
        carry(parities(), 1);
        carry(mirrors, 3);
        return mirrors;
    }

private:
    static constexpr size_t kBefore = 3 * kMostPaths;

    static uint64_t load(const uint8_t* bytes) {
        uint64_t word;
        std::memcpy(&word, bytes, sizeof word);
        return word;
    }

    static void store(uint8_t* bytes, uint64_t word) { std::memcpy(bytes, &word, sizeof word); }

    // Puts the last bytes of each path before the column, as many as `steps`, where the next one reads them.
    void carry(uint8_t* bytes, size_t steps) const {
        std::array<uint8_t, kBefore> last;
        const size_t first = (num_paths_ - rows_ % num_paths_) % num_paths_;  // where path 0 is in a step
        const uint8_t* from = bytes + rows_ - steps * num_paths_;
        for (size_t k = 0; k < steps * num_paths_; k += num_paths_) {
            std::rotate_copy(from + k, from + k + first, from + k + num_paths_, &last[k]);
        }
        std::copy_n(last.data(), steps * num_paths_, bytes - steps * num_paths_);
    }

    size_t rows_, num_paths_;
    std::vector<uint8_t> parities_, mirrors_;
};

const ColumnLoops& column_loops() {
#ifdef FEWBITS_X86
    // By address, as for sparse matrices.
    const Kernels* const now = &kernels();
    if (now == &kAvx2Kernels || now == &kAvx2ShuffleKernels || now == &kAvx512Kernels) return kAvx2ColumnLoops;
#endif
    return kScalarColumnLoops;
}

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
        values_.resize(rows_ + kColumnGroup);
        last_.resize(rows_ + kColumnGroup);
    }

    // Writes the words of a column's values.
    void write(size_t column, unsigned char* words) {
        read(coded_.codes[column]);
        const uint8_t* mirrors = mirrors_.follow();
        const float step = coded_.steps[column];
        for_blocks(rows_, [&](size_t start, size_t length) {
            // Words of 4 bytes are the values themselves.
            float* made = width_ == 4 ? reinterpret_cast<float*>(words) + start : &values_[start];
            // Where no two values together have all of its bits, none is infinity.
            uint32_t joined =
                inner_.values(&values_[start], mirrors + start, step, coded_.row_scales + start, length, made);
            if (width_ == 2) {
                loops_.round(made, length);
                for (size_t i = 0; i < length; ++i) joined |= bits_of(made[i]);
            }
            if ((joined & kInfinity) == kInfinity) {
                for (size_t i = 0; i < length; ++i) finite_ &= (bits_of(made[i]) & kInfinity) != kInfinity;
            }
            if (width_ != 4) loops_.store(made, length, words + start * width_);
        });
    }

    bool is_finite() const { return finite_; }

private:
    static constexpr uint32_t kInfinity = 0x7F800000;

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
            if (in_all < run.size + kColumnGroup) levels = std::copy_n(levels, run.size, last_.data()) - run.size;
            inner_.points(levels, run.size, coded_.shifts[model], &values_[row], mirrors_.parities() + row);
            next += run.size;
            row += run.size;
        }
    }

    const ColumnLevels& coded_;
    const ColumnLoops& inner_ = column_loops();
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
