#include "spectrum.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <type_traits>
#include <utility>

#include "counters.h"
#include "errors.h"
#include "range.h"

// Right shifts of negative numbers round down.

namespace fewbits {

namespace {

constexpr uint64_t kNarrow = 1 << 16;  // integers that spread no farther are counted one by one
constexpr int kPartBits = 14;          // of farther spread ones, 2^14 + 1 parts at most are counted to begin with
constexpr int kZoomBits = 12;          // each look for an order statistic divides where it may be by 4096
constexpr size_t kWindow = 4096;       // parts of widely spread integers that are counted in an array
constexpr size_t kMargin = 1536;       // of them before the core, which has 993 at most

void append_sorted(Spectrum& spectrum, const int64_t* values, size_t count) {
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && values[next] == values[i];) ++next;
        spectrum.values.push_back(values[i]);
        spectrum.counts.push_back(static_cast<int64_t>(next - i));
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
    std::vector<int64_t> outliers;  // of any type of integers: there is one sort
    counters.add_inside(
        values, count, [begin, grain](T value) { return distance(begin, static_cast<T>(value >> grain)); },
        [grain, &outliers](T value) { outliers.push_back(static_cast<T>(value >> grain)); });
    std::sort(outliers.begin(), outliers.end());
    const auto after = std::lower_bound(outliers.begin(), outliers.end(), static_cast<int64_t>(begin));
    const auto below = static_cast<size_t>(after - outliers.begin());

    Spectrum spectrum;
    spectrum.grain = grain;
    append_sorted(spectrum, outliers.data(), below);
    append_counts(spectrum, counters, 0, size, static_cast<int64_t>(begin));
    append_sorted(spectrum, outliers.data() + below, outliers.size() - below);
    spectrum.low = static_cast<int64_t>(range.low);
    spectrum.high = static_cast<int64_t>(range.high);
    return spectrum;
}

template <typename T>
Spectrum narrow_spectrum(const T* values, size_t count, Range<T> range) {
    Spectrum spectrum;
    const auto size = static_cast<size_t>(range.width()) + 1;
    if (size / kSparse > count) {
        std::vector<int64_t> sorted(values, values + count);
        std::sort(sorted.begin(), sorted.end());
        append_sorted(spectrum, sorted.data(), count);
    } else {
        Counters counters(size, count);
        counters.add(values, count, [low = range.low](T value) { return distance(low, value); });
        append_counts(spectrum, counters, 0, size, static_cast<int64_t>(range.low));
    }
    spectrum.low = static_cast<int64_t>(range.low);
    spectrum.high = static_cast<int64_t>(range.high);
    return spectrum;
}

// The spectrum of integers that are not part of an array, or that an outlier elsewhere in it must not decide about.
template <typename T>
Spectrum lone_spectrum(const T* values, size_t count, Range<T> range) {
    return range.width() > kNarrow ? wide_spectrum(values, count, range) : narrow_spectrum(values, count, range);
}

// ---- widely spread integers, to begin with: at one grain for all classes of rows

// The value at a place, 0 ... total - 1, of values in order.
template <typename Values, typename Counts>
int64_t value_at(size_t place, Values values, Counts counts) {
    for (auto left = static_cast<int64_t>(place); left >= *counts; ++counts, ++values) left -= *counts;
    return *values;
}

// Makes the grain of a spectrum's values coarser.
void coarsen(Spectrum& spectrum, int digits) {
    if (digits == 0) return;
    size_t last = 0;
    for (size_t i = 0; i < spectrum.values.size(); ++i) {
        const int64_t value = spectrum.values[i] >> digits;
        if (i > 0 && value == spectrum.values[last]) {
            spectrum.counts[last] += spectrum.counts[i];
            continue;
        }
        if (i > 0) ++last;
        spectrum.values[last] = value;
        spectrum.counts[last] = spectrum.counts[i];
    }
    spectrum.values.resize(last + 1);
    spectrum.counts.resize(last + 1);
}

// The parts value >> grain of an array's integers, 2^14 + 1 at most.
template <typename T>
class Parts {
public:
    explicit Parts(Range<T> range)
        : range_(range), grain_(bit_length(range.width()) - kPartBits), first_(static_cast<T>(range.low >> grain_)),
          size_(static_cast<size_t>(distance(first_, static_cast<T>(range.high >> grain_))) + 1) {}

    size_t size() const { return size_; }

    // Counts the parts of some of the integers.
    void count(const T* values, size_t count, PartCounters& counters) const {
        // No more than any of the integers, and 0 modulo 2^grain: no digit is borrowed from below the part's.
        const auto begin = static_cast<T>(static_cast<Unsigned<T>>(first_) << grain_);
        counters.add(values, count, begin, grain_);
    }

    Sums sums() const { return {static_cast<int64_t>(first_), size_}; }

    // The parts' spectrum, low and high left out. Counts are those of some of the array's integers, of one or more.
    template <typename Counts>
    Spectrum counted(const Counts& counts) const {
        Spectrum spectrum;
        append_counts(spectrum, counts, 0, size_, static_cast<int64_t>(first_));
        spectrum.grain = grain_;
        return spectrum;
    }

    // From the parts' spectrum, that at the grain which the core asks for; none where the parts are too coarse for it.
    std::optional<Spectrum> finished(Spectrum spectrum) const {
        spectrum.grain = grain_of(least_spread(spectrum));
        if (spectrum.grain < grain_) return std::nullopt;
        coarsen(spectrum, spectrum.grain - grain_);
        const int64_t first = spectrum.values.front(), last = spectrum.values.back();
        spectrum.low = std::max(static_cast<int64_t>(range_.low), scaled(first, spectrum.grain));
        spectrum.high = std::min(static_cast<int64_t>(range_.high),
                                 plus(scaled(last, spectrum.grain), (uint64_t{1} << spectrum.grain) - 1));
        return spectrum;
    }

private:
    static int64_t scaled(int64_t value, int grain) {
        return static_cast<int64_t>(static_cast<uint64_t>(value) << grain);
    }

