#include "adaptive.h"

#include <algorithm>
#include <utility>

#include "adaptive_mixer.h"
#include "binary_coder.h"
#include "errors.h"

namespace fewbits {
namespace {

constexpr int64_t kMostMagnitude = 0x7FFFFFFF;
constexpr uint32_t kHalf = 1u << 15;  // a probability of one half

// WIRE: the first weights in 1/256; for plain layers, for kernels, for images.
constexpr int16_t kDensityWeights[3][12] = {
    {572, 228, -248, 820, 53, 51, 45, -93, -17, -3, 148, -550},
    {-396, 44, 101, -420, 142, 56, 46, 59, 58, -7, 109, -430},
    {-258, 99, -55, -935, -46, 108, 44, 84, 107, 131, 140, -540},
};
constexpr int16_t kSignWeights[3][6] = {
    {-87, 60, 110, 81, -177, -62},
    {216, -3, 31, 83, -40, -180},
    {105, 62, 149, 220, -65, -684},
};
constexpr int16_t kMagnitudeWeights[3][7] = {
    {-17, 139, 25, 218, -39, -180, -74},
    {125, 53, 7, 259, -38, -67, -50},
    {109, 92, 90, 2, 18, -88, -62},
};

// How many of the bounds are below x.
template <size_t kCount>
size_t bucket(uint32_t x, const uint8_t (&bounds)[kCount]) {
    size_t below = 0;
    while (below < kCount && bounds[below] < x) ++below;
    return below;
}

// WIRE
constexpr uint8_t kPlaceBounds[] = {0, 2, 5, 10, 20, 80, 200};
constexpr uint8_t kCountBounds[] = {0, 1, 2, 3, 6, 10, 15};
constexpr uint8_t kWindowBounds[] = {0, 2, 4, 6, 9, 12, 16};
constexpr uint8_t kSlopeBounds[] = {0, 2, 4, 8, 16, 32};
constexpr uint8_t kAverageBounds[] = {0, 4, 6, 8, 11, 15, 20};
constexpr uint8_t kNearBounds[] = {0, 2, 4, 8};
constexpr int kClamp = 15;        // what contexts see of a magnitude
constexpr int kUnaryLevels = 16;  // magnitudes above it are escapes
constexpr int kLevels = 8;        // with contexts of their own

int sign_of(int x) { return (x > 0) - (x < 0); }
int size_of(int x) { return x < 0 ? -x : x; }

// What is learned of one kind of layer, and kept from array to array.
struct Kind {
    Mixer density[6], sign, magnitude[3];
    Counter pattern[24], above[24], window[8], progress[8][8], far[12];
    Counter sign_pair[9], sign_slope[13], sign_before[9], sign_sum[13];
    Counter magnitude_average[kLevels][8], magnitude_last[kLevels][8], magnitude_near[kLevels][5];
};

// The neighbours of one element that contexts look at: what is outside of the slice is 0, and so is what comes later.
struct Neighbours {
    int left, up, up_left, up_right, left_two, up_two;
    int knights[4];  // (-2, -1), (2, -1), (-1, -2), (1, -2): columns, rows
    int before, before_two, before_around[4];  // rows above: same place in the last two; around it in the last
    int slice_before;  // same place in the slice before
};

// Codes arrays; what is learned stays for the next one.
class Model {
public:
    explicit Model(BinaryCoder& coder) : coder_(coder) {
        for (size_t k = 0; k < 3; ++k) {
            for (Mixer& mixer : kinds_[k].density) set_weights(mixer, kDensityWeights[k]);
            for (Mixer& mixer : kinds_[k].magnitude) set_weights(mixer, kMagnitudeWeights[k]);
            set_weights(kinds_[k].sign, kSignWeights[k]);
        }
        for (Counter& level : levels_) level = kFirstLevel;
    }

    // Codes read[i], or, when decoding, fills write[i].
    void code(const Geometry& geometry, const int64_t* read, int64_t* write) {
        begin(geometry);
        const size_t row_length = geometry.num_elements() / geometry.rows;
        for (size_t row = 0; row < geometry.rows; ++row) {
            code_row(read == nullptr ? nullptr : read + row * row_length,
                     write == nullptr ? nullptr : write + row * row_length);
            row_densities_.push_back(row_.density);
            std::rotate(rows_, rows_ + 2, rows_ + 3);  // the oldest is written over
        }
        units_.push_back(std::move(row_densities_));
    }

private:
    // A column, or a row as far as it is coded.
    struct Line {
        Counter density, sign, magnitude;
    };

