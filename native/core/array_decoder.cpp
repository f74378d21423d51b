#include "array_decoder.h"

#include <algorithm>
#include <cstring>

#include "errors.h"
#include "isa.h"
#include "values.h"

namespace fewbits {

ClassRule::ClassRule(const IntegerModel& model_, const Output& output, size_t class_index)
    : model(model_), element(output, class_index) {
    if (!model.has_table) return;
    check_table(model.table);
    alias = alias_table(model.table);
    can_escape = model.table.escape() != 0;
    if (model.shift != 0) {
        // Values rise with their symbols, and elements, or the size of them, with values: where the least and the
        // greatest value are elements, and 32 bits hold both, so are all between them.
        const int64_t least = static_cast<int64_t>(value_of(uint32_t{0}));
        const int64_t limit = output.kind == Output::Kind::kFields ? int64_t{UINT32_MAX} : int64_t{INT32_MAX};
        const int64_t span = (int64_t{model.table.num_values} << std::min(model.shift, kMostJoined)) - 1;
        uint64_t word = 0;
        // A loop of 32 bits shifts by what is dropped: 32 and more, which only 0 survives, are not for it.
        joins = output.kind != Output::Kind::kIntegers && model.shift <= kMostJoined && element.drop() < 32 &&
                least >= (output.kind == Output::Kind::kFields ? 0 : -limit) && least <= limit - span &&
                element.word_of(least, word) && element.word_of(least + span, word);
        return;
    }
    for (int s = 0; s < model.table.num_values; ++s) {
        uint64_t word = 0;
        maps_all &= element.word_of(static_cast<int64_t>(value_of(static_cast<uint32_t>(s))), word);
        map.set(s, word);
    }
    map.is_sum = output.kind == Output::Kind::kIntegers || output.kind == Output::Kind::kLevels;
    map.escape = static_cast<uint8_t>(model.table.num_values);
    if (map.is_sum) map.set(map.escape, map.words[0] + map.escape);
}

uint64_t ClassRule::value_of(uint32_t symbol) const {
    const uint64_t high = static_cast<uint64_t>(model.table.low) + symbol;
    return (high << model.shift) + static_cast<uint64_t>(model.centre);
}

uint64_t ClassRule::value_of(Escape escape) const {
    const auto low = static_cast<uint64_t>(model.table.low);
    const auto last = static_cast<uint64_t>(model.table.last());
    const uint64_t high = escape.below ? low - 1 - escape.distance : last + 1 + escape.distance;
    return (high << model.shift) + static_cast<uint64_t>(model.centre);
}

ArrayDecoder::ArrayDecoder(const ArraySpec& spec, const Output& output, const BitReader& body)
    : spec_(spec), output_(output), body_(body), width_(static_cast<size_t>(output.width)) {
    const std::vector<IntegerModel>& models = spec.models.models;
    // With one class all elements count as one row, whatever the shape.
    num_rows_ = spec.models.has_classes ? spec.num_rows : 1;
    row_length_ = spec.models.has_classes ? spec.row_length : spec.num_rows * spec.row_length;
    const bool wraps = spec.row_length != 0 && spec.num_rows > SIZE_MAX / spec.row_length;
    const bool fits = !models.empty() && !wraps && spec.num_rows * spec.row_length == output.num_elements &&
                      (output.kind != Output::Kind::kFields || output.drops.size() == models.size());
    if (!fits) throw InvalidArgument("an array's output does not fit its description.");
    if (models.size() > 65536 || num_rows_ > UINT32_MAX) throw Corrupt("an array has too many classes or rows.");
    if (spec.models.has_classes && output.num_elements == 0) {
        throw Corrupt("an array without elements has classes of rows.");
    }
    num_coded_rows_ = models[0].has_table ? 1 : 0;
    rows_of_class_.assign(models.size(), 0);
    rows_of_class_[0] = 1;
}

void ArrayDecoder::set_classes(const std::vector<int64_t>& classes) {
    const size_t num_models = spec_.models.models.size();
    classes_.resize(num_rows_);
    ranks_.resize(num_rows_);
    rows_of_class_.assign(num_models, 0);
    for (size_t row = 0; row < num_rows_; ++row) {
        const int64_t index = classes[row];
        if (index < 0 || static_cast<size_t>(index) >= num_models) throw Corrupt("a row's class has no model.");
        classes_[row] = static_cast<uint16_t>(index);
        ranks_[row] = static_cast<uint32_t>(rows_of_class_[static_cast<size_t>(index)]++);
    }
    num_coded_rows_ = 0;
    for (size_t k = 0; k < num_models; ++k) num_coded_rows_ += model_of(k).has_table ? rows_of_class_[k] : 0;
    if (num_coded_rows_ == num_rows_) return;
    for (size_t row = 0; row < num_rows_; ++row) {
        if (model_of(classes_[row]).has_table) coded_rows_.push_back(static_cast<uint32_t>(row));
    }
}

uint64_t ArrayDecoder::place_raw_bits(uint64_t position) {
    raw_of_class_.assign(spec_.models.models.size(), 0);
    for (size_t k = 0; k < raw_of_class_.size(); ++k) {
        raw_of_class_[k] = position;
        const uint64_t end = position + rows_of_class_[k] * row_length_ * static_cast<uint64_t>(model_of(k).shift);
        if (end > body_.num_bits()) throw Corrupt("a body's raw bits run past its end.");
        position = (end + 7) / 8 * 8;
        if (body_.read(end, static_cast<int>(position - end)) != 0) {
            throw Corrupt("the padding after raw bits is not zero.");
        }
    }
    return position;
}

void ArrayDecoder::make_rules() {
    rules_.resize(spec_.models.models.size());
    for (size_t k = 0; k < rules_.size(); ++k) {
        if (rows_of_class_[k] == 0) continue;
        rules_[k] = std::make_unique<ClassRule>(model_of(k), output_, k);
        rules_[k]->raw_position = raw_of_class_[k];
    }
}

uint64_t ArrayDecoder::raw_position(size_t row, size_t column, const ClassRule& rule) const {
    const size_t rank = ranks_.empty() ? 0 : ranks_[row];
    return rule.raw_position + (rank * row_length_ + column) * static_cast<uint64_t>(rule.model.shift);
}

void ArrayDecoder::store(uint8_t* out, const ClassRule& rule, uint64_t value) const {
    uint64_t word = 0;
    const auto q = static_cast<int64_t>(value);
    if (!rule.element.word_of(q, word)) {
        if (output_.kind != Output::Kind::kLevels) throw Corrupt(rule.element.refusal());
        output_.far_levels->add(out, q);
    }
    switch (width_) {  // NUMERICS: low bytes of the word, in the machine's order
        case 1: { const auto w = static_cast<uint8_t>(word); std::memcpy(out, &w, 1); break; }
        case 2: { const auto w = static_cast<uint16_t>(word); std::memcpy(out, &w, 2); break; }
        case 4: { const auto w = static_cast<uint32_t>(word); std::memcpy(out, &w, 4); break; }
        default: std::memcpy(out, &word, 8);
    }
}

void ArrayDecoder::convert(
    size_t row, size_t column, const uint8_t* symbols, size_t count, EscapeReader& escapes) const {
    const ClassRule& rule = rule_of(row);
    uint8_t* out = element(row, column);
    const auto escape = static_cast<uint8_t>(rule.model.table.num_values);
    if (rule.model.shift != 0) {
        const uint64_t raw = raw_position(row, column, rule);
        if (join(rule, raw, symbols, count, out)) {
            for (size_t i = 0; i < count; ++i) {  // the elements of escapes are written over
                const void* found = rule.can_escape ? std::memchr(symbols + i, escape, count - i) : nullptr;
                if (found == nullptr) return;
                i = static_cast<size_t>(static_cast<const uint8_t*>(found) - symbols);
                convert_slowly(rule, raw, symbols, i, i + 1, escapes, out);
            }
            return;
        }
        // From escape to escape: between them every symbol is a value of the table.
        for (size_t i = 0; i < count;) {
            const void* found = rule.can_escape ? std::memchr(symbols + i, escape, count - i) : nullptr;
            const size_t stop = found ? static_cast<size_t>(static_cast<const uint8_t*>(found) - symbols) : count;
            convert_values(rule, raw, symbols, i, stop, escapes, out);
            if (found) convert_slowly(rule, raw, symbols, stop, stop + 1, escapes, out);
            i = found ? stop + 1 : stop;
        }
        return;
    }
    if (!rule.maps_all) return convert_slowly(rule, 0, symbols, 0, count, escapes, out);
    const bool in_place = symbols == out;
    if (!in_place && !kernels().map_symbols(rule.map, output_.width, symbols, count, out)) return;
    if (!rule.can_escape) return;
    // The escape's byte is one that no other symbol has, with a base or without.
    const uint8_t sought = in_place ? rule.map.planes[0][escape] : escape;
    const uint8_t* at = symbols;
    const uint8_t* const end = symbols + count;
    while ((at = static_cast<const uint8_t*>(std::memchr(at, sought, static_cast<size_t>(end - at)))) != nullptr) {
        store(out + static_cast<size_t>(at - symbols) * width_, rule, rule.value_of(escapes.take()));
        if (++at == end) return;
    }
}

void ArrayDecoder::convert_slowly(const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t begin, size_t end,
                                  EscapeReader& escapes, uint8_t* out) const {
    const int shift = rule.model.shift;
    for (size_t i = begin; i < end; ++i) {
        uint64_t value = symbols[i] == rule.model.table.num_values ? rule.value_of(escapes.take())
                                                                   : rule.value_of(uint32_t{symbols[i]});
        value += body_.read(raw + i * static_cast<uint64_t>(shift), shift);
        store(out + i * width_, rule, value);
    }
}

void ArrayDecoder::fill_uncoded_rows() const {
    if (num_coded_rows_ == num_rows_) return;
    for (size_t row = 0; row < num_rows_; ++row) {
        const ClassRule& rule = rule_of(row);
        if (rule.model.has_table) continue;
        const uint64_t raw = raw_position(row, 0, rule);
        const auto centre = static_cast<uint64_t>(rule.model.centre);
        const auto shift = static_cast<uint64_t>(rule.model.shift);
        uint8_t* out = element(row, 0);
        for (size_t i = 0; i < row_length_; ++i) {
            store(out + i * width_, rule, centre + body_.read(raw + i * shift, rule.model.shift));
        }
    }
}

bool ArrayDecoder::join(
    const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t count, uint8_t* out) const {
    const int shift = rule.model.shift;
    const uint64_t end = raw + count * static_cast<uint64_t>(shift);
    const bool reaches = raw % 8 == 0 && end / 8 + 17 <= body_.num_bits() / 8;
    if (!reaches || width_ != 4 || shift > kMostJoined || !rule.joins) return false;
    const RawRun run = {static_cast<uint32_t>(rule.value_of(uint32_t{0})), shift, body_.bytes() + raw / 8};
    if (output_.kind == Output::Kind::kFields) {
        value_loops().join_fields(run, rule.element.drop(), output_.is_signed, symbols, count, out);
    } else {
        value_loops().join_levels(run, output_.step, rule.element.shifts(), symbols, count, out);
    }
    return true;
}

namespace {

// A row of numbers of `width` bits, read from a place from which eight bytes may be read for each of them.
class RawNumbers {
public:
    RawNumbers(const uint8_t* bytes, uint64_t position, int width)
        : bytes_(bytes), position_(position), width_(static_cast<uint64_t>(width)),
          mask_((uint64_t{1} << width) - 1) {}

