#include "table.h"

#include <cstring>
#include <numeric>

#include "errors.h"

namespace fewbits {

void check_table(const Table& table) {
    bool valid = table.num_values >= 1 && table.num_values < kMaxSymbols;
    uint32_t total = 0;
    for (int s = 0; valid && s < kMaxSymbols; ++s) {
        const uint16_t count = table.counts[static_cast<size_t>(s)];
        valid = s < table.num_values ? count >= 1 && count < kTotal : s == table.num_values || count == 0;
        total += count;
    }
    if (!valid || total != kTotal) throw InvalidArgument("a probability table's frequencies do not form a table.");
}

AliasTable alias_table(const Table& table) {
    std::array<uint32_t, kMaxSymbols> left{};
    std::array<uint32_t, kMaxSymbols> own{};
    std::array<int, kMaxSymbols> alias{};
    // Both queues only ever grow at the end and shrink at the front: a bucket enters each at most once.
    std::array<int, kMaxSymbols> small{};
    std::array<int, kMaxSymbols> large{};
    int small_front = 0, small_back = 0, large_front = 0, large_back = 0;
    for (int b = 0; b < kMaxSymbols; ++b) {
        const auto i = static_cast<size_t>(b);
        left[i] = table.counts[i];
        alias[i] = b;
        if (left[i] < kBucket) {
            small[static_cast<size_t>(small_back++)] = b;
        } else {
            large[static_cast<size_t>(large_back++)] = b;
        }
    }
    // Invariant: the left slots of all buckets not yet laid out sum to 128 each, so `large` is never empty here.
    while (small_front < small_back) {
        const auto bucket = static_cast<size_t>(small[static_cast<size_t>(small_front++)]);
        const auto giver = static_cast<size_t>(large[static_cast<size_t>(large_front)]);
        own[bucket] = left[bucket];
        alias[bucket] = static_cast<int>(giver);
        left[giver] -= kBucket - left[bucket];
        if (left[giver] < kBucket) {
            small[static_cast<size_t>(small_back++)] = static_cast<int>(giver);
            ++large_front;
        }
    }
    for (int i = large_front; i < large_back; ++i) own[static_cast<size_t>(large[static_cast<size_t>(i)])] = kBucket;

    AliasTable result{};
    std::array<uint32_t, kMaxSymbols> seen{};  // slots of each symbol so far: slots are walked in ascending order
    for (size_t b = 0; b < kMaxSymbols; ++b) {
        const auto first = static_cast<uint32_t>(b) * kBucket;
        const auto other = static_cast<size_t>(alias[b]);
        result.divider[b] = static_cast<uint16_t>(first + own[b]);
        result.alias[b] = static_cast<uint16_t>(other);
        result.frequency[b] = table.counts[b];
        result.own_shift[b] = static_cast<uint16_t>(seen[b] - first);
        seen[b] += own[b];
        result.alias_shift[b] = static_cast<uint16_t>(seen[other] - (first + own[b]));
        seen[other] += kBucket - own[b];
        const uint32_t own_offset = result.own_shift[b] + first, alias_offset = result.alias_shift[b] + first;
        const uint32_t bytes[AliasTable::kPlanes] = {own[b], result.alias[b], own_offset, own_offset >> 8,
                                                     alias_offset, alias_offset >> 8, table.counts[b],
                                                     static_cast<uint32_t>(table.counts[b]) >> 8, result.divider[b]};
        for (size_t plane = 0; plane < AliasTable::kPlanes; ++plane) {
            result.planes[plane][b] = static_cast<uint8_t>(bytes[plane]);
        }
    }
    return result;
}

void fill_direct(const AliasTable& alias, SlotLayout layout, DirectTable& direct) {
    const bool split = layout == SlotLayout::kSplit;
    const int offset_at = split ? 0 : 19;
    for (uint32_t b = 0; b < kMaxSymbols; ++b) {
        const uint32_t divider = alias.divider[b];
        uint32_t slot = b * kBucket;
        const auto fill_to = [&](uint32_t stop, uint32_t symbol, uint16_t shift) {
            const uint32_t frequency = alias.frequency[symbol];
            const uint32_t fixed = split ? frequency << 16 : symbol | (frequency - 1) << 6;
            if (split) std::memset(direct.symbols + slot, static_cast<int>(symbol), stop - slot);
            for (; slot < stop; ++slot) direct.entries[slot] = fixed | ((slot + shift) & 0xFFFF) << offset_at;
        };
        fill_to(divider, b, alias.own_shift[b]);
        fill_to((b + 1) * kBucket, alias.alias[b], alias.alias_shift[b]);
    }
}

void fill_encode(const AliasTable& alias, EncodeTable& encode) {
    uint32_t start = 0;
    for (size_t s = 0; s < kMaxSymbols; ++s) {
        const uint32_t frequency = alias.frequency[s];
        encode.frequency[s] = alias.frequency[s];
        encode.start[s] = static_cast<uint16_t>(start);
        encode.reciprocal[s] = frequency == 0 ? 0 : (uint64_t{1} << 45) / frequency + 1;
        const uint32_t bytes[4] = {frequency, frequency >> 8, start, start >> 8};
        for (int plane = 0; plane < 4; ++plane) encode.planes[plane][s] = static_cast<uint8_t>(bytes[plane]);
        start += frequency;
    }
    for (uint32_t b = 0; b < kMaxSymbols; ++b) {
        uint32_t slot = b * kBucket;
        const auto fill_to = [&](uint32_t stop, uint32_t symbol, uint16_t shift) {
            uint32_t place = encode.start[symbol] + ((slot + shift) & 0xFFFF);
            for (; slot < stop; ++slot) encode.slots[place++] = static_cast<uint16_t>(slot);
        };
        fill_to(alias.divider[b], b, alias.own_shift[b]);
        fill_to((b + 1) * kBucket, alias.alias[b], alias.alias_shift[b]);
    }
    encode.slots[kTotal] = encode.slots[kTotal + 1] = 0;
}

namespace {

std::array<int64_t, kTotal + 1> make_frequency_costs() {
    std::array<int64_t, kTotal + 1> costs{};
    costs[0] = int64_t{1} << 40;
    for (uint64_t f = 1; f <= kTotal; ++f) {
        int whole = 0;
        while (f >> (whole + 1)) ++whole;
        // The mantissa is in [1, 2), 31 binary places; each squaring shows one more binary digit of the logarithm.
        uint64_t mantissa = f << (31 - whole);
        int64_t log2 = static_cast<int64_t>(whole) << 16;
        for (int bit = 15; bit >= 0; --bit) {
            mantissa = mantissa * mantissa >> 31;
            const uint64_t carry = mantissa >> 32;
            log2 += static_cast<int64_t>(carry << bit);
            mantissa >>= carry;
        }
        costs[f] = (static_cast<int64_t>(kPrecision) << 16) - log2;
    }
    return costs;
}

}  // namespace

const std::array<int64_t, kTotal + 1>& frequency_costs() {
    static const std::array<int64_t, kTotal + 1> costs = make_frequency_costs();
    return costs;
}

}  // namespace fewbits
