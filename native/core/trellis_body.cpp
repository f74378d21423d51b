#include "trellis_body.h"

#include <array>
#include <cstdlib>
#include <memory>

#include "errors.h"
#include "trellis.h"

namespace fewbits {

namespace {

// Where the levels of an array are until they become values.
//
// As bytes they lie at the end of the memory of the values, which are never written over levels still to be read: word i
// of w bytes ends at w (i + 1), and w (i + 1) <= (w - 1) n + i + 1, where level i + 1 of n is, as i + 1 <= n.
class Levels {
public:
    Levels(const TrellisArray& trellis, const Output& values, bool as_bytes)
        : trellis_(trellis), values_(values), as_bytes_(as_bytes) {
        const size_t count = values.num_elements, width = static_cast<size_t>(values.width);
        output_ = values;
        if (as_bytes) {
            output_.kind = Output::Kind::kLevels;
            output_.width = 1;
            output_.data = values.data + (width - 1) * count;
            pairs_.resize(count / 256 + 64);
            far_ = std::make_unique<FarLevels>();
            far_->first = output_.data;
            far_->found = reinterpret_cast<int64_t(*)[2]>(pairs_.data());
            far_->most = pairs_.size();
            output_.far_levels = far_.get();
        } else {
            output_.kind = Output::Kind::kIntegers;
            output_.width = 4;
            if (width != 4) {
                words_.resize(count);
                output_.data = reinterpret_cast<uint8_t*>(words_.data());
            }
        }
    }

    const Output& output() const { return output_; }
    bool lost_some() const { return as_bytes_ && far_->num > far_->most; }

    void become_values() {
        const size_t count = values_.num_elements;
        bool finite;
        if (as_bytes_) {
            std::qsort(pairs_.data(), far_->num, sizeof pairs_[0], [](const void* a, const void* b) {
                const int64_t i = *static_cast<const int64_t*>(a), j = *static_cast<const int64_t*>(b);
                return i < j ? -1 : 1;
            });
            const ByteLevels levels = {reinterpret_cast<const int8_t*>(output_.data), far_->found, far_->num};
            finite = trellis_values(levels, count, trellis_.step, trellis_.shifts, values_.type, values_.data);
        } else {
            const auto* levels = reinterpret_cast<const int32_t*>(output_.data);
            finite = trellis_values(levels, count, trellis_.step, trellis_.shifts, values_.type, values_.data);
        }
        if (!finite) throw Corrupt(ElementRule(values_, 0).refusal());
    }

private:
    const TrellisArray& trellis_;
    const Output& values_;
    bool as_bytes_;
    Output output_;
    std::vector<std::array<int64_t, 2>> pairs_;
    std::unique_ptr<FarLevels> far_;
    std::vector<int32_t> words_;
};

}  // namespace

void decode_trellis_body(const uint8_t* data, size_t size, const std::vector<ArraySpec>& arrays,
                         const std::vector<Output>& outputs, const std::vector<TrellisArray>& trellises,
                         int num_threads) {
    // Levels that no byte holds are few; else all levels are decoded once more, as words.
    bool as_bytes = true;
    for (const TrellisArray& each : trellises) as_bytes &= are_bytes_enough(each.step, each.shifts);
    for (;; as_bytes = false) {
        std::vector<Output> integers = outputs;
        std::vector<Levels> levels;
        levels.reserve(trellises.size());
        for (const TrellisArray& each : trellises) {
            levels.emplace_back(each, outputs[each.index], as_bytes);
            integers[each.index] = levels.back().output();
        }
        decode_body(data, size, arrays, integers, num_threads);
        bool lost_some = false;
        for (const Levels& each : levels) lost_some |= each.lost_some();
        if (lost_some) continue;
        for (Levels& each : levels) each.become_values();
        return;
    }
}

}  // namespace fewbits
