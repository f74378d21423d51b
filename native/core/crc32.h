// CRC-32 as zlib computes it, which every checksum of a file is (docs/format.md, section 1).
#pragma once

#include <cstddef>
#include <cstdint>

namespace fewbits {

// The CRC of bytes at any address; `value` is the CRC of what came before them, 0 at the start. By the instruction set
// in use (isa.h): the portable code where that is "scalar".
uint32_t crc32(const uint8_t* data, size_t size, uint32_t value);

// What follows works on the register: the complement of the CRC so far.
namespace crc {

constexpr uint32_t kPolynomial = 0xEDB88320u;  // bit i is the coefficient of x^(31 - i); x^32 is understood. WIRE

// The register times x, modulo the polynomial.
constexpr uint32_t times_x(uint32_t reg) { return (reg >> 1) ^ ((reg & 1) != 0 ? kPolynomial : 0u); }

uint32_t update_portable(uint32_t reg, const uint8_t* data, size_t size);

#ifdef FEWBITS_X86
// With SSE4.1 and PCLMULQDQ.
uint32_t update_pclmul(uint32_t reg, const uint8_t* data, size_t size);
#endif

}  // namespace crc
}  // namespace fewbits