    template <size_t kCount>
    static void set_weights(Mixer& mixer, const int16_t (&weights)[kCount]) {
        for (size_t i = 0; i < kCount; ++i) mixer.weights[i] = weights[i] * 256;
    }

    void begin(const Geometry& geometry) {
        height_ = geometry.height;
        width_ = geometry.width;
        slices_ = geometry.slices;
        plain_ = height_ * width_ == 1;
        kind_ = &kinds_[plain_ ? 0 : height_ * width_ < kImage ? 1 : 2];
        if (plain_) std::swap(width_, slices_);  // one slice of height 1
        // Zeros around each slice, so that neighbours need no bounds: three lines above, one below, three each side.
        stride_ = width_ + 6;
        slice_stride_ = (height_ + 4) * stride_;
        columns_.assign(slices_ * slice_stride_, Line());
        slice_densities_.assign(slices_, Counter());
        for (std::vector<int8_t>& row : rows_) row.assign(slices_ * slice_stride_, 0);
        const Counts carried = Counts().blend(kCarriedWeight, density_.counts().probability());
        density_ = {static_cast<uint16_t>(carried.zeros), static_cast<uint16_t>(carried.ones)};
        row_densities_.clear();
        link(geometry.slices);
    }

    // Finds the last array with as many rows as this one has slices: most likely the layer whose outputs it reads.
    void link(size_t slices) {
        linked_deviations_.assign(slices, 0);
        const auto linked = std::find_if(units_.rbegin(), units_.rend(), [&](const std::vector<Counter>& units) {
            return units.size() == slices && slices > 1;
        });
        if (linked == units_.rend()) return;
        uint64_t zeros = 1, ones = 1;
        for (const Counter& each : *linked) {
            zeros += each.zeros;
            ones += each.ones;
        }
        while ((zeros + ones) >> 31 != 0) {
            zeros = (zeros + 1) / 2;
            ones = (ones + 1) / 2;
        }
        const Counts all = {static_cast<uint32_t>(zeros), static_cast<uint32_t>(ones)};
        for (size_t i = 0; i < slices; ++i) {
            const Counts unit = (*linked)[i].counts().blend(kLinkWeight, all.probability());
            linked_deviations_[i] = unit.stretch() - all.stretch();
        }
    }

    void code_row(const int64_t* read, int64_t* write) {
        row_ = Line();
        last_ = 0;
        size_t i = 0;
        for (size_t slice = 0; slice < slices_; ++slice) {
            slice_ = slice;
            kernel_ = Counter();
            kernel_nonzeros_ = 0;
            for (size_t y = 0; y < height_; ++y) {
                for (size_t x = 0; x < width_; ++x, ++i) {
                    place_ = y * width_ + x;
                    at_ = slice * slice_stride_ + (y + 3) * stride_ + x + 3;
                    const int64_t value = code_element(read == nullptr ? 0 : read[i]);
                    if (write != nullptr) write[i] = value;
                    const auto seen = static_cast<int>(std::clamp<int64_t>(value, -kClamp, kClamp));
                    rows_[0][at_] = static_cast<int8_t>(seen);
                    if (seen != 0) last_ = seen;
                }
            }
        }
    }

    Neighbours neighbours() const {
        const int8_t* now = rows_[0].data() + at_;
        const int8_t* before = rows_[1].data() + at_;
        const auto down = static_cast<std::ptrdiff_t>(stride_);
        return {now[-1], now[-down], now[-down - 1], now[-down + 1], now[-2], now[-2 * down],
                {now[-down - 2], now[-down + 2], now[-2 * down - 1], now[-2 * down + 1]},
                before[0], rows_[2][at_], {before[-1], before[1], before[-down], before[down]},
                slice_ > 0 ? *(now - slice_stride_) : 0};
    }

