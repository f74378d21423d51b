#include "fit.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "errors.h"

namespace fewbits {

namespace {

constexpr int64_t kByte = 8 * kCostOne;
constexpr int64_t kHistogramBytes = 5;  // what describing a histogram costs, at least, more than naming a shipped table
constexpr int64_t kEscapeBits = 12;     // what escaping a value costs more than coding it, about
constexpr size_t kMaxValues = kMaxSymbols - 1;
constexpr int64_t kHistogramReach = 1 << 15;  // values of a histogram are smaller

// ---- descriptions: the bytes that fewbits/models/descriptions.py would write

int64_t uint_bytes(uint64_t value) { return std::max(1, (bit_length(value) + 6) / 7); }

int64_t sint_bytes(int64_t value) {
    const auto doubled = static_cast<uint64_t>(value) << 1;
    return uint_bytes(value < 0 ? ~doubled : doubled);
}

int64_t table_bytes(const Table& table, const Shipped& shipped) {
    if (shipped.has(table)) return 1;
    int64_t bytes = 1 + sint_bytes(table.low) + uint_bytes(static_cast<uint64_t>(table.num_values) - 1);
    for (int s = 0; s <= table.num_values; ++s) bytes += uint_bytes(table.counts[static_cast<size_t>(s)]);
    return bytes;
}

int64_t model_bytes(const IntegerModel& model, const Shipped& shipped) {
    const int64_t placed = 2 + sint_bytes(model.centre);
    if (!model.has_table) return placed;
    const bool plain = model.shift == 0 && model.centre == 0;
    return (plain ? 0 : placed) + table_bytes(model.table, shipped);
}

// ---- high parts and what they cost

// The high parts (integer - centre) >> shift of a spectrum's integers.
class HighParts {
public:
    // `shift` is at least the spectrum's grain.
    void take(const Spectrum& spectrum, int shift, int64_t centre) {
        const size_t size = spectrum.values.size();
        values_.resize(size);
        counts_.resize(size);
        size_t last = 0;
        size_t turn = 0;  // where the differences, which wrap modulo 2^64, start over
        for (size_t i = 0; i < size; ++i) {
            const auto value = static_cast<uint64_t>(spectrum.values[i]) << spectrum.grain;
            const int64_t high = static_cast<int64_t>(value - static_cast<uint64_t>(centre)) >> shift;
            if (i > 0 && high == values_[last]) {
                counts_[last] += spectrum.counts[i];
                continue;
            }
            if (i > 0) ++last;
            if (i > 0 && high < values_[last - 1]) turn = last;
            values_[last] = high;
            counts_[last] = spectrum.counts[i];
        }
        values_.resize(last + 1);
        counts_.resize(last + 1);
        if (turn > 0) rotate(turn);
    }

    Occurrences all() const { return {values_.data(), counts_.data(), values_.size()}; }

    // Those from `low` to `last`.
    Occurrences between(int64_t low, int64_t last) const {
        const auto begin = std::lower_bound(values_.begin(), values_.end(), low) - values_.begin();
        const auto end = std::upper_bound(values_.begin(), values_.end(), last) - values_.begin();
        return {values_.data() + begin, counts_.data() + begin, static_cast<size_t>(end - begin)};
    }

private:
    // Ascending integers that spread over less than 2^64 start over once at most, and what comes then is less than all
    // that came before; high parts of the two ends may be equal.
    void rotate(size_t turn) {
        const auto offset = static_cast<std::ptrdiff_t>(turn);
        std::rotate(values_.begin(), values_.begin() + offset, values_.end());
        std::rotate(counts_.begin(), counts_.begin() + offset, counts_.end());
        const size_t joint = values_.size() - turn;
        if (values_[joint - 1] != values_[joint]) return;
        counts_[joint - 1] += counts_[joint];
        values_.erase(values_.begin() + static_cast<std::ptrdiff_t>(joint));
        counts_.erase(counts_.begin() + static_cast<std::ptrdiff_t>(joint));
    }

