#include "philox_avx2.h"
#include "random_loops.h"

namespace fewbits {

const RandomLoops kAvx2RandomLoops = loops_with(philox_by_eights);

}  // namespace fewbits
