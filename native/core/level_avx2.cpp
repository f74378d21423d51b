#include "level_loops.h"

namespace fewbits {

const LevelLoops kAvx2LevelLoops = {points, values};

}  // namespace fewbits
