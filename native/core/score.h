// Scores of candidates for channel simulation: float32 log q/p, up to a constant (fewbits/channel/scores.py).
//
// A block of `dim` numbers has a Gaussian target against a standard normal proposal, so that a candidate z scores the
// sum over d of (a[d] z[d] + b[d]) z[d]. NUMERICS: float32, in the order of d, each operation rounded for itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

// Targets of blocks: a, b are (num_blocks, dim); `numbers` are those of the blocks' streams, of candidates and of
// private words.
struct Blocks {
    uint64_t seed;
    const uint32_t* numbers;
    size_t num_blocks, dim;
    const float* a;
    const float* b;
};

// Candidates that all blocks share: (dim, num_candidates). Null: each block has its own stream's.
struct CandidateTable {
    const float* z = nullptr;
    size_t num_candidates = 0;
};

// Fills z (dim, count) with the candidates start ... start + count - 1 of a stream.
void fill_candidates(uint64_t seed, uint32_t number, uint64_t start, size_t count, size_t dim, float* z);

// Fills scores (num_blocks, count) of the candidates from `start` on, which a table must hold.
void fill_scores(const Blocks& blocks, const CandidateTable& table, uint64_t start, size_t count, float* scores);

// The greatest score + Gumbel number so far. Of equal ones the candidate of the lower index is meant.
struct Chosen {
    int64_t candidate = -1;  // none: every score was NaN or -infinity
    double value = 0;
};

// Chooses among the candidates start ... start + count - 1, of scores (num_blocks, count), for each block.
void choose_by_scores(const Blocks& blocks, const float* scores, uint64_t start, size_t count, Chosen* chosen);

// As fill_scores and choose_by_scores of the candidates 0 ... count - 1, without ever storing the scores; if not noisy,
// without Gumbel numbers. The number of threads does not change what is chosen.
void choose(const Blocks& blocks, const CandidateTable& table, size_t count, bool is_noisy, size_t num_threads,
            Chosen* chosen);

// How candidates 0 ... cap - 1 of a block's own stream arrive: one after the other in a Poisson process of rate 1, or
// as `cap` exponentials in rising order.
struct Arrivals {
    size_t cap;
    bool is_sorted;
    const double* greatest;  // (num_blocks,), upper bounds of scores: at infinity all candidates are looked at
};

// What searches found, (num_blocks,) each: candidates, 0 where no score was a number; how many were looked at until no
// later one could have had more; whether it ended at the cap, of sorted ones only whether no score was a number.
struct Searches {
    int64_t* indices;
    int64_t* num_candidates;
    bool* capped;
};

// Finds the greatest score - log(arrival time) of each block.
void search(const Blocks& blocks, const Arrivals& arrivals, size_t num_threads, const Searches& searches);

}  // namespace fewbits
