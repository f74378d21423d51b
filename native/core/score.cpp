#include "score.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"
#include "random.h"

namespace fewbits {

namespace {

constexpr size_t kGroup = 32;            // candidates that are looked at together
constexpr size_t kScoreTile = 256;       // candidates of a table that some blocks score one after the other
constexpr size_t kPiece = 4096;          // candidates of a piece of work
constexpr size_t kBlocksOfPiece = 16;
constexpr double kMostGumbel = 23;       // -log(-log u) is less for every word: 22.9 for u = 1 - 2^-33

// Calls take(d, words) for every dimension, with the words of a tile of candidates.
template <class Take>
void each_group(ItemBlocks& stream, uint64_t start, uint32_t number, size_t dim, const Take& take) {
    stream.choose(start, number);
    for (size_t first = 0; first < dim; first += 4) {
        const PhiloxBlocks& words = stream.words(first / 4);
        for (size_t k = 0; k < 4 && first + k < dim; ++k) take(first + k, words[k]);
    }
}

// Scores one block's candidates.
class Scorer {
public:
    Scorer(const Blocks& blocks, const CandidateTable& table)
        : blocks_(blocks), table_(table), stream_(blocks.seed, kCandidates) {}

    // Fills the scores of count candidates from `start` on.
    void operator()(size_t block, uint64_t start, size_t count, float* scores) {
        const float* const a = blocks_.a + block * blocks_.dim;
        const float* const b = blocks_.b + block * blocks_.dim;
        std::fill(scores, scores + count, 0.0F);
        if (table_.z != nullptr) {
            take_tile(start, count);
            const float* z = tile_.data();
            for (size_t d = 0; d < blocks_.dim; ++d, z += count) loops_.add_scores(z, count, a[d], b[d], scores);
            return;
        }
        for (size_t tile = 0; tile < count; tile += kRandomTile) {
            const size_t length = std::min(kRandomTile, count - tile);
            each_group(stream_, start + tile, blocks_.numbers[block], blocks_.dim,
                       [&](size_t d, const uint32_t* words) {
                           float z[kRandomTile];
                           loops_.narrow_normals(words, z);
                           loops_.add_scores(z, length, a[d], b[d], scores + tile);
                       });
        }
    }

private:
    // Copies candidates, once for the blocks that ask for the same in turn: a table's rows are often a power of two
    // apart, and would take each other's place in the cache.
    void take_tile(uint64_t start, size_t count) {
        if (start == tile_start_ && tile_.size() == blocks_.dim * count) return;
        tile_start_ = start;
        tile_.resize(blocks_.dim * count);
        for (size_t d = 0; d < blocks_.dim; ++d) {
            const float* const row = table_.z + d * table_.num_candidates + start;
            std::copy(row, row + count, tile_.data() + d * count);
        }
    }

    const Blocks& blocks_;
    const CandidateTable& table_;
    const RandomLoops& loops_ = random_loops();
    ItemBlocks stream_;
    uint64_t tile_start_ = 0;
    std::vector<float> tile_;  // (dim, count)
};

void consider(double value, uint64_t candidate, Chosen& chosen) {
    const double least = chosen.candidate < 0 ? -std::numeric_limits<double>::infinity() : chosen.value;
    if (value > least) chosen = {static_cast<int64_t>(candidate), value};  // never so for NaN
}

// Finds the greatest score + Gumbel number. Candidates come in ascending order: an equal one later is no better.
class Chooser {
public:
    Chooser(uint64_t seed, bool is_noisy) : is_noisy_(is_noisy), stream_(seed, kPrivate) {}

    void operator()(uint32_t number, const float* scores, uint64_t start, size_t count, Chosen& chosen) {
        for (size_t tile = 0; tile < count; tile += kRandomTile) {
            bool has_gumbels = !is_noisy_;  // which are 0 then
            const size_t end = std::min(tile + kRandomTile, count);
            for (size_t first = tile; first < end; first += kGroup) {
                const size_t length = std::min(kGroup, end - first);
                // Most candidates are so far behind that no Gumbel number would help.
                if (!loops_.any_reaches(scores + first, length, least_contender(chosen))) continue;
                if (!has_gumbels) {
                    stream_.choose(start + tile, number);
                    loops_.gumbels(stream_.words(0)[0], gumbels_);
                    has_gumbels = true;
                }
                for (size_t i = first; i < first + length; ++i) {
                    consider(static_cast<double>(scores[i]) + gumbels_[i - tile], start + i, chosen);
                }
            }
        }
    }

private:
    // A score below this plus any Gumbel number is at most the best value: the bound is rounded to float32 and taken
    // one step down, so that it is no more than value - kMostGumbel, and what is less than value without rounding is at
    // most value after it.
    float least_contender(const Chosen& chosen) const {
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        if (chosen.candidate < 0) return -kInfinity;
        return std::nextafter(static_cast<float>(chosen.value - (is_noisy_ ? kMostGumbel : 0)), -kInfinity);
    }

    const RandomLoops& loops_ = random_loops();
    const bool is_noisy_;
    ItemBlocks stream_;
    double gumbels_[kRandomTile] = {};
};

// Finds the greatest score less the logarithm of the time at which a candidate arrives.
class ArrivalChooser {
public:
    ArrivalChooser(const Blocks& blocks, const Arrivals& arrivals)
        : blocks_(blocks), arrivals_(arrivals), score_(blocks, none_), stream_(blocks.seed, kPrivate) {}

