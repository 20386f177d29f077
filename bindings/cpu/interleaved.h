// Windows of planes of some channels, interleaved by pixel, for the RoI ops.
#pragma once
#include <algorithm>

#include "roi.cuh"
#include "simd.h"
#include "transpose.h"

namespace cvops::cpu {

// Channels of a pixel that are processed at once, at most: their running results stay in registers.
template <typename T>
constexpr int kMaxLanesOf = 16 * kUsualWidth / (int)sizeof(T);
constexpr int kMaxLanes = kMaxLanesOf<float>, kMinLanes = kMaxLanes / 4;

// One pixel of kNumLanes channels, in vectors of kNumFloats floats or of as many bytes.
template <typename Element, int kNumLanes, int kNumFloats>
struct Pixel {
  using T = Element;
  static constexpr int kWidth = std::min(kNumFloats, kNumLanes*(int)sizeof(T) / 4);
  static constexpr int kLanes = kNumLanes, kLanesOfVector = 4 * kWidth / (int)sizeof(T);
  static constexpr int kVectors = kLanes / kLanesOfVector;
  using V = Vector<T, kWidth>;

  V of[kVectors];
};

// The smallest number of lanes for that many channels; the maximum if they need several pixels.
template <typename T = float>
constexpr int lanes_for(int64 channels) {
  constexpr int kMax = kMaxLanesOf<T>;
  return channels > kMax / 2 ? kMax : channels > kMax / 4 ? kMax / 2 : kMax / 4;
}

// Calls body(type) with the pixels of that many lanes, in vectors of the width in use, as type::Of.
template <typename P>
struct Type {
  using Of = P;
};

template <typename T, int kLanes, int kMaxWidth, typename Body>
void with_pixel_of(const Body& body) {
  by_width([&](auto width) __attribute__((always_inline)) {
    constexpr int kWidth = width < kMaxWidth ? width : kMaxWidth;
    body(Type<Pixel<T, kLanes, kWidth>>());
  });
}

template <typename T = float, int kMaxWidth = 16, typename Body>
void with_pixel(int lanes, const Body& body) {
  constexpr int kMax = kMaxLanesOf<T>;
  if (lanes == kMax) return with_pixel_of<T, kMax, kMaxWidth>(body);
  if (lanes == kMax / 2) return with_pixel_of<T, kMax / 2, kMaxWidth>(body);
  with_pixel_of<T, kMax / 4, kMaxWidth>(body);
}

// Maximum width where pixels in memory are sums: a load of such a pixel soon after its store takes
// longer with AVX-512.
constexpr int kMaxWidthOfSums = 8;

// Vectors of the largest alignment, for the memory of pixels.
using PixelMemory = Vector<float, 16>;

// Sets all lanes to x. The 0 that is subtracted changes no x; added, it would change -0.0.
template <typename V, typename T>
CVOPS_INLINE void fill(V& lanes, T x) {
  lanes = x - V{};
}

// Maximum number of bins for non-temporal stores: the staged results must fit into a near cache.
constexpr int kMaxStaged = 256;

// Window of pixels that RoIs use.
struct Window {
  Range rows, columns;

  int64 pixels() const { return (int64)(rows.end - rows.begin) * (columns.end - columns.begin); }
  int64 index(int row, int column) const {
    return (int64)(row - rows.begin) * (columns.end - columns.begin) + (column - columns.begin);
  }
};

// The smallest range that contains both.
inline Range bounds_of(Range a, Range b) {
  if (a.begin >= a.end) return b;
  if (b.begin >= b.end) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

inline Window bounds_of(const Window& a, const Window& b) {
  return {bounds_of(a.rows, b.rows), bounds_of(a.columns, b.columns)};
}

// Sets `num` pixels to zero if they have lanes beyond `channels`. A sum of denormals in these lanes
// would take many times as long.
template <typename P>
CVOPS_INLINE void clear_spare_lanes(P* pixels, int num, int channels) {
  if (channels < P::kLanes) std::fill_n(pixels, num, P{});
}

// Copies a window of `channels` planes, `plane` elements apart, to `out`. change(Vector&) changes
// the values. The lanes beyond `channels` are zero. kWidth: of the loads; narrow ones are faster if
// the planes are in no cache.
template <int kWidth, typename P, typename... Change>
CVOPS_INLINE void interleave(P* out, const typename P::T* data, int64 plane, int width,
                             const Window& window, int channels, const Change&... change) {
  constexpr int kAtOnce = 64;  // pixels that stay in the L1 cache
  for (int row = window.rows.begin; row < window.rows.end; ++row) {
    for (int begin = window.columns.begin; begin < window.columns.end; begin += kAtOnce) {
      const int num = std::min(kAtOnce, window.columns.end - begin);
      P* const pixels = out + window.index(row, begin);
      clear_spare_lanes(pixels, num, channels);
      transpose<kWidth>(reinterpret_cast<typename P::T*>(pixels), P::kLanes,
                        data + (int64)row * width + begin, plane, channels, num, change...);
    }
  }
}

// Copies interleaved pixels of a window to `channels` planes, `pitch` elements apart.
template <typename P>
CVOPS_INLINE void write_planes(typename P::T* first, const P* pixels, const Window& window,
                               int64 pitch, int width, int channels) {
  const int columns = window.columns.end - window.columns.begin;
  for (int row = window.rows.begin; row < window.rows.end; ++row) {
    transpose<P::kWidth>(first + (int64)row * width + window.columns.begin, pitch,
                         (const typename P::T*)(pixels + window.index(row, window.columns.begin)),
                         P::kLanes, columns, channels);
  }
}

}  // namespace cvops::cpu
