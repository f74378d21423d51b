#include "column_loops.h"

namespace fewbits {

const ColumnLoops kScalarColumnLoops = {points, values};

}  // namespace fewbits
