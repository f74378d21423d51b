// What a training step asks of latents, in one pass each way: straight-through values, and the slope of their rate.
//
// fewbits.nn.relaxed is the specification. Nothing here is ever written to a file, so only sums may differ from it: here
// each piece of kRelaxPiece elements has its own, whatever the number of threads.
#pragma once

#include <cstddef>

namespace fewbits {

constexpr size_t kRelaxPiece = size_t{1} << 17;

// The decoder and the rate of a tensor's latents.
struct Relaxation {
    float step;        // between values
    float limit;       // greatest level, an integer of at most 2^24
    float further;     // bits of each step of magnitude beyond 1
    const float* first;  // bits of a magnitude of 1 beyond those of 0, of each element
};

// values[i] = round(latents[i]) * step, slopes[i] = the slope of latents[i]'s bits; returns the sum of the bits beyond
// those of zeros. What is not a number stays so.
double relax(const float* latents, size_t count, const Relaxation& relaxation, size_t num_threads, float* values,
             float* slopes);

// gradients[i] = value_gradients[i] * step + slopes[i] * bits_gradient; returns the sum of values * value_gradients.
double relax_backward(const float* values, const float* value_gradients, const float* slopes, size_t count, float step,
                      float bits_gradient, size_t num_threads, float* gradients);

}  // namespace fewbits
