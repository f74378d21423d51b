#include "spectrum.h"

#include <algorithm>
#include <type_traits>

#include "errors.h"

// Differences of integers are taken modulo 2^32 or 2^64 throughout: as long as the greater one comes first they are
// the true ones, however far apart the two are. Right shifts of negative numbers round down.

namespace fewbits {

namespace {

constexpr uint64_t kNarrow = 1 << 16;  // integers that spread no farther are counted one by one
constexpr int kZoomBits = 12;          // each look for an order statistic divides where it may be by 4096
constexpr size_t kWindow = 4096;       // parts of widely spread integers that are counted in an array
constexpr size_t kMargin = 1536;       // of them before the core, which has 993 at most
constexpr size_t kSparse = 16;         // counters an integer that are too many
constexpr size_t kLanes = 4;

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

template <typename T>
Unsigned<T> distance(T from, T to) {
    return static_cast<Unsigned<T>>(static_cast<Unsigned<T>>(to) - static_cast<Unsigned<T>>(from));
}

template <typename T>
T plus(T value, uint64_t offset) {
    return static_cast<T>(static_cast<Unsigned<T>>(static_cast<Unsigned<T>>(value) + static_cast<Unsigned<T>>(offset)));
}

template <typename T>
struct Range {
    T low, high;
    uint64_t width() const { return distance(low, high); }
};

template <typename T>
Range<T> range_of(const T* values, size_t count) {
    constexpr size_t kStep = 32 / sizeof(T);  // independent chains of comparisons, as many as registers hold
    T low[kStep], high[kStep];
    std::fill_n(low, kStep, values[0]);
    std::fill_n(high, kStep, values[0]);
    size_t i = 0;
    for (; i + kStep <= count; i += kStep) {
        for (size_t lane = 0; lane < kStep; ++lane) {
            low[lane] = std::min(low[lane], values[i + lane]);
            high[lane] = std::max(high[lane], values[i + lane]);
        }
    }
    for (; i < count; ++i) {
        low[0] = std::min(low[0], values[i]);
        high[0] = std::max(high[0], values[i]);
    }
    return {*std::min_element(low, low + kStep), *std::max_element(high, high + kStep)};
}

// Counters of consecutive integers. Each has several lanes, taken in turn: an increment has to wait for the last one of
// the same counter to reach memory, and in an array of few different integers that is mostly the one just before.
class Counters {
public:
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

    int64_t operator[](size_t index) const {
        int64_t sum = 0;
        for (size_t lane = 0; lane < lanes_; ++lane) sum += counts_[index * lanes_ + lane];
        return sum;
    }

private:
    size_t lanes_;
    std::vector<int64_t> counts_;
};

void append(Spectrum& spectrum, int64_t value, int64_t count) {
    spectrum.values.push_back(value);
    spectrum.counts.push_back(count);
}

// Appends the counters first ... first + size - 1, of the integers from `begin` on, that are not 0.
void append_counts(Spectrum& spectrum, const Counters& counters, size_t first, size_t size, int64_t begin) {
    for (size_t i = 0; i < size; ++i) {
        if (const int64_t count = counters[first + i]; count != 0) append(spectrum, plus(begin, i), count);
    }
}

template <typename T>
void append_sorted(Spectrum& spectrum, const T* values, size_t count) {
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && values[next] == values[i];) ++next;
        append(spectrum, static_cast<int64_t>(values[i]), static_cast<int64_t>(next - i));
    }
}

// An order statistic, as far as it is known: one of begin ... begin + 2^shift - 1, and the rank-th of those.
// begin is a multiple of 2^shift, so that the last of them is no overflow.
template <typename T>
struct Bracket {
    T begin;
    int shift;
    size_t rank;

    // Counts what lies in the bracket by the digits down to 2^finer.
    Counters closer(const T* values, size_t count, int finer) const {
        const auto size = static_cast<Unsigned<T>>(Unsigned<T>{1} << (shift - finer));
        // One more counter is for all others. A branch would not do: it may be anyone's guess which are in the bracket.
        Counters counters(static_cast<size_t>(size) + 1, count);
        counters.add(values, count, [from = begin, finer, size](T value) {
            return std::min<Unsigned<T>>(distance(from, value) >> finer, size);
        });
        return counters;
    }

