// The portable path. Read this one: the other does the same with wider registers.
#include "sparse_loops.h"

namespace fewbits {

const SparseLoops kScalarSparseLoops = {rows_times};

}  // namespace fewbits
