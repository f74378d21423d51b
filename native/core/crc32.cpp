// A CRC is the remainder of a message, seen as a polynomial over GF(2), modulo one of degree 32.
//
// Two surprises first.
//   1. Bits are mirrored: the lowest bit of a byte is the highest power, so what comes later in a message is further up
//      in a word, and a step towards lower powers is a shift to the right.
//   2. The register starts as 32 ones and is complemented at the end, so that leading and trailing zeros count.
#include "crc32.h"

#include <array>
#include <cstring>

#include "isa.h"

#ifdef FEWBITS_X86
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace fewbits {
namespace crc {
namespace {

constexpr size_t kStride = 16;  // bytes taken at a time

// [k][b]: what byte b becomes when k bytes follow it, that is b * x^(8 k + 32).
using Tables = std::array<std::array<uint32_t, 256>, kStride>;

Tables make_tables() {
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t reg = byte;
        for (size_t k = 0; k < kStride; ++k) {
            for (int bit = 0; bit < 8; ++bit) reg = times_x(reg);
            tables[k][byte] = reg;
        }
    }
    return tables;
}

const Tables kTables = make_tables();  // when the module is loaded: constants would be a tenth of its size

uint32_t load_uint32(const uint8_t* bytes) {
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

// What four bytes become when `following` others follow them.
uint32_t four_bytes(uint32_t word, size_t following) {
    return kTables[following + 3][word & 0xFF] ^ kTables[following + 2][word >> 8 & 0xFF] ^
           kTables[following + 1][word >> 16 & 0xFF] ^ kTables[following][word >> 24];
}

}  // namespace

uint32_t update_portable(uint32_t reg, const uint8_t* data, size_t size) {
    // The remainder of a sum is the sum of the remainders: 16 bytes are looked up independently of each other, where
    // one byte after the other would wait for the lookup before. The register is added to the four bytes in front.
    for (; size >= kStride; data += kStride, size -= kStride) {
        reg = four_bytes(load_uint32(data) ^ reg, 12) ^ four_bytes(load_uint32(data + 4), 8) ^
              four_bytes(load_uint32(data + 8), 4) ^ four_bytes(load_uint32(data + 12), 0);
    }
    for (; size > 0; ++data, --size) reg = (reg >> 8) ^ kTables[0][(reg ^ *data) & 0xFF];
    return reg;
}

}  // namespace crc

namespace {

#ifdef FEWBITS_X86

bool has_pclmul() {
#ifdef _MSC_VER
    int registers[4];
    __cpuid(registers, 1);
    const uint32_t ecx = static_cast<uint32_t>(registers[2]);
#else
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return false;
#endif
    return (ecx >> 1 & 1) != 0 && (ecx >> 19 & 1) != 0;  // PCLMULQDQ; SSE4.1
}

#endif

using Update = uint32_t (*)(uint32_t reg, const uint8_t* data, size_t size);

Update update_in_use() {
#ifdef FEWBITS_X86
    static const bool can_multiply = has_pclmul();
    if (can_multiply && std::strcmp(kernels().name, "scalar") != 0) return crc::update_pclmul;
#endif
    return crc::update_portable;
}

}  // namespace

uint32_t crc32(const uint8_t* data, size_t size, uint32_t value) { return ~update_in_use()(~value, data, size); }

}  // namespace fewbits