    int64_t code_element(int64_t value) {
        const Neighbours near = neighbours();
        // WIRE: the window's weights.
        const int window[10] = {near.left, near.up, near.up_left, near.up_right, near.left_two, near.up_two,
                                near.knights[0], near.knights[1], near.knights[2], near.knights[3]};
        constexpr int kWindowWeights[10] = {4, 4, 2, 2, 2, 2, 1, 1, 1, 2};
        int weight = 0, slope = 0, sizes = 0;
        for (int i = 0; i < 10; ++i) {
            weight += window[i] != 0 ? kWindowWeights[i] : 0;
            slope += window[i] * kWindowWeights[i];
            sizes += size_of(window[i]) * kWindowWeights[i];
        }
        const bool nonzero = code_nonzero(value != 0, near, static_cast<uint32_t>(weight));
        if (!nonzero) return 0;
        const bool negative = code_sign(value < 0, near, slope);
        const uint32_t average = weight == 0 ? 0 : static_cast<uint32_t>(4 * sizes / weight);
        const int64_t magnitude = code_magnitude(value < 0 ? -value : value, near, average);
        return negative ? -magnitude : magnitude;
    }

    bool code_nonzero(bool nonzero, const Neighbours& near, uint32_t weight) {
        const int around = (near.before_around[0] != 0) + (near.before_around[1] != 0) +
                           (near.before_around[2] != 0) + (near.before_around[3] != 0);
        const int corners = (near.up_left != 0) + (near.up_right != 0);
        const int pattern = (near.left != 0) + 2 * (near.up != 0) + 4 * corners +
                            12 * (near.left_two != 0 || near.up_two != 0);
        const int above = (near.before != 0) + 2 * (near.before_two != 0) + 4 * std::min(around, 2) +
                          12 * (near.left != 0);
        const size_t surroundings = bucket(weight, kWindowBounds);
        const auto place = static_cast<uint32_t>(std::min<size_t>(place_, 255));
        Counter* contexts[] = {&kind_->pattern[pattern], &kind_->above[above], &kind_->window[surroundings],
                               &kind_->progress[bucket(place, kPlaceBounds)][bucket(kernel_nonzeros_, kCountBounds)],
                               &kind_->far[std::min(nonzeros_around(), 11)]};
        Counter& slice = slice_densities_[slice_];
        Line& column = columns_[at_];

        const Counts array = density_.counts();
        const uint32_t density = array.probability();
        Inputs inputs(array.stretch());
        const Counts row = row_.density.counts().blend(kRowWeight, density);
        const Counts columns = columns_around().blend(kColumnsWeight, density);
        inputs.add(row);
        inputs.add(column.density.counts().blend(kColumnWeight, columns.probability()));
        inputs.add(columns);
        inputs.add(slice.counts().blend(kSliceWeight, density));
        inputs.add(kernel_.counts().blend(kKernelWeight, row.probability()));
        for (const Counter* context : contexts) inputs.add(context->counts().blend(kContextWeight, density));
        inputs.add(linked_deviations_[plain_ ? place_ : slice_]);
        inputs.add(int32_t{256});
        row_deviation_ = inputs.deviations[0];
        column_deviation_ = inputs.deviations[1];

        Mixer& mixer = kind_->density[std::min<size_t>(surroundings, 5)];
        const uint32_t probability = mixer.mix(inputs);
        nonzero = coder_.code(nonzero, probability);
        mixer.learn(inputs, probability, nonzero, kDensityRate);
        for (Counter* counter : {&row_.density, &column.density, &slice, &kernel_, &density_}) {
            counter->hit(nonzero, kDensityLimit);
        }
        for (Counter* context : contexts) context->hit(nonzero, kContextLimit);
        if (nonzero && kernel_nonzeros_ < 255) ++kernel_nonzeros_;
        return nonzero;
    }

    // Among the 24 places within three lines and columns that are coded.
    int nonzeros_around() const {
        const int8_t* line = rows_[0].data() + at_ - 3;
        int count = (line[0] != 0) + (line[1] != 0) + (line[2] != 0);
        for (int up = 0; up < 3; ++up) {
            line -= stride_;
            for (int i = 0; i < 7; ++i) count += line[i] != 0;
        }
        return count;
    }

    // Of the column and its neighbours in the slice: in the rows before, and in this one as far as it is coded.
    Counts columns_around() const {
        Counts sum;
        for (const size_t middle : {at_ - stride_, at_, at_ + stride_}) {
            for (const size_t i : {middle - 1, middle, middle + 1}) {
                sum.zeros += columns_[i].density.zeros;
                sum.ones += columns_[i].density.ones;
            }
        }
        return sum;
    }

