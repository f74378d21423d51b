#include "level_loops.h"

namespace fewbits {

const LevelLoops kScalarLevelLoops = {points, values};

}  // namespace fewbits
