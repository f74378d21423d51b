// Integers and models made of any bytes, encoded, decoded and damaged: every instruction set and number of threads
// gives the same bytes, the same elements, and refuses the same bodies.
#include "round_trip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    fewbits::check_round_trip(bytes, size);
    return 0;
}
