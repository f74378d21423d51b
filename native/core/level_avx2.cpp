#include "level_loops.h"

namespace fewbits {

const LevelLoops kAvx2LevelLoops = {points, values, small_points, scale_points, write_rows, write_float_rows};

}  // namespace fewbits