    void operator()(size_t block, const Searches& searches) {
        Chosen chosen;
        const size_t looked_at = look_at(block, chosen);
        const bool ended = looked_at > 0, found = chosen.candidate >= 0;
        searches.indices[block] = found ? chosen.candidate : 0;
        searches.num_candidates[block] = static_cast<int64_t>(ended ? looked_at : arrivals_.cap);
        searches.capped[block] = !found || (!ended && !arrivals_.is_sorted);
    }

private:
    // Returns how many candidates were looked at; 0 if all were, and a later one could have more.
    size_t look_at(size_t block, Chosen& chosen) {
        double time = 0;
        for (size_t tile = 0; tile < arrivals_.cap; tile += kRandomTile) {
            const size_t length = std::min(kRandomTile, arrivals_.cap - tile);
            score_(block, tile, length, scores_);
            stream_.choose(tile, blocks_.numbers[block]);
            loops_.exponentials(stream_.words(0)[0], times_);
            for (size_t i = 0; i < kRandomTile; ++i) times_[i] = time = time + scaled(times_[i], tile + i);
            loops_.logs(times_, log_times_);
            for (size_t i = 0; i < length; ++i) {
                consider(static_cast<double>(scores_[i]) - log_times_[i], tile + i, chosen);
                const double most = arrivals_.greatest[block] - log_times_[i];
                if (chosen.candidate >= 0 && chosen.value >= most) return tile + i + 1;
            }
        }
        return 0;
    }

    // The n-th gap of N sorted exponentials has the rate N - n + 1; times are times N. Behind the last there is none.
    double scaled(double exponential, size_t candidate) const {
        if (!arrivals_.is_sorted || candidate >= arrivals_.cap) return exponential;
        const double all = static_cast<double>(arrivals_.cap);
        return exponential * (all / (all - static_cast<double>(candidate)));
    }

    const Blocks& blocks_;
    const Arrivals& arrivals_;
    const RandomLoops& loops_ = random_loops();
    const CandidateTable none_;
    Scorer score_;
    ItemBlocks stream_;
    float scores_[kRandomTile];
    double times_[kRandomTile], log_times_[kRandomTile];
};

// Of two that were chosen among different candidates, the better one.
void keep_better(const Chosen& other, Chosen& chosen) {
    if (other.candidate < 0) return;
    const bool is_better = chosen.candidate < 0 || other.value > chosen.value ||
                           (other.value == chosen.value && other.candidate < chosen.candidate);
    if (is_better) chosen = other;
}

}  // namespace

void fill_candidates(uint64_t seed, uint32_t number, uint64_t start, size_t count, size_t dim, float* z) {
    ItemBlocks stream(seed, kCandidates);
    for (size_t tile = 0; tile < count; tile += kRandomTile) {
        const size_t length = std::min(kRandomTile, count - tile);
        each_group(stream, start + tile, number, dim, [&](size_t d, const uint32_t* words) {
            float found[kRandomTile];
            random_loops().narrow_normals(words, found);
            std::copy(found, found + length, z + d * count + tile);
        });
    }
}

void fill_scores(const Blocks& blocks, const CandidateTable& table, uint64_t start, size_t count, float* scores) {
    Scorer score(blocks, table);
    for (size_t tile = 0; tile < count; tile += kScoreTile) {
        const size_t length = std::min(kScoreTile, count - tile);
        for (size_t block = 0; block < blocks.num_blocks; ++block) {
            score(block, start + tile, length, scores + block * count + tile);
        }
    }
}

void choose_by_scores(const Blocks& blocks, const float* scores, uint64_t start, size_t count, Chosen* chosen) {
    Chooser choose_among(blocks.seed, true);
    for (size_t block = 0; block < blocks.num_blocks; ++block) {
        chosen[block] = {};
        choose_among(blocks.numbers[block], scores + block * count, start, count, chosen[block]);
    }
}

void choose(const Blocks& blocks, const CandidateTable& table, size_t count, bool is_noisy, size_t num_threads,
            Chosen* chosen) {
    const size_t num_ranges = (count + kPiece - 1) / kPiece;
    const size_t block_ranges = (blocks.num_blocks + kBlocksOfPiece - 1) / kBlocksOfPiece;
    const size_t num_pieces = num_ranges * block_ranges;
    const size_t used = std::max<size_t>(1, std::min(num_threads, num_pieces));
    std::vector<Chosen> of_threads(used * blocks.num_blocks);
    std::atomic<size_t> next{0};
    on_threads(used, [&](size_t thread) {
        Scorer score(blocks, table);
        Chooser choose_among(blocks.seed, is_noisy);
        Chosen* const own = of_threads.data() + thread * blocks.num_blocks;
        float scores[kScoreTile];
        for (size_t piece; (piece = next++) < num_pieces;) {  // ascending: so are a thread's candidates of each block
            const size_t start = piece / block_ranges * kPiece, end = std::min(start + kPiece, count);
            const size_t first = piece % block_ranges * kBlocksOfPiece;
            const size_t last = std::min(first + kBlocksOfPiece, blocks.num_blocks);
            for (size_t tile = start; tile < end; tile += kScoreTile) {
                const size_t length = std::min(kScoreTile, end - tile);
                for (size_t block = first; block < last; ++block) {
                    score(block, tile, length, scores);
                    choose_among(blocks.numbers[block], scores, tile, length, own[block]);
                }
            }
        }
    });
    std::fill(chosen, chosen + blocks.num_blocks, Chosen{});
    for (size_t i = 0; i < of_threads.size(); ++i) keep_better(of_threads[i], chosen[i % blocks.num_blocks]);
}

void search(const Blocks& blocks, const Arrivals& arrivals, size_t num_threads, const Searches& searches) {
    std::atomic<size_t> next{0};
    on_threads(std::max<size_t>(1, std::min(num_threads, blocks.num_blocks)), [&](size_t) {
        ArrivalChooser look_for(blocks, arrivals);
        for (size_t block; (block = next++) < blocks.num_blocks;) look_for(block, searches);
    });
}

}  // namespace fewbits