    std::vector<int64_t> values_;
    std::vector<int64_t> counts_;
};

int64_t total_of(Occurrences occurrences) {
    return std::accumulate(occurrences.counts, occurrences.counts + occurrences.size, int64_t{0});
}

// What a table's symbols and escapes cost; nothing escapes from a table whose escape has frequency 0.
int64_t symbols_cost(const Table& table, Occurrences high) {
    const std::array<int64_t, kTotal + 1>& of_frequency = frequency_costs();
    const int64_t escape = of_frequency[table.escape()], last = table.last();
    int64_t cost = 0;
    for (size_t i = 0; i < high.size; ++i) {
        const int64_t value = high.values[i];
        int64_t each;
        if (value < table.low) {
            each = escape_cost(escape, value, table.low);
        } else if (value > last) {
            each = escape_cost(escape, last, value);
        } else {
            each = of_frequency[table.counts[static_cast<size_t>(value - table.low)]];
        }
        cost += high.counts[i] * each;
    }
    return cost;
}

// ---- histograms

using Symbols = std::array<int64_t, kMaxSymbols>;

// Scales counts to frequencies that sum to 8192, none below `least`, by greedy steps of least cost.
// NUMERICS: integers throughout; an encoder's choice must not depend on a machine's logarithm.
Symbols normalised(const Symbols& counts, const Symbols& least, size_t size) {
    constexpr auto kWhole = static_cast<int64_t>(kTotal);
    const std::array<int64_t, kTotal + 1>& of_frequency = frequency_costs();
    const int64_t total = std::accumulate(counts.begin(), counts.begin() + size, int64_t{0});
    Symbols frequencies{};
    for (size_t i = 0; i < size; ++i) {
        frequencies[i] = std::max(least[i], (counts[i] * kWhole + total / 2) / total);
    }
    int64_t excess = std::accumulate(frequencies.begin(), frequencies.begin() + size, int64_t{0}) - kWhole;
    const int64_t step = excess > 0 ? -1 : 1;  // and it stays so: a step brings the sum nearer by one
    Symbols added{};
    const auto look = [&](size_t i) {
        const int64_t changed = frequencies[i] + step;
        // What needs no slot (an escape that never occurs) gets none; nothing falls below its least.
        if (changed < least[i] || least[i] == 0) return std::numeric_limits<int64_t>::max();
        const auto before = static_cast<size_t>(frequencies[i]), after = static_cast<size_t>(changed);
        return counts[i] * (of_frequency[after] - of_frequency[before]);
    };
    for (size_t i = 0; excess != 0 && i < size; ++i) added[i] = look(i);
    for (; excess != 0; excess += step) {
        const auto best = static_cast<size_t>(std::min_element(added.begin(), added.begin() + size) - added.begin());
        frequencies[best] += step;
        added[best] = look(best);
    }
    return frequencies;
}

// Where the 63 consecutive values that hold the most begin: the first such place from the first value on.
int64_t fullest_window(Occurrences occurrences) {
    constexpr auto kSpan = static_cast<int64_t>(kMaxValues) - 1;
    const int64_t* const values = occurrences.values;
    int64_t most = 0, held = 0, begin = values[0];
    // The first fullest window, unless it begins with the first value, ends with a value that occurs: without one it
    // could begin one earlier and hold no less.
    for (size_t first = 0, end = 0; end < occurrences.size; ++end) {
        held += occurrences.counts[end];
        while (values[first] < values[end] - kSpan) held -= occurrences.counts[first++];
        if (held > most) {
            most = held;
            begin = std::max(values[0], values[end] - kSpan);
        }
    }
    return begin;
}

}  // namespace

std::optional<Table> histogram_table(Occurrences occurrences, int64_t elsewhere) {
    const int64_t total = total_of(occurrences) + elsewhere;
    const int64_t* const values = occurrences.values;
    const auto spread = static_cast<size_t>(values[occurrences.size - 1] - values[0]) + 1;
    int64_t low = spread > kMaxValues ? fullest_window(occurrences) : values[0];
    size_t size = std::min(spread, kMaxValues);
    Symbols counts{};
    for (size_t i = 0; i < occurrences.size; ++i) {
        const auto place = static_cast<uint64_t>(values[i] - low);  // of values below `low`, huge
        if (place < size) counts[place] = occurrences.counts[i];
    }
    // An edge value earns its slot (total / 8192 * 1.44 bits) and byte of description if escaping it costs more.
    constexpr auto kWhole = static_cast<int64_t>(kTotal);
    const int64_t price = total * 3 / 2 + 8 * kWhole;
    const auto worth = [price](int64_t count) { return count * kEscapeBits * kWhole > price; };
    const auto all = counts.begin() + static_cast<std::ptrdiff_t>(size);
    auto begin = std::find_if(counts.begin(), all, worth), stop = all;
    if (begin == all) {
        begin = std::max_element(counts.begin(), all);
        stop = begin + 1;
    } else {
        while (!worth(*(stop - 1))) --stop;
    }
    low += begin - counts.begin();
    size = static_cast<size_t>(stop - begin);
    std::copy(begin, stop, counts.begin());
    const int64_t outside = total - std::accumulate(counts.begin(), counts.begin() + size, int64_t{0});
    if (size == 1 && outside == 0) return std::nullopt;
    counts[size] = outside;
    Symbols least{};
    std::fill_n(least.begin(), size, 1);
    least[size] = outside > 0 ? 1 : 0;
    const Symbols frequencies = normalised(counts, least, size + 1);
    Table table;
    table.low = low;
    table.num_values = static_cast<int>(size);
    for (size_t s = 0; s <= size; ++s) table.counts[s] = static_cast<uint16_t>(frequencies[s]);
    return table;
}

// ---- fits

namespace {

// Looks at models one after the other and keeps the first of the cheapest.
class Search {
public:
    Search(const Spectrum& spectrum, const Shipped& shipped)
        : spectrum_(spectrum), shipped_(shipped),
          total_(std::accumulate(spectrum.counts.begin(), spectrum.counts.end(), int64_t{0})) {}

