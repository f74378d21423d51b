// The adaptive stream: integers of very small networks, coded as binary decisions whose probabilities are learned while
// coding (docs/format.md, section 9.4). The same bits as fewbits.coder.adaptive, which explains the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fewbits {

// How an array of latents is laid out: rows of slices of height x width. No dimension is 0.
struct Geometry {
    size_t rows = 0, slices = 0, height = 0, width = 0;

    size_t num_elements() const { return rows * slices * height * width; }
};

struct AdaptiveArray {
    Geometry geometry;
    const int64_t* values = nullptr;  // num_elements()
};

// The stream of the arrays, in order. Throws InvalidArgument for a magnitude of 2^31 or more, and where the stream is
// so short that a decoder would refuse its many decisions.
std::vector<uint8_t> encode_adaptive(const std::vector<AdaptiveArray>& arrays);

// Fills values[i], of num_elements() each. Throws Corrupt unless the stream is the one encoding of what it decodes to.
void decode_adaptive(const uint8_t* bytes, size_t size, const std::vector<Geometry>& geometries,
                     const std::vector<int64_t*>& values);

// Each array's own share of the stream in bits. Throws InvalidArgument for a magnitude of 2^31 or more.
std::vector<double> adaptive_bits(const std::vector<AdaptiveArray>& arrays);

}  // namespace fewbits
