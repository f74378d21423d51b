#include "random.h"

#include <algorithm>

#include "isa.h"

namespace fewbits {

PhiloxKeys::PhiloxKeys(uint64_t seed) {
    uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round, low += 0x9E3779B9u, high += 0xBB67AE85u) {
        first[round] = low;
        second[round] = high;
    }
}

const RandomLoops& random_loops() {
#ifdef FEWBITS_X86
    if (uses_avx2()) return kAvx2RandomLoops;
#endif
    return kScalarRandomLoops;
}

void ItemBlocks::choose(const uint64_t* items, const uint32_t* numbers, bool number_each, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        counters_.item_low[i] = static_cast<uint32_t>(items[i]);
        counters_.item_high[i] = static_cast<uint32_t>(items[i] >> 32);
        counters_.number[i] = numbers[number_each ? i : 0];
    }
}

void ItemBlocks::choose(uint64_t start, uint32_t number) {
    for (size_t i = 0; i < kRandomTile; ++i) {
        counters_.item_low[i] = static_cast<uint32_t>(start + i);
        counters_.item_high[i] = static_cast<uint32_t>((start + i) >> 32);
        counters_.number[i] = number;
    }
}

void random_words(uint64_t seed, uint32_t purpose, const uint32_t* numbers, bool number_each, const uint64_t* items,
                  size_t count, size_t num_places, uint32_t* words) {
    ItemBlocks blocks(seed, purpose);
    for (size_t tile = 0; tile < count; tile += kRandomTile) {
        const size_t length = std::min(kRandomTile, count - tile);
        blocks.choose(items + tile, number_each ? numbers + tile : numbers, number_each, length);
        for (size_t place = 0; place < num_places; place += 4) {
            const PhiloxBlocks& found = blocks.words(place / 4);
            uint32_t* const out = words + tile * num_places + place;
            const size_t here = std::min<size_t>(4, num_places - place);
            for (size_t i = 0; i < length; ++i) {
                for (size_t k = 0; k < here; ++k) out[i * num_places + k] = found[k][i];
            }
        }
    }
}

namespace {

template <class In>
void by_tiles(void (*loop)(const In*, double*), const In* in, size_t count, double* out) {
    for (; count >= kRandomTile; count -= kRandomTile, in += kRandomTile, out += kRandomTile) loop(in, out);
    if (count == 0) return;
    In last[kRandomTile];
    double found[kRandomTile];
    std::copy(in, in + count, last);
    std::fill(last + count, last + kRandomTile, in[0]);
    loop(last, found);
    std::copy(found, found + count, out);
}

}  // namespace

void random_normals(const uint32_t* words, size_t count, double* normals) {
    by_tiles(random_loops().normals, words, count, normals);
}

void normal_quantiles(const double* p, size_t count, double* quantiles) {
    by_tiles(random_loops().quantiles, p, count, quantiles);
}

void random_logs(const double* x, size_t count, double* logs) { by_tiles(random_loops().logs, x, count, logs); }

}  // namespace fewbits
