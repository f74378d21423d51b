// Levels of a trellis while a body is decoded, until all of them are there and become values (docs/payload/ecsq.md).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "output.h"

namespace fewbits {

// Where the levels of an output of kind kTrellis are decoded to.
//
// As bytes they lie at the end of the memory of the values, which are never written over levels still to be read: word i
// of w bytes ends at w (i + 1), and w (i + 1) <= (w - 1) n + i + 1, where level i + 1 of n is, as i + 1 <= n.
class TrellisLevels {
public:
    // `as_bytes` where that can be: of values too small for it levels are words.
    TrellisLevels(const Output& values, bool as_bytes);

    // What they are decoded to; as long as this lives.
    const Output& output() const { return output_; }

    // Whether more of them are none of a byte than there was room for, so that words are needed.
    bool lost_some() const { return far_ && far_->lost_some(); }

    // Throws Corrupt if a value is not finite.
    void become_values();

private:
    Output values_, output_;
    std::unique_ptr<FarLevels> far_;  // of bytes
    std::vector<int32_t> words_;      // if they do not fit where the values go
};

}  // namespace fewbits
