// The portable path. Read this one: the others do the same with wider registers.
#include "random_loops.h"

namespace fewbits {

namespace {

// Written out by the compiler, so that the loop over counters has none within.
template <int kRound>
void philox_rounds(const PhiloxKeys& keys, uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
    if constexpr (kRound < kPhiloxRounds) {
        const uint64_t first = uint64_t{a} * 0xD2511F53u, second = uint64_t{c} * 0xCD9E8D57u;
        a = static_cast<uint32_t>(second >> 32) ^ b ^ keys.first[kRound];
        b = static_cast<uint32_t>(second);
        c = static_cast<uint32_t>(first >> 32) ^ d ^ keys.second[kRound];
        d = static_cast<uint32_t>(first);
        philox_rounds<kRound + 1>(keys, a, b, c, d);
    }
}

void philox(const PhiloxKeys& keys, const PhiloxCounters& counters, uint32_t group, PhiloxBlocks& blocks) {
    const PhiloxKeys own = keys;  // copied: what is referred to might change with every word written
    PhiloxBlocks found;
    for (size_t i = 0; i < kRandomTile; ++i) {
        uint32_t a = counters.item_low[i], b = counters.item_high[i], c = counters.number[i], d = group;
        philox_rounds<0>(own, a, b, c, d);
        found[0][i] = a;
        found[1][i] = b;
        found[2][i] = c;
        found[3][i] = d;
    }
    std::memcpy(blocks, found, sizeof found);
}

}  // namespace

const RandomLoops kScalarRandomLoops = loops_with(philox);

}  // namespace fewbits
