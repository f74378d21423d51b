// Counters that spectra are made from (spectrum.cpp).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "errors.h"
#include "range.h"
#include "spectrum.h"

namespace fewbits {

constexpr size_t kSparse = 16;  // counters an integer that are too many

// Counters of consecutive integers. Each has several lanes, taken in turn: an increment has to wait for the last one of
// the same counter to reach memory, and in an array of few different integers that is mostly the one just before.
class Counters {
public:
    static constexpr size_t kLanes = 4;

    Counters(size_t size, size_t count) : lanes_(size * kSparse <= count ? kLanes : 1), counts_(size * lanes_) {}

    size_t size() const { return counts_.size() / lanes_; }

    // Counts first + index(value), which must be below size() for every one.
    template <typename T, typename Index>
    void add(const T* values, size_t count, Index index, size_t first = 0) {
        int64_t* const counts = counts_.data() + first * lanes_;
        size_t i = 0;
        if (lanes_ == kLanes) {
            for (; i + kLanes <= count; i += kLanes) {
                for (size_t lane = 0; lane < kLanes; ++lane) {
                    ++counts[static_cast<size_t>(index(values[i + lane])) * kLanes + lane];
                }
            }
        }
        for (; i < count; ++i) ++counts[static_cast<size_t>(index(values[i])) * lanes_];
    }

    // Counts index(value) where that is below size(), and calls `missed` with the other values.
    template <typename T, typename Index, typename Missed>
    void add_inside(const T* values, size_t count, Index index, Missed missed) {
        int64_t* const counts = counts_.data();
        const size_t inside = size(), lanes = lanes_;
        const auto look = [=](T value, size_t lane) {
            const auto place = index(value);
            if (place < inside) {
                ++counts[static_cast<size_t>(place) * lanes + lane];
            } else {
                missed(value);
            }
        };
        size_t i = 0;
        if (lanes == kLanes) {
            for (; i + kLanes <= count; i += kLanes) {
                for (size_t lane = 0; lane < kLanes; ++lane) look(values[i + lane], lane);
            }
        }
        for (; i < count; ++i) look(values[i], 0);
    }

    bool all_zero(size_t first, size_t size) const {
        return fewbits::all_zero(counts_.data() + first * lanes_, size * lanes_);
    }

    int64_t operator[](size_t index) const {
        if (lanes_ == 1) return counts_[index];
        const int64_t* const lanes = counts_.data() + index * kLanes;
        return lanes[0] + lanes[1] + lanes[2] + lanes[3];
    }

private:
    size_t lanes_;
    std::vector<int64_t> counts_;
};

// Counters of the parts value >> grain of widely spread integers.
class PartCounters {
public:
    explicit PartCounters(size_t size) : pairs_(2 * size) {}

    void clear() {
        std::fill(pairs_.begin(), pairs_.end(), 0);
        total_ = 0;
    }

    // Counts distance(begin, value) >> grain, which must be below the size for every one. Throws InvalidArgument for 2^32
    // integers, 256 times as many as a part of a file holds.
    template <typename T>
    void add(const T* values, size_t count, T begin, int grain) {
        total_ += count;
        if (total_ > std::numeric_limits<uint32_t>::max()) throw InvalidArgument("too many integers are counted.");
        count_pairs(values, count, begin, grain, pairs_.data());
    }

    bool all_zero(size_t first, size_t size) const { return fewbits::all_zero(pairs_.data() + 2 * first, 2 * size); }
    int64_t operator[](size_t part) const { return int64_t{pairs_[2 * part]} + pairs_[2 * part + 1]; }

private:
    std::vector<uint32_t> pairs_;
    size_t total_ = 0;
};

// Appends the counters first ... first + size - 1, of the integers from `begin` on, that are not 0.
template <typename Counts>
void append_counts(Spectrum& spectrum, const Counts& counters, size_t first, size_t size, int64_t begin) {
    constexpr size_t kBlock = 32;  // most counters of widely spread integers are 0, and lie together
    for (size_t block = 0; block < size; block += kBlock) {
        const size_t end = std::min(block + kBlock, size);
        if (counters.all_zero(first + block, end - block)) continue;
        int64_t values[kBlock], counts[kBlock];
        size_t num = 0;
        for (size_t i = block; i < end; ++i) {  // each is written, and written over where its count is 0
            values[num] = plus(begin, i);
            counts[num] = counters[first + i];
            num += counts[num] != 0 ? 1 : 0;
        }
        spectrum.values.insert(spectrum.values.end(), values, values + num);
        spectrum.counts.insert(spectrum.counts.end(), counts, counts + num);
    }
}

// Sums of the counts of spectra of one grain, for consecutive values from `begin` on.
class Sums {
public:
    Sums(int64_t begin, size_t size) : begin_(begin), sums_(size) {}

    void add(const Spectrum& spectrum) {
        for (size_t i = 0; i < spectrum.values.size(); ++i) {
            sums_[static_cast<size_t>(distance(begin_, spectrum.values[i]))] += spectrum.counts[i];
        }
    }

    bool all_zero(size_t first, size_t size) const { return fewbits::all_zero(sums_.data() + first, size); }
    int64_t operator[](size_t index) const { return sums_[index]; }

private:
    int64_t begin_;
    std::vector<int64_t> sums_;
};

}  // namespace fewbits
