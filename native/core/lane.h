// The single-lane stream: for what is small (docs/format.md, section 9.2). The states are those of wide.h, one lane.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "table.h"

namespace fewbits {

// Codes symbols from the last to the first.
class LaneEncoder {
public:
    void put(const EncodeTable& table, uint8_t symbol);

    // The stream: the state without leading zero bytes, then the words.
    std::vector<uint8_t> finish() const;

private:
    uint32_t state_ = 1;
    std::vector<uint16_t> words_;  // the first to be read comes last
};

// Decodes symbols from the first to the last.
//
// Invariant: the state and the unread words are what the encoder held after coding everything still to come.
class LaneDecoder {
public:
    // Throws Corrupt if the state is not stored in its shortest form.
    LaneDecoder(const uint8_t* bytes, size_t size);

    void take(const AliasTable& table, uint8_t* symbols, size_t count);

    // Throws Corrupt unless the stream is used up.
    void finish() const;

private:
    uint32_t state_ = 1;
    const uint8_t* words_;
    const uint8_t* end_;
};

}  // namespace fewbits
