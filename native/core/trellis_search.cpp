#include "trellis_search.h"

#include <algorithm>

namespace fewbits {

namespace {

static_assert(kWeightBlock % kMostPaths == 0, "a block is whole steps of all paths");

constexpr float kQuarter = 0.25f;
constexpr float kFar = 1e30f;           // the cost of a state that no path has reached
constexpr float kRounding = 0x1.8p23f;  // added and taken off, it leaves the nearest integer, half to even

// The level of a branch nearest to a quotient, and the next one towards 0.
struct Choice {
    float near, inner;
};

inline Choice choices(float quotient, uint32_t mirror, float parity) {
    const float half = (mirrored(quotient, mirror) - kQuarter - parity) * 0.5f;
    const float near = 2.0f * ((half + kRounding) - kRounding) + parity;
    const float inwards = near > 0 ? -2.0f : 2.0f;
    return {near, near == 0 ? near : near + inwards};
}

inline uint32_t place_of(float level) {
    const float limit = kMostPriced;
    const float above = level > -limit ? level : -limit;
    return static_cast<uint32_t>(static_cast<int32_t>(above < limit ? above : limit) + kMostPriced);
}

// The two states that lead to a state differ in their middle bit: `late` if it is set. See `next_state`.
inline uint32_t before(uint32_t state, uint32_t late) {
    return ((state ^ state >> 1) & 1) | late << 1 | (state & 1) << 2;
}

}  // namespace

TrellisSearch::TrellisSearch(size_t count, size_t num_paths, const TrellisShifts* shifts, const float* prices,
                             size_t num_tables)
    : num_paths_(num_paths), shifts_(num_tables * kPrices), prices_(prices), notes_(count) {
    for (size_t k = 0; k < shifts_.size(); ++k) {
        const int level = static_cast<int>(k % kPrices) - kMostPriced;
        shifts_[k] = shifts[k / kPrices][static_cast<size_t>(std::min(std::max(level, -2), 2) + 2)];
    }
}

void TrellisSearch::start(const TrellisStates& states) {
    for (auto& costs : cost_) costs.fill(kFar);
    for (size_t lane = 0; lane < kMostPaths; ++lane) cost_[states[lane]][lane] = 0;
}

void TrellisSearch::forward(const float* quotients, const uint32_t* tables, size_t start, size_t count) {
    price(quotients, tables, count);
    for (size_t i = 0; i < count; i += num_paths_) step(i, std::min(num_paths_, count - i), &notes_[start + i]);
}

TrellisStates TrellisSearch::turn() {
    for (size_t lane = 0; lane < kMostPaths; ++lane) {
        state_[lane] = 0;
        for (uint32_t state = 1; state < 8; ++state) {
            if (cost_[state][lane] < cost_[state_[lane]][lane]) state_[lane] = state;
        }
    }
    return state_;
}

void TrellisSearch::backward(const float* quotients, size_t start, size_t count, int32_t* levels,
                             uint32_t* mirrors) {
    for (size_t i = (count - 1) / num_paths_ * num_paths_;; i -= num_paths_) {
        for (size_t lane = 0; lane < std::min(num_paths_, count - i); ++lane) {
            const uint32_t state = state_[lane], note = notes_[start + i + lane];
            const uint32_t late = note >> state & 1, mirror = state & 1;
            const uint32_t parity = state >> 2 ^ late;
            state_[lane] = before(state, late);
            const Choice choice = choices(quotients[i + lane], mirror, static_cast<float>(parity));
            if (mirrors != nullptr) mirrors[i + lane] = mirror;
            const bool inner = note >> (8 + 2 * mirror + parity) & 1;
            levels[i + lane] = static_cast<int32_t>(inner ? choice.inner : choice.near);
        }
        if (i == 0) break;
    }
}

void TrellisSearch::price(const float* quotients, const uint32_t* tables, size_t count) {
    inner_.fill(0);
    for (uint32_t branch = 0; branch < 4; ++branch) {
        const uint32_t mirror = branch >> 1;
        const auto parity = static_cast<float>(branch & 1);
        std::array<uint32_t, kWeightBlock> near, inner;
        for (size_t i = 0; i < count; ++i) {
            const Choice choice = choices(quotients[i], mirror, parity);
            const uint32_t table = tables[i] * static_cast<uint32_t>(kPrices);
            near[i] = table + place_of(choice.near);
            inner[i] = table + place_of(choice.inner);
        }
        std::array<float, kWeightBlock> near_shift, inner_shift, near_price, inner_price;
        for (size_t i = 0; i < count; ++i) {
            near_shift[i] = shifts_[near[i]];
            inner_shift[i] = shifts_[inner[i]];
            near_price[i] = prices_[near[i]];
            inner_price[i] = prices_[inner[i]];
        }
        for (size_t i = 0; i < count; ++i) {
            const Choice choice = choices(quotients[i], mirror, parity);
            const float value = mirrored(quotients[i], mirror);
            const float far = value - (choice.near + near_shift[i]), close = value - (choice.inner + inner_shift[i]);
            const float cost = far * far + near_price[i], other = close * close + inner_price[i];
            branch_[branch][i] = other < cost ? other : cost;
            inner_[i] |= static_cast<uint32_t>(other < cost) << (8 + branch);
        }
    }
}

// Adds, compares, selects: one step of some paths, the others rest.
void TrellisSearch::step(size_t i, size_t lanes, uint16_t* notes) {
    std::array<std::array<float, kMostPaths>, 8> costs;
    std::array<uint32_t, kMostPaths> note{};
    for (uint32_t state = 0; state < 8; ++state) {
        const float* early = cost_[before(state, 0)].data();
        const float* late = cost_[before(state, 1)].data();
        const float* early_branch = &branch_[2 * (state & 1) + (state >> 2)][i];
        const float* late_branch = &branch_[2 * (state & 1) + (state >> 2 ^ 1)][i];
        float* cost = costs[state].data();
        for (size_t lane = 0; lane < lanes; ++lane) {
            const float a = early[lane] + early_branch[lane], b = late[lane] + late_branch[lane];
            cost[lane] = b < a ? b : a;
            note[lane] |= static_cast<uint32_t>(b < a) << state;
        }
    }
    // Only differences matter: the least is taken off, so that sums stay exact to the same place.
    std::array<float, kMostPaths> least = costs[0];
    for (uint32_t state = 1; state < 8; ++state) {
        for (size_t lane = 0; lane < lanes; ++lane) {
            least[lane] = costs[state][lane] < least[lane] ? costs[state][lane] : least[lane];
        }
    }
    for (uint32_t state = 0; state < 8; ++state) {
        for (size_t lane = 0; lane < lanes; ++lane) cost_[state][lane] = costs[state][lane] - least[lane];
    }
    for (size_t lane = 0; lane < lanes; ++lane) notes[lane] = static_cast<uint16_t>(note[lane] | inner_[i + lane]);
}

}  // namespace fewbits
