#include "column_loops.h"

namespace fewbits {

const ColumnLoops kAvx2ColumnLoops = {points, values};

}  // namespace fewbits
