#include "split.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "memory.h"
#include "values.h"
#include "wide.h"

namespace fewbits {

namespace {

// Splits runs of values of one class, words of 32 or 64 bits: symbols for what the table has, escapes for the rest, and raw
// bits.
template <typename Word>
class RowSplitter {
public:
    RowSplitter(const IntegerModel& model, bool is_signed, BitWriter& raw)
        : model_(model), raw_(raw), sign_(sizeof(Word) == 4 && is_signed ? uint64_t{1} << 31 : 0),
          centre_(static_cast<uint64_t>(model.centre)), first_(static_cast<uint64_t>(model.table.low)),
          num_values_(static_cast<uint64_t>(model.table.num_values)) {}

    void split(
        const Word* values, size_t count, uint8_t* symbols, size_t position, std::vector<EscapedSymbol>& escapes) {
        const bool by_loops = sizeof(Word) == 4 && is_near();
        if (by_loops && model_.shift == 0) {
            place(values, count, symbols);
        } else if (packs(count)) {
            place(values, count, symbols);
        } else if (model_.shift == 0) {
            for (size_t i = 0; i < count; ++i) symbols[i] = symbol_at(wide(values[i]) - centre_ - first_);
        } else if (model_.shift <= 56) {
            place_with_raw(values, count, symbols);
        } else {
            for (size_t i = 0; i < count; ++i) symbols[i] = symbol_at(high_of(wide(values[i]) - centre_) - first_);
            write_raw(values, count);
        }
        const uint8_t* at = symbols;
        const uint8_t* const end = symbols + count;
        while (at != end) {
            const void* found = std::memchr(at, static_cast<int>(num_values_), static_cast<size_t>(end - at));
            if (found == nullptr) break;
            at = static_cast<const uint8_t*>(found);
            const auto i = static_cast<size_t>(at - symbols);
            escapes.push_back({position + i, escape_of(wide(values[i]) - centre_)});
            ++at;
        }
    }

    // Whether the raw bits of rows of this length are left to a loop, which packs them where they belong.
    bool packs(size_t row_length) const {
        return sizeof(Word) == 4 && value_loops().pack != nullptr && row_length % 8 == 0 && model_.has_table &&
               model_.shift >= kLeastPacked && is_near();
    }

    // The value of symbol 0, with no raw bits: places and raw bits are those of distances from it.
    int64_t base() const { return static_cast<int64_t>(centre_ + (first_ << model_.shift)); }

    // Writes the low bits of values that have no symbols.
    void write_raw(const Word* values, size_t count) {
        if (model_.shift == 0) return;
        const uint64_t mask = (uint64_t{1} << model_.shift) - 1;
        for (size_t i = 0; i < count; ++i) raw_.write((wide(values[i]) - centre_) & mask, model_.shift);
    }

private:
    // A word as 64 bits; `sign` is the place of its sign, 0 if that needs no care.
    static uint64_t wide(Word word, uint64_t sign) { return (word ^ sign) - sign; }
    uint64_t wide(Word word) const { return wide(word, sign_); }

    // Whether distances of 32-bit values from the base, modulo 2^32, tell what the table has: a value outside of it must
    // not be a multiple of 2^32 away from one inside.
    bool is_near() const {
        if (model_.shift > kMostPacked) return false;
        const int64_t span = static_cast<int64_t>(num_values_) << model_.shift, all = int64_t{1} << 32;
        if (span > all) return false;
        if (sign_ != 0) return span <= all / 4 && base() >= -all / 4 && base() <= all / 4;
        return base() >= 0 && base() <= all - span;
    }

    void place(const Word* values, size_t count, uint8_t* symbols) const {
        const auto num_values = static_cast<uint32_t>(num_values_);
        value_loops().place(values, count, static_cast<uint32_t>(base()), model_.shift, num_values, symbols);
    }

    uint8_t symbol_at(uint64_t place) const { return static_cast<uint8_t>(place < num_values_ ? place : num_values_); }

    void place_with_raw(const Word* values, size_t count, uint8_t* symbols) {
        // Copies: symbols are bytes, which a compiler takes for a part of anything that is not the loop's own.
        const int shift = model_.shift;
        const uint64_t sign = sign_, centre = centre_, first = first_, num_values = num_values_;
        const uint64_t mask = (uint64_t{1} << shift) - 1;
        BitWriter::Run run = raw_.begin(count * static_cast<uint64_t>(shift));
        const auto split_one = [=](size_t i) {
            const uint64_t difference = wide(values[i], sign) - centre;
            const uint64_t place = static_cast<uint64_t>(static_cast<int64_t>(difference) >> shift) - first;
            symbols[i] = static_cast<uint8_t>(place < num_values ? place : num_values);
            return difference & mask;
        };
        size_t i = 0;
        if (2 * shift <= 56) {  // two at a time
            for (; i + 2 <= count; i += 2) {
                const uint64_t low = split_one(i);
                run.write(low | split_one(i + 1) << shift, 2 * shift);
            }
        }
        for (; i < count; ++i) run.write(split_one(i), shift);
        raw_.end(run);
    }

