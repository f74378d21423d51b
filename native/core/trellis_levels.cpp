#include "trellis_levels.h"

#include "errors.h"
#include "trellis.h"

namespace fewbits {

TrellisLevels::TrellisLevels(const Output& values, bool as_bytes) : values_(values), output_(values) {
    const size_t count = values.num_elements, width = static_cast<size_t>(values.width);
    if (as_bytes && are_bytes_enough(values.step, values.shifts)) {
        output_.kind = Output::Kind::kLevels;
        output_.width = 1;
        output_.data = values.data + (width - 1) * count;
        far_ = std::make_unique<FarLevels>(output_.data, count);
        output_.far_levels = far_.get();
        return;
    }
    output_.kind = Output::Kind::kIntegers;
    output_.width = 4;
    if (width == 4) return;
    words_.resize(count);
    output_.data = reinterpret_cast<uint8_t*>(words_.data());
}

void TrellisLevels::become_values() {
    const size_t count = values_.num_elements;
    bool finite;
    if (far_) {
        const ByteLevels levels = {reinterpret_cast<const int8_t*>(output_.data), far_->sorted(), far_->size()};
        finite = trellis_values(levels, count, values_.step, values_.shifts, values_.type, values_.data);
    } else {
        const auto* levels = reinterpret_cast<const int32_t*>(output_.data);
        finite = trellis_values(levels, count, values_.step, values_.shifts, values_.type, values_.data);
    }
    if (!finite) throw Corrupt(ElementRule(values_, 0).refusal());
}

}  // namespace fewbits