    int64_t total() const { return total_; }
    const FittedModel& best() const { return best_; }

    // A model with no table, shift bits an integer.
    void without_table(int shift, int64_t centre) { consider({false, {}, shift, centre}, -1, 0); }

    // The best histogram and the best shipped table for high parts at one shift and centre.
    void with_tables(int shift, int64_t centre) {
        high_.take(spectrum_, shift, centre);
        Shipped::Magnitudes magnitudes{};
        const Occurrences inside = high_.between(-kReach, kReach);
        for (size_t i = 0; i < inside.size; ++i) {
            magnitudes[static_cast<size_t>(std::abs(inside.values[i]))] += inside.counts[i];
        }
        const int64_t outside = total_ - total_of(inside);
        // What no table reaches counts as 31, near enough to choose a scale by.
        magnitudes[kReach] += outside;
        const Shipped::Choice choice = shipped_.choose(magnitudes);
        const Table& table = shipped_.table(choice.code);
        consider({true, table, shift, centre}, static_cast<int>(choice.code), symbols_cost(table, high_.all()));
        // Of a few values no histogram can save what its description costs.
        if (outside == 0 && choice.cost <= static_cast<double>(kHistogramBytes * kByte)) return;
        // A histogram may sit anywhere within reach of 2^15; values farther off are escapes wherever it sits.
        const Occurrences reach = high_.between(1 - kHistogramReach, kHistogramReach - 1);
        if (reach.size == 0) return;
        const std::optional<Table> histogram = histogram_table(reach, total_ - total_of(reach));
        if (histogram) consider({true, *histogram, shift, centre}, -1, symbols_cost(*histogram, high_.all()));
    }

private:
    void consider(const IntegerModel& model, int shipped, int64_t symbols) {
        const int64_t cost = total_ * model.shift * kCostOne + symbols + model_bytes(model, shipped_) * kByte;
        if (any_ && cost >= best_.cost) return;
        any_ = true;
        best_ = {model, shipped, cost};
    }

