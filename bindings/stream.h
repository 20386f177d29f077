// Stores that go past the caches.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace cvops {

// Results of so many bytes or more do not stay in a cache until they are read again: what is stored
// there first is only read for nothing, and displaces what is needed.
constexpr int64_t kWorthStreaming = 4 << 20;

// Copies `count` elements of 4 bytes. Before other threads may read them: streamed().
template <typename T>
inline void stream(T* to, const T* from, int64_t count) {
  static_assert(sizeof(T) == 4, "");
#ifdef __SSE2__
  int64_t i = std::min<int64_t>(count, -(reinterpret_cast<uintptr_t>(to) / 4) & 3);
  std::memcpy(to, from, 4 * i);
  for (; i + 4 <= count; i += 4) {
    const __m128i four = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), four);
  }
  std::memcpy(to + i, from + i, 4 * (count - i));
#else
  std::memcpy(to, from, 4 * count);
#endif
}

inline void streamed() {
#ifdef __SSE2__
  _mm_sfence();
#endif
}

}  // namespace cvops
