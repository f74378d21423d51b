// Shared randomness: Philox4x32-10 words, and floats of them (docs/format.md, section 12).
//
// fewbits/random.py is the specification; every result here has its bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

constexpr size_t kRandomTile = 128;  // numbers that loops work on at a time, always as many
constexpr int kPhiloxRounds = 10;

// What streams are for. WIRE
constexpr uint32_t kCandidates = 1, kPrivate = 4;

struct PhiloxKeys {
    explicit PhiloxKeys(uint64_t seed);
    uint32_t first[kPhiloxRounds], second[kPhiloxRounds];
};

// The parts of counters that differ from one to the next.
struct PhiloxCounters {
    uint32_t item_low[kRandomTile], item_high[kRandomTile], number[kRandomTile];
};

// [k][i]: word k of the block of counter i.
using PhiloxBlocks = uint32_t[4][kRandomTile];

// The inner loops, written once and compiled for each instruction set (random_loops.h). Those without a count work on
// whole tiles: what is behind the numbers that are asked for must be there, and is worth nothing. No arrays overlap.
struct RandomLoops {
    void (*philox)(const PhiloxKeys& keys, const PhiloxCounters& counters, uint32_t group, PhiloxBlocks& blocks);
    void (*normals)(const uint32_t* words, double* normals);
    void (*narrow_normals)(const uint32_t* words, float* normals);  // rounded to float32
    void (*quantiles)(const double* p, double* quantiles);
    void (*logs)(const double* x, double* logs);
    void (*exponentials)(const uint32_t* words, double* exponentials);  // -log u
    void (*gumbels)(const uint32_t* words, double* gumbels);            // -log(-log u)
    // Adds (a z + b) z to every sum.
    void (*add_scores)(const float* z, size_t count, float a, float b, float* sums);
    bool (*any_reaches)(const float* values, size_t count, float bound);
};

extern const RandomLoops kScalarRandomLoops;
extern const RandomLoops kAvx2RandomLoops;

// Those that go with kernels() (isa.h); AVX-512 has none of its own.
const RandomLoops& random_loops();

// Words of items of one purpose, tile by tile and group by group.
class ItemBlocks {
public:
    ItemBlocks(uint64_t seed, uint32_t purpose) : keys_(seed), purpose_(purpose) {}

    // Chooses `count` items, a tile at most: those listed, of streams numbers[0], or numbers[i] if there is one each.
    void choose(const uint64_t* items, const uint32_t* numbers, bool number_each, size_t count);
    // Chooses a tile of items from `start` on, of one stream.
    void choose(uint64_t start, uint32_t number);

    // Words 4 group ... 4 group + 3 of the chosen items: group is less than 2^24.
    const PhiloxBlocks& words(size_t group) {
        // WIRE
        loops_.philox(keys_, counters_, purpose_ << 24 | static_cast<uint32_t>(group), blocks_);
        return blocks_;
    }

private:
    const RandomLoops& loops_ = random_loops();
    PhiloxKeys keys_;
    uint32_t purpose_;
    PhiloxCounters counters_{};
    PhiloxBlocks blocks_;
};

// Fills words (count, num_places) of items.
void random_words(uint64_t seed, uint32_t purpose, const uint32_t* numbers, bool number_each, const uint64_t* items,
                  size_t count, size_t num_places, uint32_t* words);

// Of any number of words or numbers.
void random_normals(const uint32_t* words, size_t count, double* normals);
void normal_quantiles(const double* p, size_t count, double* quantiles);
void random_logs(const double* x, size_t count, double* logs);

}  // namespace fewbits
