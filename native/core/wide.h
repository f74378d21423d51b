// The 32-lane streams: rANS with interleaved lanes (docs/format.md, section 9.1).
//
// Three surprises first.
//   1. Encoding runs backwards, from the last symbol to the first, and writes its words from the end of a buffer to its
//      front, so that decoding can run and read forwards.
//   2. A table leaves no trace in a state: tables may change between any two groups of symbols at no cost.
//   3. A stream knows nothing of its neighbours, so several chunks can be decoded in lockstep, one group of each in
//      turn. That is the reason why kernels take several streams: one stream alone waits for its own multiplications.
//
// Why decoding inverts encoding. A state x codes a symbol of frequency f by taking the (x mod f)-th of the symbol's
// slots below 8192 and x div f above; x div 8192 and the slot's offset give x back. States stay in [2^16, 2^32): before
// coding, a lane with x >= f * 2^19 sheds its low 16 bits as a word, which leaves x >= f * 2^3, so that the new state is
// at least 2^16; in the decoder exactly such a lane falls below 2^16, and takes the word back.
//
// Who checks bounds. A group takes or sheds at most 32 words, one a lane. Callers ask a kernel for no more groups than
// there are words to read (or room) for at 32 words a group, be they the stream's or what follows it, and look afterwards
// whether it took more than its own; where memory ends they use the `checked` functions here, which look before every
// word. So no kernel needs a check of its own.
#pragma once

#include <cstddef>
#include <cstdint>

#include "table.h"

namespace fewbits {

constexpr int kLanes = 32;              // WIRE
constexpr uint32_t kLowest = 1u << 16;  // a lane's lowest state, and its last. WIRE
constexpr size_t kGroupBytes = 2 * kLanes;
constexpr int kMostStreams = 6;  // in lockstep

// Words are pairs of bytes, little-endian, at any address.
inline uint32_t load_word(const uint8_t* bytes) { return static_cast<uint32_t>(bytes[0] | bytes[1] << 8); }

struct DecodeStream {
    alignas(64) uint32_t state[kLanes];
    const uint8_t* words;        // the next word
    const uint8_t* end;          // of the words
    const AliasTable* alias;     // of the groups to come
    const DirectTable* direct;   // the same table, in the layout of a kernel that looks slots up; else null
    uint8_t* symbols;            // where the next symbol goes
    uint8_t base = 0;            // is added to every symbol as it is written, modulo 256
    const uint8_t* elements = nullptr;  // where what it stands for will go: a kernel may have that brought into cache
    size_t width = 0;                   // of an element, in bytes
};

struct EncodeStream {
    alignas(64) uint32_t state[kLanes];
    uint8_t* words;             // the word written last: the next goes below
    const EncodeTable* table;   // of the groups to come
    const uint8_t* symbols;     // one beyond the symbol to be coded next
};

// Decodes full groups of every stream. For each, 32 words a group can be read, and there is room for 32 symbols a group.
using DecodeGroups = void (*)(DecodeStream* const* streams, int num_streams, size_t num_groups);

// Encodes full groups of every stream, the last group first. Each symbol has a frequency above 0, and below `words`
// there is room for 32 words a group, and for 32 bytes more that may be written over.
using EncodeGroups = void (*)(EncodeStream* const* streams, int num_streams, size_t num_groups);

// What a symbol of up to 64 becomes: a word of 1, 2, 4 or 8 bytes. `planes[i]` holds byte i of every word.
struct alignas(64) SymbolMap {
    uint64_t words[kMaxSymbols];
    uint8_t planes[8][kMaxSymbols];
    bool is_sum = false;  // words[s] is words[0] + s modulo 2^64, for every symbol that stands for a word
    uint8_t escape = 0;   // the symbol that is looked for

    void set(int symbol, uint64_t word) {
        words[symbol] = word;
        for (int i = 0; i < 8; ++i) planes[i][symbol] = static_cast<uint8_t>(word >> 8 * i);
    }
};

// Writes the words of symbols, `width` bytes each, little-endian, to any address. False if the escape is not among them;
// kernels need not look.
using MapSymbols = bool (*)(const SymbolMap& map, int width, const uint8_t* symbols, size_t count, uint8_t* out);

// Adds up words below 2^24 of symbols, group by group of 32; an even number of groups.
using SumGroups = void (*)(const SymbolMap& map, const uint8_t* symbols, size_t num_groups, uint32_t* sums);

// One implementation of the inner loops. All give the same bytes.
struct Kernels {
    const char* name;
    int num_streams;  // in lockstep, at most kMostStreams
    SlotLayout slots;  // of the direct tables that it looks up
    DecodeGroups decode;
    EncodeGroups encode;
    MapSymbols map_symbols;
    SumGroups sum_groups;  // null where mapped words are as quickly added up
};

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx2ShuffleKernels;  // the same, for processors whose gathers are slow
extern const Kernels kAvx512Kernels;

// Decodes one group of 1 ... 32 symbols. Throws Corrupt if the words do not suffice.
void decode_group_checked(DecodeStream& stream, size_t num_symbols);

// Encodes one group of 1 ... 32 symbols. Below `words` there is room for as many words, and for one that is written over.
void encode_group(EncodeStream& stream, size_t num_symbols);

}  // namespace fewbits
