// Any bytes as an adaptive stream, with any geometries: refused, or the one encoding of what they decode to.
//
// The input's first bytes say how the arrays are laid out; the rest is the stream, in a block of exactly its size.
#include <cstring>
#include <memory>

#include "adaptive.h"
#include "cases.h"
#include "check.h"
#include "errors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    using namespace fewbits;
    ByteSource source(bytes, size);
    std::vector<Geometry> geometries(source.byte() % 4);
    for (Geometry& geometry : geometries) {
        const uint8_t kernel = source.byte();
        geometry = {1u + source.byte() % 12, 1u + source.byte() % 12, 1u + kernel % 10, 1u + kernel / 16 % 10};
        if (kernel >= 160) geometry.height = geometry.width = 1;
    }
    const auto stream = std::make_unique<uint8_t[]>(source.size());
    if (source.size() > 0) std::memcpy(stream.get(), source.rest(), source.size());
    std::vector<std::vector<int64_t>> values;
    std::vector<int64_t*> outputs;
    for (const Geometry& geometry : geometries) values.emplace_back(geometry.num_elements());
    for (std::vector<int64_t>& each : values) outputs.push_back(each.data());
    try {
        decode_adaptive(stream.get(), source.size(), geometries, outputs);
    } catch (const Corrupt&) {
        return 0;
    }
    std::vector<AdaptiveArray> arrays;
    for (size_t i = 0; i < geometries.size(); ++i) arrays.push_back({geometries[i], values[i].data()});
    const std::vector<uint8_t> again = encode_adaptive(arrays);
    CHECK(again == std::vector<uint8_t>(stream.get(), stream.get() + source.size()));
    return 0;
}