    bool code_sign(bool negative, const Neighbours& near, int slope) {
        const auto slope_size = static_cast<int>(bucket(static_cast<uint32_t>(size_of(slope)), kSlopeBounds));
        const int sum = 2 * sign_of(near.left) + 2 * sign_of(near.up) + sign_of(near.up_left) + sign_of(near.up_right);
        Line& column = columns_[at_];
        Counter* contexts[] = {
            &kind_->sign_pair[3 * sign_of(near.left) + sign_of(near.up) + 4],
            &kind_->sign_slope[6 + (slope < 0 ? -slope_size : slope_size)],
            &kind_->sign_before[3 * sign_of(near.slice_before) + sign_of(last_) + 4],
            &kind_->sign_sum[6 + sum],
            &column.sign,
            &row_.sign,
        };
        constexpr uint32_t kWeights[] = {kSignWeight, kSignWeight, kSignWeight, kSignWeight, kColumnSignWeight,
                                         kRowSignWeight};
        Inputs inputs(0);
        for (int i = 0; i < 6; ++i) inputs.add(contexts[i]->counts().blend(kWeights[i], kHalf));
        const uint32_t probability = kind_->sign.mix(inputs);
        negative = coder_.code(negative, probability);
        kind_->sign.learn(inputs, probability, negative, kSignRate);
        for (Counter* context : contexts) context->hit(negative, kContextLimit);
        return negative;
    }

    int64_t code_magnitude(int64_t magnitude, const Neighbours& near, uint32_t average) {
        const int near_sizes = 2 * size_of(near.left) + 2 * size_of(near.up) + size_of(near.up_left) +
                               size_of(near.up_right) + size_of(near.left_two) + size_of(near.up_two);
        const size_t average_bucket = bucket(average, kAverageBounds);
        const size_t near_bucket = bucket(static_cast<uint32_t>(std::min(near_sizes, 255)), kNearBounds);
        const auto last = static_cast<size_t>(std::min(size_of(last_), 7));
        Line& column = columns_[at_];
        for (int level = 1; level <= kUnaryLevels; ++level) {
            const int i = std::min(level, kLevels) - 1;
            Counter* counters[] = {&kind_->magnitude_average[i][average_bucket], &kind_->magnitude_last[i][last],
                                   &kind_->magnitude_near[i][near_bucket], &row_.magnitude, &column.magnitude};
            constexpr uint32_t kWeights[] = {kMagnitudeWeight, kMagnitudeWeight, kMagnitudeWeight, kRowMagnitudeWeight,
                                             kColumnMagnitudeWeight};
            const Counts all = levels_[i].counts();
            Inputs inputs(all.stretch());
            for (int k = 0; k < 5; ++k) inputs.add(counters[k]->counts().blend(kWeights[k], all.probability()));
            inputs.add(row_deviation_);
            inputs.add(column_deviation_);
            Mixer& mixer = kind_->magnitude[std::min(level, 3) - 1];
            const uint32_t probability = mixer.mix(inputs);
            const bool more = coder_.code(magnitude > level, probability);
            mixer.learn(inputs, probability, more, kMagnitudeRate);
            levels_[i].hit(more, kContextLimit);
            for (Counter* counter : counters) counter->hit(more, kContextLimit);
            if (!more) return level;
        }
        return kUnaryLevels + code_escape(magnitude - kUnaryLevels);
    }

    // An order-0 exponential-Golomb code of excess - 1, whose length is learned.
    int64_t code_escape(int64_t excess) {
        int length = 0;
        for (;; ++length) {
            if (length > 30) throw Corrupt("an adaptive stream has an integer of 2^31 or more.");
            Counter& counter = escapes_[length];
            const bool more = coder_.code(excess >> length > 1, counter.counts().blend(2 * kHit, kHalf).probability());
            counter.hit(more, kContextLimit);
            if (!more) break;
        }
        int64_t read = 1;
        for (int i = length - 1; i >= 0; --i) read = 2 * read + (coder_.code(excess >> i & 1, kHalf) ? 1 : 0);
        if (read > kMostMagnitude - kUnaryLevels) throw Corrupt("an adaptive stream has an integer of 2^31 or more.");
        return read;
    }

