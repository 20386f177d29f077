// Non-temporal stores, which bypass the caches.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
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

// Copies `count` elements of 4 or 8 bytes. Call streamed() before other threads read them.
template <typename T>
inline void stream(T* to, const T* from, int64_t count) {
  constexpr int64_t kSize = sizeof(T), kAtOnce = 16 / kSize;
  static_assert(kSize == 4 || kSize == 8, "");
#ifdef __SSE2__
  const auto address = reinterpret_cast<uintptr_t>(to);
  int64_t i = std::min<int64_t>(count, -(address / kSize) & (kAtOnce - 1));
  std::memcpy(to, from, kSize * i);
  for (; i + kAtOnce <= count; i += kAtOnce) {
    const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), some);
  }
  std::memcpy(to + i, from + i, kSize * (count - i));
#else
  std::memcpy(to, from, kSize * count);
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
