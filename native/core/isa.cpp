#include "isa.h"

#include <atomic>

#include "errors.h"

#ifdef FEWBITS_X86
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace fewbits {
namespace {

#ifdef FEWBITS_X86

struct Registers {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
#ifdef _MSC_VER
    int values[4];
    __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {uint32_t(values[0]), uint32_t(values[1]), uint32_t(values[2]), uint32_t(values[3])};
#else
    if (static_cast<uint32_t>(__get_cpuid_max(leaf & 0x80000000u, nullptr)) >= leaf) {
        __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
    }
#endif
    return r;
}

// Which register files the operating system saves: a CPU may have instructions that must not be used.
uint64_t enabled_states() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return static_cast<uint64_t>(high) << 32 | low;
#endif
}

bool has(uint32_t reg, int bit) { return (reg >> bit & 1) != 0; }

struct Features {
    bool avx2 = false;
    bool avx512 = false;
    bool slow_gathers = false;

    Features() {
        // "AuthenticAMD", by its first four letters: from Zen on a gather takes as long as its loads one by one.
        slow_gathers = cpuid(0, 0).ebx == 0x68747541;
        const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
        const bool has_xgetbv = has(basic.ecx, 27);
        const uint64_t states = has_xgetbv ? enabled_states() : 0;
        // Bits 1-2: SSE and AVX registers; 5-7: mask registers and the wide ones.
        const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xE6) == 0xE6;
        const bool popcnt = has(basic.ecx, 23), bmi2 = has(extended.ebx, 8);
        avx2 = ymm && popcnt && bmi2 && has(extended.ebx, 3) && has(extended.ebx, 5);
        // F, DQ, BW, VL; VBMI, VBMI2.
        avx512 = avx2 && zmm && has(extended.ebx, 16) && has(extended.ebx, 17) && has(extended.ebx, 30) &&
                 has(extended.ebx, 31) && has(extended.ecx, 1) && has(extended.ecx, 6);
    }
};

#endif

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> all = {&kScalarKernels};
#ifdef FEWBITS_X86
    static const Features features;
    if (features.avx2) all.push_back(features.slow_gathers ? &kAvx2ShuffleKernels : &kAvx2Kernels);
    if (features.avx512) all.push_back(&kAvx512Kernels);
#endif
    return all;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Kernels* each : available()) names.emplace_back(each->name);
    return names;
}

void use_isa(const std::string& name) {
    const Kernels* found = nullptr;
    for (const Kernels* each : available()) {
        if (name.empty() || name == each->name) found = each;
    }
    if (found == nullptr) throw InvalidArgument("this machine cannot run the instruction set " + name + ".");
    chosen = found;
}

void use_kernels(const Kernels& loops) { chosen = &loops; }

const Kernels& kernels() {
    const Kernels* now = chosen;
    if (now == nullptr) {
        use_isa("");
        now = chosen;
    }
    return *now;
}

#ifdef FEWBITS_X86
bool uses_avx2() {
    // By address: tests have kernels of the same names that emulate what this machine lacks.
    const Kernels* const now = &kernels();
    return now == &kAvx2Kernels || now == &kAvx2ShuffleKernels || now == &kAvx512Kernels;
}
#endif

}  // namespace fewbits