    void choose(const Counters& counters, int finer) {
        size_t place = 0;
        for (size_t here; rank >= (here = static_cast<size_t>(counters[place])); ++place) rank -= here;
        begin = plus(begin, static_cast<uint64_t>(place) << finer);
        shift = finer;
    }
};

int grain_of(uint64_t spread) { return std::max(0, bit_length(spread / (4 * kReach)) - 3); }

// The core of widely spread integers: its begin, or a little less, and the grain that its spread asks for.
template <typename T>
struct Core {
    T begin;
    int grain;
};

// The grain is a matter of the digits of the distance of two order statistics, so that knowing roughly where they are
// mostly is enough, and that takes one pass.
template <typename T>
Core<T> core_of(const T* values, size_t count, Range<T> range) {
    const size_t tail = count / kTail;
    if (tail == 0) return {range.low, grain_of(range.width())};
    const int shift = bit_length(range.width()) - kZoomBits;
    const T begin = static_cast<T>(static_cast<Unsigned<T>>(range.low) & ~((uint64_t{1} << shift) - 1));
    Counters coarse(static_cast<size_t>(distance(begin, range.high) >> shift) + 1, count);
    coarse.add(values, count, [begin, shift](T value) { return distance(begin, value) >> shift; });
    Bracket<T> first{begin, shift, tail}, last{begin, shift, count - 1 - tail};
    first.choose(coarse, shift);
    last.choose(coarse, shift);
    for (;;) {
        const uint64_t apart = distance(first.begin, last.begin);
        const uint64_t slack = (uint64_t{1} << first.shift) - 1;  // either may be so far into its bracket
        const int least = grain_of(apart > slack ? apart - slack : 0), most = grain_of(apart + slack);
        if (least == most) return {first.begin, least};
        const int finer = std::max(0, first.shift - kZoomBits);
        const Counters inside = first.closer(values, count, finer);
        last.choose(apart == 0 ? inside : last.closer(values, count, finer), finer);
        first.choose(inside, finer);
    }
}

template <typename T>
Spectrum wide_spectrum(const T* values, size_t count, Range<T> range) {
    const Core<T> core = core_of(values, count, range);
    const int grain = core.grain;
    const T low = static_cast<T>(range.low >> grain), high = static_cast<T>(range.high >> grain);
    // The window holds the core and lies within low ... high. All but 2 / 4096 of the integers are in the core.
    const T core_begin = static_cast<T>(core.begin >> grain);
    const size_t before = std::min<size_t>(kMargin, core_begin > low ? distance(low, core_begin) : 0);
    const T begin = plus(core_begin > low ? core_begin : low, uint64_t{0} - before);
    const auto size = static_cast<size_t>(std::min<uint64_t>(kWindow - 1, distance(begin, high))) + 1;
    Counters counters(size, count);
    std::vector<T> outliers;
    counters.add_inside(
        values, count, [begin, grain](T value) { return distance(begin, static_cast<T>(value >> grain)); },
        [grain, &outliers](T value) { outliers.push_back(static_cast<T>(value >> grain)); });
    std::sort(outliers.begin(), outliers.end());
    const auto below =
        static_cast<size_t>(std::lower_bound(outliers.begin(), outliers.end(), begin) - outliers.begin());

    Spectrum spectrum;
    spectrum.grain = grain;
    append_sorted(spectrum, outliers.data(), below);
    append_counts(spectrum, counters, 0, size, static_cast<int64_t>(begin));
    append_sorted(spectrum, outliers.data() + below, outliers.size() - below);
    return spectrum;
}

template <typename T>
Spectrum narrow_spectrum(const T* values, size_t count, Range<T> range) {
    Spectrum spectrum;
    const auto size = static_cast<size_t>(range.width()) + 1;
    if (size / kSparse > count) {
        std::vector<T> sorted(values, values + count);
        std::sort(sorted.begin(), sorted.end());
        append_sorted(spectrum, sorted.data(), count);
    } else {
        Counters counters(size, count);
        counters.add(values, count, [low = range.low](T value) { return distance(low, value); });
        append_counts(spectrum, counters, 0, size, static_cast<int64_t>(range.low));
    }
    return spectrum;
}