    // WIRE: how much, in 64ths of a decision, estimates have of what they are blended with; how fast weights move.
    static constexpr uint32_t kRowWeight = 7822;
    static constexpr uint32_t kColumnsWeight = 2694;
    static constexpr uint32_t kColumnWeight = 293;
    static constexpr uint32_t kSliceWeight = 35872;
    static constexpr uint32_t kKernelWeight = 108;
    static constexpr uint32_t kContextWeight = 639;
    static constexpr uint32_t kLinkWeight = 4081;
    static constexpr uint32_t kSignWeight = 86;
    static constexpr uint32_t kColumnSignWeight = 269;
    static constexpr uint32_t kRowSignWeight = 877;
    static constexpr uint32_t kMagnitudeWeight = 449;
    static constexpr uint32_t kRowMagnitudeWeight = 449;
    static constexpr uint32_t kColumnMagnitudeWeight = 115;
    static constexpr uint32_t kCarriedWeight = 25;
    static constexpr int64_t kDensityRate = 73;
    static constexpr int64_t kSignRate = 187;
    static constexpr int64_t kMagnitudeRate = 340;
    static constexpr Counter kFirstLevel{1062, 711};
    static constexpr size_t kImage = 64;  // places of a slice from which on it counts as an image

    BinaryCoder& coder_;
    Kind kinds_[3] = {};
    Counter density_{kHit, kHit};  // of the array's elements that are coded
    Counter levels_[kLevels], escapes_[31];
    std::vector<std::vector<Counter>> units_;  // of each array coded, the densities of its rows

    // The array being coded.
    size_t height_ = 0, width_ = 0, slices_ = 0, stride_ = 0, slice_stride_ = 0;
    bool plain_ = false;
    Kind* kind_ = nullptr;
    std::vector<Line> columns_;
    std::vector<Counter> slice_densities_;
    std::vector<int8_t> rows_[3];  // this one, the last, the one before it
    std::vector<Counter> row_densities_;
    std::vector<int32_t> linked_deviations_;  // of each slice, or column of a plain layer: how dense is what it reads

    // The element being coded.
    Line row_;
    Counter kernel_;
    size_t slice_ = 0, place_ = 0, at_ = 0;
    uint32_t kernel_nonzeros_ = 0;
    int last_ = 0;  // the last non-zero value of the row
    int32_t row_deviation_ = 0, column_deviation_ = 0;
};

// Checks first, so that nothing is coded of arrays that cannot be.
void check_magnitudes(const std::vector<AdaptiveArray>& arrays) {
    for (const AdaptiveArray& array : arrays) {
        for (size_t i = 0; i < array.geometry.num_elements(); ++i) {
            if (array.values[i] > kMostMagnitude || array.values[i] < -kMostMagnitude) {
                throw InvalidArgument("an integer's magnitude is 2^31 or more, which an adaptive stream cannot hold.");
            }
        }
    }
}

}  // namespace

std::vector<uint8_t> encode_adaptive(const std::vector<AdaptiveArray>& arrays) {
    check_magnitudes(arrays);
    BinaryCoder coder(BinaryCoder::Direction::kEncode);
    Model model(coder);
    for (const AdaptiveArray& array : arrays) model.code(array.geometry, array.values, nullptr);
    return coder.finish();
}

void decode_adaptive(const uint8_t* bytes, size_t size, const std::vector<Geometry>& geometries,
                     const std::vector<int64_t*>& values) {
    BinaryCoder coder(bytes, size);
    Model model(coder);
    for (size_t i = 0; i < geometries.size(); ++i) model.code(geometries[i], nullptr, values[i]);
    coder.check_end();
}

std::vector<double> adaptive_bits(const std::vector<AdaptiveArray>& arrays) {
    check_magnitudes(arrays);
    BinaryCoder coder(BinaryCoder::Direction::kMeasure);
    Model model(coder);
    std::vector<double> bits;
    for (const AdaptiveArray& array : arrays) {
        const double before = coder.bits();
        model.code(array.geometry, array.values, nullptr);
        bits.push_back(coder.bits() - before);
    }
    return bits;
}

}  // namespace fewbits
