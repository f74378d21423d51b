#include "relax.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "float_bits.h"
#include "parallel.h"

namespace fewbits {

namespace {

constexpr size_t kSums = 8;  // side by side

float select_float(bool condition, float yes, float no) {
    return float_of(select(condition, bits_of(yes), bits_of(no)));
}

float with_sign_of(float magnitude, float value) { return float_of(bits_of(magnitude) | (bits_of(value) & 0x80000000u)); }

// The sum of terms(start + i, length) over a piece; `each` fills them for some elements.
template <class Each>
double summed(size_t start, size_t stop, const Each& each) {
    constexpr size_t kBlock = 256;
    std::array<double, kSums> sums{};
    std::array<float, kBlock> terms;
    for (size_t block = start; block < stop; block += kBlock) {
        const size_t length = std::min(kBlock, stop - block);
        each(block, length, terms.data());
        std::fill(terms.begin() + static_cast<std::ptrdiff_t>(length), terms.end(), 0.0F);
        // Halves onto halves: no addition waits for the one before it.
        for (size_t half = kBlock / 2; half >= kSums; half /= 2) {
            for (size_t i = 0; i < half; ++i) terms[i] += terms[i + half];
        }
        for (size_t k = 0; k < kSums; ++k) sums[k] += static_cast<double>(terms[k]);
    }
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum;
}

// Pieces on threads, their sums added in order. Not a template: threads take many instructions to start.
double on_pieces(size_t count, size_t num_threads, const std::function<double(size_t, size_t)>& sum_of) {
    const size_t num_pieces = (count + kRelaxPiece - 1) / kRelaxPiece;
    std::vector<double> sums(num_pieces);
    const size_t used = std::max<size_t>(1, std::min(num_threads, num_pieces));
    on_threads(used, [&](size_t thread) {
        for (size_t piece = thread; piece < num_pieces; piece += used) {
            sums[piece] = sum_of(piece * kRelaxPiece, std::min(count, (piece + 1) * kRelaxPiece));
        }
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum;
}

template <class Each>
double summed_on_threads(size_t count, size_t num_threads, const Each& each) {
    return on_pieces(count, num_threads, [&](size_t start, size_t stop) { return summed(start, stop, each); });
}

}  // namespace

double relax(const float* latents, size_t count, const Relaxation& relaxation, size_t num_threads, float* values,
             float* slopes) {
    // Copied into the lambda: what it refers to may change with every value written, for all that the compiler knows.
    return summed_on_threads(count, num_threads, [=](size_t start, size_t length, float* terms) {
        const float step = relaxation.step, limit = relaxation.limit, further = relaxation.further;
        const float* const first = relaxation.first;
        for (size_t i = 0; i < length; ++i) {
            const float value = latents[start + i], magnitude = float_of(bits_of(value) & 0x7FFFFFFFu);
            // Where a float has no room for halves any more, adding 2^23 rounds, half to even.
            const float rounded = select_float(magnitude < 0x1p23F, (magnitude + 0x1p23F) - 0x1p23F, magnitude);
            const float level = select_float(rounded > limit, limit, rounded);
            values[start + i] = with_sign_of(level, value) * step;
            const float one = first[start + i];
            const bool beyond = magnitude >= 1.0F;
            const float slope = select_float(beyond, further, one);
            slopes[start + i] = select_float(value == 0.0F, 0.0F, with_sign_of(slope, value));
            terms[i] = slope * magnitude + select_float(beyond, one - further, 0.0F);
        }
    });
}

double relax_backward(const float* values, const float* value_gradients, const float* slopes, size_t count, float step,
                      float bits_gradient, size_t num_threads, float* gradients) {
    return summed_on_threads(count, num_threads, [=](size_t start, size_t length, float* terms) {
        for (size_t i = 0; i < length; ++i) {
            const float gradient = value_gradients[start + i];
            gradients[start + i] = gradient * step + slopes[start + i] * bits_gradient;
            terms[i] = values[start + i] * gradient;
        }
    });
}

}  // namespace fewbits
