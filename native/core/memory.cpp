#include "memory.h"

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace fewbits {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

void prefer_huge_pages(void* begin, size_t size) {
    constexpr uintptr_t kHugePage = uintptr_t{1} << 21;
    if (size < 2 * kHugePage) return;  // too small to hold a whole one for sure
    // Whole huge pages within the range only: what lies around it is not ours to decide on.
    const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + kHugePage - 1) & ~(kHugePage - 1);
    const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + size) & ~(kHugePage - 1);
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

#else

void prefer_huge_pages(void*, size_t) {}

#endif

std::unique_ptr<uint8_t[]> fresh_bytes(size_t size) {
    std::unique_ptr<uint8_t[]> bytes(new uint8_t[size]);
    prefer_huge_pages(bytes.get(), size);
    return bytes;
}

void release_memory() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

}  // namespace fewbits
