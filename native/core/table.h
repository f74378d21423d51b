// Integer probability tables: 13-bit frequencies, an escape, and the alias layout of their slots.
//
// The layout is docs/format.md, section 6. A slot is a state modulo 8192; 64 buckets of 128 slots hold an own run of
// the bucket's symbol and an alias run of one other, so that five arrays of 64 numbers say everything about a table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fewbits {

constexpr int kPrecision = 13;  // bits of a frequency; docs/decisions/0001. WIRE
constexpr uint32_t kTotal = 1u << kPrecision;
constexpr int kMaxSymbols = 64;  // values and the escape
constexpr uint32_t kBucket = kTotal / kMaxSymbols;
constexpr int64_t kCostOne = 1 << 16;  // costs are in 1/65536 bit

// Frequencies of the values low, low + 1, ... and of the escape. Symbols are 0 ... num_values - 1, then the escape.
// Values are integers modulo 2^64: a file may place a table at either end of them.
struct Table {
    int64_t low = 0;
    int num_values = 0;
    std::array<uint16_t, kMaxSymbols> counts{};  // counts[num_values] is the escape's, 0 from there on

    uint16_t escape() const { return counts[static_cast<size_t>(num_values)]; }
    int64_t last() const { return static_cast<int64_t>(static_cast<uint64_t>(low) + static_cast<uint64_t>(num_values) - 1); }
    bool operator==(const Table& other) const {
        return low == other.low && num_values == other.num_values && counts == other.counts;
    }
};

// Throws InvalidArgument unless the frequencies form a table: every reader below relies on it.
void check_table(const Table& table);

// The runs of a table's buckets, as a vector decoder holds them. Arithmetic on slots is modulo 2^16.
struct alignas(64) AliasTable {
    uint16_t divider[kMaxSymbols];      // slots of bucket b below this one are its own
    uint16_t alias[kMaxSymbols];        // the symbol of the others
    uint16_t frequency[kMaxSymbols];    // of symbols, not of buckets
    uint16_t own_shift[kMaxSymbols];    // offset of an own slot = slot + own_shift
    uint16_t alias_shift[kMaxSymbols];  // offset of an alias slot = slot + alias_shift

    // The same by bytes, for shuffles of bytes. Offsets are counted from the bucket's first slot: offset = slot modulo
    // 128 + the run's, whose two bytes are apart.
    // A slot is an alias one if its low byte is not below the divider's; where all are own ones it is all the same.
    enum Plane {
        kOwnSlots, kAlias, kOwnLow, kOwnHigh, kAliasLow, kAliasHigh, kFrequencyLow, kFrequencyHigh, kDividerLow, kPlanes
    };
    uint8_t planes[kPlanes][kMaxSymbols];
};

AliasTable alias_table(const Table& table);

// What decoders without wide permutes look up for each slot.
enum class SlotLayout {
    kNone,
    kPacked,  // entries hold symbol | (frequency - 1) << 6 | offset << 19: vectors pay for every gather
    kSplit,   // entries hold frequency << 16 | offset, symbols are apart: scalar code has halves of words for nothing
};

struct alignas(64) DirectTable {
    uint32_t entries[kTotal];
    uint8_t symbols[kTotal];  // where they are apart
};

void fill_direct(const AliasTable& alias, SlotLayout layout, DirectTable& direct);

// What an encoder needs of a symbol: its frequency, and where its slots begin in `slots`.
struct EncodeTable {
    alignas(64) uint16_t frequency[kMaxSymbols];
    alignas(64) uint16_t start[kMaxSymbols];
    uint64_t reciprocal[kMaxSymbols];        // floor(2^45 / frequency) + 1
    alignas(64) uint8_t planes[4][kMaxSymbols];          // low and high bytes of the frequencies, and of the starts
    alignas(64) uint16_t slots[kTotal + 2];  // by symbol, each symbol's ascending; two more, for reads of 32 bits
};

void fill_encode(const AliasTable& alias, EncodeTable& encode);

// frequency -> -log2(frequency / 8192) in 1/65536 bit, by integer arithmetic; 2^40 for 0.
const std::array<int64_t, kTotal + 1>& frequency_costs();

}  // namespace fewbits
