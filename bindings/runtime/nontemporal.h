// Non-temporal stores, which bypass the caches.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.h"

#ifdef CVOPS_AVX2
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace cvops {

// True if non-temporal stores are faster for a result of `bytes` bytes whose parts are far apart.
inline bool worth_streaming_parts(int64_t bytes) { return bytes >= 4 << 20; }

// True if non-temporal stores are faster for a result of `bytes` bytes, written in order. Results
// of a few MB leave the caches before they are read. Normal stores would read the old contents
// first and evict other data. Memory that is new to the process is in the caches anyway: the system
// has just cleared it.
inline bool worth_streaming(const void* to, int64_t bytes) {
  if (!worth_streaming_parts(bytes)) return false;
#ifdef __linux__
  unsigned char in_memory = 1;
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  const uintptr_t middle = (reinterpret_cast<uintptr_t>(to) + bytes / 2) / page * page;
  if (mincore(reinterpret_cast<void*>(middle), page, &in_memory) == 0) return in_memory & 1;
#endif
  return true;
}

// Copies `count` elements of 4 or 8 bytes by kBytes, which copy(to, from) copies to a multiple of
// kBytes.
template <int kBytes, typename T, typename Copy>
CVOPS_INLINE void copy_aligned(T* to, const T* from, int64_t count, const Copy& copy) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "");
  constexpr int kAtOnce = kBytes / (int)sizeof(T);
  const auto address = reinterpret_cast<uintptr_t>(to);
  int64_t i = std::min<int64_t>(count, -(address / sizeof(T)) & (kAtOnce - 1));
  std::memcpy(to, from, sizeof(T) * i);
  for (; i + kAtOnce <= count; i += kAtOnce) copy(to + i, from + i);
  std::memcpy(to + i, from + i, sizeof(T) * (count - i));
}

#ifdef CVOPS_AVX2
CVOPS_AVX2 inline void stream_32_bytes(void* to, const void* from) {
  _mm256_stream_si256((__m256i*)to, _mm256_loadu_si256((const __m256i*)from));
}
#endif

// Copies `count` elements. Call streamed() before other threads read them. kWidth: floats of a
// vector of the target.
template <int kWidth = 4, typename T>
CVOPS_INLINE void stream(T* to, const T* from, int64_t count) {
#ifdef CVOPS_AVX2
  if constexpr (kWidth >= 8) {
    copy_aligned<32>(to, from, count,
                     [](void* to, const void* from)
                         __attribute__((always_inline)) { stream_32_bytes(to, from); });
    return;
  }
#endif
#ifdef __SSE2__
  copy_aligned<16>(to, from, count, [](void* to, const void* from) __attribute__((always_inline)) {
    _mm_stream_si128((__m128i*)to, _mm_loadu_si128((const __m128i*)from));
  });
#else
  std::memcpy(to, from, sizeof(T) * count);
#endif
}

// Copies four floats to an address that is a multiple of 16 bytes.
inline void stream_four(float* to, const float* from) {
#ifdef __SSE2__
  _mm_stream_ps(to, _mm_loadu_ps(from));
#else
  std::memcpy(to, from, 16);
#endif
}

inline void streamed() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace cvops
