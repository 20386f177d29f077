// Windows of planes of some channels, interleaved by pixel, for the RoI ops.
#pragma once
#include <algorithm>

#include "roi.cuh"
#include "simd.h"
#include "transpose.h"

namespace cvops::cpu {

// One pixel of kVectors * kWidthOf<T> channels, processed in parallel lanes. Running results
// stay in registers.
template <int kVectors, typename T = float>
struct Pixel {
  VectorOf<T> of[kVectors];
};
constexpr int kMaxVectors = 4, kLanes = kMaxVectors * kWidth;
template <typename T>
constexpr int kLanesOf = kMaxVectors * kWidthOf<T>;

// Sets all lanes to x. For a scalar operand, the compiler would build the vector in memory on a
// target without vectors of its width.
CVOPS_INLINE void fill(FloatVector& lanes, float x) {
  for (int i = 0; i < kWidth; ++i) lanes[i] = x;
}
CVOPS_INLINE void fill(DoubleVector& lanes, double x) {
  for (int i = 0; i < kWidthOf<double>; ++i) lanes[i] = x;
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
template <int kVectors, typename T>
CVOPS_INLINE void clear_spare_lanes(Pixel<kVectors, T>* pixels, int num, int channels) {
  if (channels < kVectors * kWidthOf<T>) std::fill_n(pixels, num, Pixel<kVectors, T>{});
}

// Copies a window of `channels` planes, `plane` elements apart, to `out`. change(Quad) returns the
// values to store. The lanes beyond `channels` are zero.
template <int kVectors, typename Change>
CVOPS_INLINE void interleave(Pixel<kVectors>* out, const float* data, int64 plane, int width,
                             const Window& window, int channels, const Change& change) {
  constexpr int kAtOnce = 64;  // pixels that stay in the L1 cache
  for (int row = window.rows.begin; row < window.rows.end; ++row) {
    for (int begin = window.columns.begin; begin < window.columns.end; begin += kAtOnce) {
      const int num = std::min(kAtOnce, window.columns.end - begin);
      Pixel<kVectors>* const pixels = out + window.index(row, begin);
      clear_spare_lanes(pixels, num, channels);
      transpose(reinterpret_cast<float*>(pixels), kVectors * kWidth,
                data + (int64)row * width + begin, plane, channels, num, change);
    }
  }
}

// The same without a change.
template <int kVectors, typename T>
CVOPS_INLINE void interleave(Pixel<kVectors, T>* out, const T* data, int64 plane, int width,
                             const Window& window, int channels) {
  constexpr int kAtOnce = 64;  // pixels that stay in the L1 cache
  for (int row = window.rows.begin; row < window.rows.end; ++row) {
    for (int begin = window.columns.begin; begin < window.columns.end; begin += kAtOnce) {
      const int num = std::min(kAtOnce, window.columns.end - begin);
      Pixel<kVectors, T>* const pixels = out + window.index(row, begin);
      clear_spare_lanes(pixels, num, channels);
      transpose(reinterpret_cast<T*>(pixels), kVectors * kWidthOf<T>,
                data + (int64)row * width + begin, plane, channels, num);
    }
  }
}

// Copies interleaved pixels of a window to `channels` planes, `pitch` elements apart.
template <int kVectors, typename T>
void write_planes(T* first, const Pixel<kVectors, T>* pixels, const Window& window, int64 pitch,
                  int width, int channels) {
  const int columns = window.columns.end - window.columns.begin;
  for (int row = window.rows.begin; row < window.rows.end; ++row) {
    transpose(first + (int64)row * width + window.columns.begin, pitch,
              (const T*)(pixels + window.index(row, window.columns.begin)), kVectors * kWidthOf<T>,
              columns, channels);
  }
}

}  // namespace cvops::cpu