std::vector<size_t> rows_of_classes(const int64_t* classes, size_t num_rows, size_t num_classes) {
    std::vector<size_t> rows(num_classes);
    for (size_t row = 0; row < num_rows; ++row) {
        if (static_cast<uint64_t>(classes[row]) >= num_classes) throw InvalidArgument("a row's class does not exist.");
        ++rows[static_cast<size_t>(classes[row])];
    }
    if (std::find(rows.begin(), rows.end(), size_t{0}) != rows.end()) throw InvalidArgument("a class has no row.");
    return rows;
}

// Narrow rows: all classes are counted in one pass.
template <typename T>
std::vector<Spectrum> narrow_spectra(const T* values, size_t num_rows, size_t row_length, const int64_t* classes,
                                     size_t num_classes, Range<T> range) {
    const auto size = static_cast<size_t>(range.width()) + 1;
    Counters counters(size * num_classes, num_rows * row_length);
    for (size_t row = 0; row < num_rows; ++row) {
        counters.add(
            values + row * row_length, row_length, [low = range.low](T value) { return distance(low, value); },
            static_cast<size_t>(classes[row]) * size);
    }
    std::vector<Spectrum> spectra(num_classes);
    for (size_t index = 0; index < num_classes; ++index) {
        Spectrum& spectrum = spectra[index];
        append_counts(spectrum, counters, index * size, size, static_cast<int64_t>(range.low));
        spectrum.low = spectrum.values.front();
        spectrum.high = spectrum.values.back();
    }
    return spectra;
}

}  // namespace

template <typename T>
Spectrum spectrum_of(const T* values, size_t count) {
    const Range<T> range = range_of(values, count);
    Spectrum spectrum = range.width() > kNarrow ? wide_spectrum(values, count, range)
                                                : narrow_spectrum(values, count, range);
    spectrum.low = static_cast<int64_t>(range.low);
    spectrum.high = static_cast<int64_t>(range.high);
    return spectrum;
}

template <typename T>
std::vector<Spectrum> spectra_of_rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes,
                                      size_t num_classes) {
    const std::vector<size_t> rows = rows_of_classes(classes, num_rows, num_classes);
    const size_t count = num_rows * row_length;
    const Range<T> range = range_of(values, count);
    if (range.width() <= kNarrow && (range.width() + 1) * num_classes <= std::max(kWindow, count / kSparse)) {
        return narrow_spectra(values, num_rows, row_length, classes, num_classes, range);
    }
    // Otherwise class after class, its rows put together first.
    std::vector<size_t> ends(num_classes);
    for (size_t index = 0, end = 0; index < num_classes; ++index) ends[index] = end += rows[index];
    std::vector<size_t> order(num_rows);
    for (size_t row = num_rows; row-- > 0;) order[--ends[static_cast<size_t>(classes[row])]] = row;
    std::vector<Spectrum> spectra;
    spectra.reserve(num_classes);
    std::vector<T> gathered;
    for (size_t index = 0, next = 0; index < num_classes; ++index) {
        gathered.clear();
        for (const size_t stop = next + rows[index]; next < stop; ++next) {
            const T* const row = values + order[next] * row_length;
            gathered.insert(gathered.end(), row, row + row_length);
        }
        spectra.push_back(spectrum_of(gathered.data(), gathered.size()));
    }
    return spectra;
}

template Spectrum spectrum_of(const int32_t*, size_t);
template Spectrum spectrum_of(const uint32_t*, size_t);
template Spectrum spectrum_of(const int64_t*, size_t);
template std::vector<Spectrum> spectra_of_rows(const int32_t*, size_t, size_t, const int64_t*, size_t);
template std::vector<Spectrum> spectra_of_rows(const uint32_t*, size_t, size_t, const int64_t*, size_t);
template std::vector<Spectrum> spectra_of_rows(const int64_t*, size_t, size_t, const int64_t*, size_t);

}  // namespace fewbits