    uint64_t next() {
        uint64_t word;
        std::memcpy(&word, bytes_ + (position_ >> 3), 8);
        const uint64_t value = word >> (position_ & 7) & mask_;
        position_ += width_;
        return value;
    }

private:
    const uint8_t* bytes_;
    uint64_t position_;
    uint64_t width_, mask_;
};

// What the elements of values of one class are made with: no escape among them, and a shift above 0.
struct ValueRun {
    uint64_t base;  // the value of symbol 0
    int shift;
};

template <typename Element>
void put(uint8_t* out, size_t i, Element element) {
    std::memcpy(out + i * sizeof(Element), &element, sizeof(Element));
}

template <typename Element, bool kSigned>
bool write_fields(const ValueRun& run, const ElementRule& rule, RawNumbers low, const uint8_t* symbols, size_t count,
                  uint8_t* out) {
    const uint64_t base = run.base, limit = rule.limit();
    const int shift = run.shift, drop = rule.drop(), sign_place = 8 * static_cast<int>(sizeof(Element)) - 1;
    uint64_t beyond = 0;  // 1 if a magnitude was too great
    for (size_t i = 0; i < count; ++i) {
        const uint64_t v = base + (static_cast<uint64_t>(symbols[i]) << shift) + low.next();
        const uint64_t magnitude = kSigned ? v >> 1 : v;
        beyond |= static_cast<uint64_t>(magnitude > limit);
        put(out, i, static_cast<Element>(magnitude << drop | (kSigned ? (v & 1) << sign_place : uint64_t{0})));
    }
    return beyond == 0;
}

template <typename Element>
bool write_words(const ValueRun& run, const ElementRule& rule, RawNumbers low, const uint8_t* symbols, size_t count,
                 uint8_t* out) {
    bool valid = true;
    for (size_t i = 0; i < count; ++i) {
        uint64_t word = 0;
        const uint64_t value = run.base + (static_cast<uint64_t>(symbols[i]) << run.shift) + low.next();
        valid &= rule.word_of(static_cast<int64_t>(value), word);
        put(out, i, static_cast<Element>(word));
    }
    return valid;
}

}  // namespace

void ArrayDecoder::convert_values(const ClassRule& rule, uint64_t raw, const uint8_t* symbols, size_t begin, size_t end,
                                  EscapeReader& escapes, uint8_t* out) const {
    const int shift = rule.model.shift;
    const uint64_t first = raw + begin * static_cast<uint64_t>(shift), last = raw + end * static_cast<uint64_t>(shift);
    // Eight bytes hold 57 bits at any place in a byte; the last number's eight must lie within the body.
    if (begin == end || shift > 57 || last / 8 + 8 > body_.num_bits() / 8) {
        return convert_slowly(rule, raw, symbols, begin, end, escapes, out);
    }
    const ValueRun run = {rule.value_of(uint32_t{0}), shift};
    const RawNumbers low(body_.bytes(), first, shift);
    const auto write = [&](const auto& writer) {
        return writer(run, rule.element, low, symbols + begin, end - begin, out + begin * width_);
    };
    const bool is_fields = output_.kind == Output::Kind::kFields;
    bool valid;
    if (is_fields && width_ == 4) {
        valid = output_.is_signed ? write(write_fields<uint32_t, true>) : write(write_fields<uint32_t, false>);
    } else if (is_fields && width_ == 2) {
        valid = output_.is_signed ? write(write_fields<uint16_t, true>) : write(write_fields<uint16_t, false>);
    } else {
        switch (width_) {
            case 1: valid = write(write_words<uint8_t>); break;
            case 2: valid = write(write_words<uint16_t>); break;
            case 4: valid = write(write_words<uint32_t>); break;
            default: valid = write(write_words<uint64_t>);
        }
    }
    if (valid) return;
    if (output_.kind == Output::Kind::kLevels) return convert_slowly(rule, raw, symbols, begin, end, escapes, out);
    throw Corrupt(rule.element.refusal());
}

}  // namespace fewbits