    // C++17 leaves it to the compiler whether the sign is shifted in; every one there is does so.
    uint64_t high_of(uint64_t difference) const {
        return static_cast<uint64_t>(static_cast<int64_t>(difference) >> model_.shift);
    }

    Escape escape_of(uint64_t difference) const {
        if (model_.table.escape() == 0) throw InvalidArgument("a value lies outside of a table that has no escape.");
        const uint64_t high = high_of(difference);
        if (static_cast<int64_t>(high) < model_.table.low) return {first_ - high - 1, true};
        return {high - static_cast<uint64_t>(model_.table.last()) - 1, false};
    }

    const IntegerModel& model_;
    BitWriter& raw_;
    uint64_t sign_;  // of 32 bits that are signed, the place of their sign; else 0
    uint64_t centre_, first_, num_values_;
};

template <typename Word>
SymbolStream split_array(const CodedArray& array) {
    const std::vector<IntegerModel>& models = array.models.models;
    const bool has_classes = array.classes != nullptr;
    const size_t num_rows = has_classes ? array.num_rows : 1;
    const size_t row_length = has_classes ? array.row_length : array.num_rows * array.row_length;
    SymbolStream stream;
    stream.row_length = row_length;
    stream.raw.resize(models.size());
    stream.packed.resize(models.size());
    std::vector<RowSplitter<Word>> splitters;
    for (size_t k = 0; k < models.size(); ++k) {
        if (models[k].has_table) check_table(models[k].table);
        splitters.emplace_back(models[k], array.type != CodedArray::Type::kUint32, stream.raw[k]);
    }
    const auto class_of = [&](size_t row) {
        const int64_t index = has_classes ? array.classes[row] : 0;
        if (index < 0 || static_cast<size_t>(index) >= models.size()) {
            throw InvalidArgument("a row's class has no model.");
        }
        return static_cast<size_t>(index);
    };
    std::vector<uint64_t> raw_bits(models.size());
    for (size_t row = 0; row < num_rows; ++row) {
        const size_t k = class_of(row);
        if (models[k].has_table) stream.classes.push_back(static_cast<uint32_t>(k));
        raw_bits[k] += row_length * static_cast<uint64_t>(models[k].shift);
    }
    for (size_t k = 0; k < models.size(); ++k) {
        if (raw_bits[k] == 0) continue;
        if (!splitters[k].packs(row_length)) {
            stream.raw[k].reserve(raw_bits[k]);
            continue;
        }
        stream.packed[k] = {static_cast<const uint32_t*>(array.values), array.classes, num_rows, row_length,
                            static_cast<int64_t>(k), static_cast<uint32_t>(splitters[k].base()), models[k].shift,
                            static_cast<size_t>(raw_bits[k] / 8)};
    }
    stream.num_symbols = stream.classes.size() * row_length;
    stream.symbols = fresh_bytes(stream.num_symbols);
    const Word* values = static_cast<const Word*>(array.values);
    size_t position = 0;
    for (size_t row = 0; row < num_rows; ++row, values += row_length) {
        const size_t k = class_of(row);
        if (!models[k].has_table) {
            splitters[k].write_raw(values, row_length);
            continue;
        }
        splitters[k].split(values, row_length, stream.symbols.get() + position, position, stream.escapes);
        position += row_length;
    }
    for (BitWriter& writer : stream.raw) writer.finish();
    return stream;
}

}  // namespace

SymbolStream split(const CodedArray& array) {
    return array.type == CodedArray::Type::kInt64 ? split_array<uint64_t>(array) : split_array<uint32_t>(array);
}

void RawRows::pack_to(uint8_t* out) const {
    constexpr size_t kLast = 16;  // numbers: at least eight bytes, which a loop may write beyond those it was asked for
    const auto octets = [this](size_t count) { return count / 8 * static_cast<size_t>(width); };
    for (size_t row = 0; row < num_rows; ++row) {
        if (classes != nullptr && classes[row] != index) continue;
        const uint32_t* const numbers = values + row * row_length;
        const size_t last = std::min(row_length, kLast), before = row_length - last;
        value_loops().pack(numbers, before, base, width, out);
        uint8_t room[kLast / 8 * kMostPacked + 8];
        value_loops().pack(numbers + before, last, base, width, room);
        std::memcpy(out + octets(before), room, octets(last));
        out += octets(row_length);
    }
}

uint32_t sum_of_costs(const uint32_t* costs, size_t count) {
    uint32_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += costs[i];
    return sum;
}

}  // namespace fewbits