    // How far the core spreads at least: all but 1 / 4096 of the integers at either end.
    uint64_t least_spread(const Spectrum& parts) const {
        const int64_t total = std::accumulate(parts.counts.begin(), parts.counts.end(), int64_t{0});
        const size_t tail = static_cast<size_t>(total) / kTail;
        const int64_t first = value_at(tail, parts.values.begin(), parts.counts.begin());
        const int64_t last = value_at(tail, parts.values.rbegin(), parts.counts.rbegin());
        return last > first ? ((distance(first, last) - 1) << grain_) + 1 : 0;
    }

    Range<T> range_;
    int grain_;
    T first_;
    size_t size_;
};

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

// Rows in the order of their classes.
template <typename T>
class Rows {
public:
    Rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes, size_t num_classes)
        : values_(values), row_length_(row_length), ends_(rows_of_classes(classes, num_rows, num_classes)),
          order_(num_rows) {
        std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
        std::vector<size_t> places(num_classes);
        std::copy(ends_.begin(), ends_.end() - 1, places.begin() + 1);
        for (size_t row = 0; row < num_rows; ++row) order_[places[static_cast<size_t>(classes[row])]++] = row;
    }

    size_t num_classes() const { return ends_.size(); }

    template <typename Visit>
    void visit(size_t index, Visit visit) const {
        for (size_t i = index == 0 ? 0 : ends_[index - 1]; i < ends_[index]; ++i) {
            visit(values_ + order_[i] * row_length_, row_length_);
        }
    }

    Spectrum lone(size_t index, std::vector<T>& gathered) const {
        gathered.clear();
        visit(index, [&](const T* row, size_t length) { gathered.insert(gathered.end(), row, row + length); });
        return lone_spectrum(gathered.data(), gathered.size(), range_of(gathered.data(), gathered.size()));
    }

private:
    const T* values_;
    size_t row_length_;
    std::vector<size_t> ends_;  // of the classes' places in order_
    std::vector<size_t> order_;
};

template <typename T>
Spectra wide_spectra(const T* values, size_t count, const Rows<T>& rows, Range<T> range) {
    const Parts<T> parts(range);
    const size_t num_classes = rows.num_classes();
    Sums sums = parts.sums();
    Spectra spectra;
    spectra.classes.reserve(num_classes);
    std::vector<T> gathered;
    // Class after class, so that the counters of one, and of no more, are in first-level cache.
    PartCounters counters(parts.size());
    for (size_t index = 0; index < num_classes; ++index) {
        counters.clear();
        rows.visit(index, [&](const T* row, size_t length) { parts.count(row, length, counters); });
        Spectrum counted = parts.counted(counters);
        sums.add(counted);
        std::optional<Spectrum> spectrum = parts.finished(std::move(counted));
        spectra.classes.push_back(spectrum ? *std::move(spectrum) : rows.lone(index, gathered));
    }
    std::optional<Spectrum> whole = parts.finished(parts.counted(sums));
    spectra.whole = whole ? *std::move(whole) : wide_spectrum(values, count, range);
    return spectra;
}

}  // namespace

template <typename T>
Spectrum spectrum_of(const T* values, size_t count) {
    const Range<T> range = range_of(values, count);
    if (range.width() <= kNarrow) return narrow_spectrum(values, count, range);
    const Parts<T> parts(range);
    PartCounters counters(parts.size());
    parts.count(values, count, counters);
    std::optional<Spectrum> spectrum = parts.finished(parts.counted(counters));
    return spectrum ? *std::move(spectrum) : wide_spectrum(values, count, range);
}

template <typename T>
Spectra spectra_of_rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes,
                        size_t num_classes) {
    const Rows<T> rows(values, num_rows, row_length, classes, num_classes);
    const size_t count = num_rows * row_length;
    const Range<T> range = range_of(values, count);
    if (range.width() > kNarrow) return wide_spectra(values, count, rows, range);
    Spectra spectra;
    const auto size = static_cast<size_t>(range.width()) + 1;
    if (size * num_classes <= std::max(kWindow, count / kSparse)) {
        spectra.classes = narrow_spectra(values, num_rows, row_length, classes, num_classes, range);
    } else {
        std::vector<T> gathered;
        spectra.classes.reserve(num_classes);
        for (size_t index = 0; index < num_classes; ++index) spectra.classes.push_back(rows.lone(index, gathered));
    }
    if (size / kSparse > count) {
        spectra.whole = narrow_spectrum(values, count, range);
        return spectra;
    }
    Sums sums(static_cast<int64_t>(range.low), size);
    for (const Spectrum& spectrum : spectra.classes) sums.add(spectrum);
    append_counts(spectra.whole, sums, 0, size, static_cast<int64_t>(range.low));
    spectra.whole.low = static_cast<int64_t>(range.low);
    spectra.whole.high = static_cast<int64_t>(range.high);
    return spectra;
}

template Spectrum spectrum_of(const int32_t*, size_t);
template Spectrum spectrum_of(const uint32_t*, size_t);
template Spectrum spectrum_of(const int64_t*, size_t);
template Spectra spectra_of_rows(const int32_t*, size_t, size_t, const int64_t*, size_t);
template Spectra spectra_of_rows(const uint32_t*, size_t, size_t, const int64_t*, size_t);
template Spectra spectra_of_rows(const int64_t*, size_t, size_t, const int64_t*, size_t);

}  // namespace fewbits
