// How fresh memory is had cheaply, and memory that is free given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace fewbits {

// Asks the system to back a range of fresh memory by huge pages, where it does such a thing; a hint, nothing more.
//
// A page of 4 KiB costs as much to be had for the first time as a thousand decoded weights: without this, most of the
// time of decoding a large tensor would go there.
void prefer_huge_pages(void* begin, size_t size);

// Bytes of any values, backed by huge pages where they are many.
std::unique_ptr<uint8_t[]> fresh_bytes(size_t size);

// Gives pages that nobody uses back to the system, where the C library keeps them; a hint, nothing more.
//
// glibc grows its heaps for arrays of up to 32 MB once some were freed, and keeps what lies below the last one in use.
void release_memory();

}  // namespace fewbits