    const Spectrum& spectrum_;
    const Shipped& shipped_;
    const int64_t total_;
    HighParts high_;
    bool any_ = false;
    FittedModel best_;
};

// The integer (to the grain) at a place, 1 ... total, in sorted order.
int64_t quantile(const Spectrum& spectrum, int64_t place) {
    size_t i = 0;
    for (int64_t before = spectrum.counts[0]; before < place; before += spectrum.counts[i]) ++i;
    return static_cast<int64_t>(static_cast<uint64_t>(spectrum.values[i]) << spectrum.grain);
}

uint64_t apart(int64_t low, int64_t high) { return static_cast<uint64_t>(high) - static_cast<uint64_t>(low); }

// The multiple of 2^shift nearest the median, less half of 2^shift, modulo 2^64.
int64_t centre_at(int64_t median, int shift) {
    const uint64_t half = uint64_t{1} << shift >> 1;
    const uint64_t below = (uint64_t{1} << shift) - 1;
    return static_cast<int64_t>(((static_cast<uint64_t>(median) + half) & ~below) - half);
}

}  // namespace

FittedModel fit_model(const Spectrum& spectrum, const Shipped& shipped) {
    Search search(spectrum, shipped);
    if (spectrum.low == spectrum.high) {
        search.without_table(0, spectrum.low);
        return search.best();
    }
    const int width = bit_length(apart(spectrum.low, spectrum.high));
    if (width < 64) search.without_table(width, spectrum.low);
    const int64_t total = search.total(), tail = total / static_cast<int64_t>(kTail);
    const int64_t median = quantile(spectrum, (total + 1) / 2);
    const int64_t first = quantile(spectrum, tail + 1), last = quantile(spectrum, total - tail);
    const int needed = bit_length(std::max(apart(first, median), apart(median, last)) / kReach);
    const int least = spectrum.grain > 0 ? spectrum.grain + 1 : 0;
    const int stop = std::max(least + 1, std::min(needed + 2, width));
    for (int shift = std::max(least, needed - 2); shift < stop; ++shift) {
        search.with_tables(shift, centre_at(median, shift));
    }
    // A small centre is not worth its bytes when the table already reaches: the plain model is tried as well.
    if (needed == 0 && least == 0 && median != 0 && median > -kReach && median < kReach) search.with_tables(0, 0);
    return search.best();
}

namespace {

FittedRows fit_classes(const std::vector<Spectrum>& spectra, const int64_t* classes, size_t num_rows,
                       const Shipped& shipped) {
    FittedRows rows;
    rows.models.reserve(spectra.size());
    for (const Spectrum& spectrum : spectra) {
        rows.models.push_back(fit_model(spectrum, shipped));
        rows.cost += rows.models.back().cost;
    }
    rows.class_model = fit_model(spectrum_of(classes, num_rows), shipped);
    // A model set says first that it is one, and of how many classes.
    rows.cost += rows.class_model->cost + (1 + uint_bytes(spectra.size() - 2)) * kByte;
    return rows;
}

}  // namespace

template <typename T>
FittedRows fit_rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes, size_t num_classes,
                    const Shipped& shipped) {
    const Spectra spectra = spectra_of_rows(values, num_rows, row_length, classes, num_classes);
    return fit_classes(spectra.classes, classes, num_rows, shipped);
}

template <typename T>
FittedRows best_fit(const T* values, size_t num_rows, size_t row_length, const int64_t* classes, size_t num_classes,
                    int64_t class_bytes, const Shipped& shipped) {
    const Spectra spectra = spectra_of_rows(values, num_rows, row_length, classes, num_classes);
    FittedRows rows = fit_classes(spectra.classes, classes, num_rows, shipped);
    const FittedModel whole = fit_model(spectra.whole, shipped);
    const int64_t further = class_bytes * static_cast<int64_t>(num_classes - 1) * kByte;
    if (rows.cost + further < whole.cost) return rows;
    return {{whole}, std::nullopt, whole.cost};
}

template FittedRows fit_rows(const int32_t*, size_t, size_t, const int64_t*, size_t, const Shipped&);
template FittedRows fit_rows(const uint32_t*, size_t, size_t, const int64_t*, size_t, const Shipped&);
template FittedRows fit_rows(const int64_t*, size_t, size_t, const int64_t*, size_t, const Shipped&);
template FittedRows best_fit(const int32_t*, size_t, size_t, const int64_t*, size_t, int64_t, const Shipped&);
template FittedRows best_fit(const uint32_t*, size_t, size_t, const int64_t*, size_t, int64_t, const Shipped&);
template FittedRows best_fit(const int64_t*, size_t, size_t, const int64_t*, size_t, int64_t, const Shipped&);

}  // namespace fewbits
