// Any bytes as a body, with any description of what it is to hold: decoded, or refused by name.
//
// The input's first bytes say which arrays, models, outputs, threads and inner loops; the rest is the body. Body and
// outputs lie in blocks of exactly their size, so that AddressSanitizer sees the first byte beyond them.
#include "errors.h"
#include "loops.h"
#include "round_trip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    using namespace fewbits;
    static const std::vector<const Kernels*> all = all_loops();
    ByteSource source(bytes, size);
    const DecodingCase decoding = case_from(source, true);
    use_kernels(*all[decoding.loops % all.size()]);
    const std::vector<uint8_t> body(source.rest(), source.rest() + source.size());
    try {
        decoded(body, decoding, decoding.num_threads);
    } catch (const InvalidArgument&) {
    }
    return 0;
}
