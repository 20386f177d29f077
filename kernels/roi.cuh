// Regions of interest (RoIs): the edges of their bins, and the maximum in a bin.
#pragma once
#include "range.cuh"

namespace cvops {

// Sizes of data (images, channels, height, width), bins per RoI, and the factor from RoI
// coordinates to pixels.
struct RoiPooling {
  int images, channels, height, width, pooled_height, pooled_width;
  float scale;
};

constexpr float kLowestFloat = -3.402823466e+38f;

// int arithmetic modulo 2^32, which is MXNet's behavior on overflow.
CVOPS_HD int wrapping_add(int a, int b) { return (int)((uint32)a + (uint32)b); }
CVOPS_HD int wrapping_subtract(int a, int b) { return (int)((uint32)a - (uint32)b); }

CVOPS_HD int clamped(int i, int max) { return i < 0 ? 0 : i > max ? max : i; }

// Roundings to an integer; `rounded` takes halves away from zero.
CVOPS_HD float rounded(float x) { return roundf(x); }
CVOPS_HD float rounded_up(float x) { return ceilf(x); }
CVOPS_HD float rounded_down(float x) { return floorf(x); }
CVOPS_HD double rounded(double x) { return round(x); }
CVOPS_HD double rounded_up(double x) { return ceil(x); }
CVOPS_HD double rounded_down(double x) { return floor(x); }

// One axis of an RoI, in pixels: the first pixel, and the length of a bin.
template <typename T>
struct RoiAxisOf {
  int begin;
  T bin;
};

// Axis from the first and last coordinate. The RoI has at least one pixel.
template <typename T>
CVOPS_HD RoiAxisOf<T> roi_axis(T first, T last, float scale, int bins) {
  int begin = truncated(rounded(first * scale)), end = truncated(rounded(last * scale));
  int size = wrapping_add(wrapping_subtract(end, begin), 1);
  return {begin, (T)(size > 1 ? size : 1) / (T)bins};
}

// Pixels of bin i, clamped to [0, limit). Bins overlap if the bin length is not an integer.
template <typename T>
CVOPS_HD Range bin_range(RoiAxisOf<T> axis, int i, int limit) {
  int begin = truncated(rounded_down((T)i * axis.bin));
  int end = truncated(rounded_up((T)(i + 1) * axis.bin));
  return {clamped(wrapping_add(begin, axis.begin), limit),
          clamped(wrapping_add(end, axis.begin), limit)};
}

// Maximum in a bin of each of kPlanes planes, and the index of its first occurrence in the plane.
// NaN is never the maximum. The index is -1 if no value is above kLowestFloat or the bin is empty.
template <int kPlanes, typename T>
CVOPS_HD void max_of_bin(const T* const (&planes)[kPlanes], Range rows, Range columns, int width,
                         T (&best)[kPlanes], int (&at)[kPlanes]) {
  bool empty = rows.begin >= rows.end || columns.begin >= columns.end;
  for (int k = 0; k < kPlanes; ++k) {
    best[k] = empty ? 0.0f : kLowestFloat;
    at[k] = -1;
  }
  if (empty) return;
  for (int row = rows.begin; row < rows.end; ++row) {
    for (int i = row * width + columns.begin; i < row * width + columns.end; ++i) {
      for (int k = 0; k < kPlanes; ++k) {
        T value = planes[k][i];
        if (value > best[k]) {
          best[k] = value;
          at[k] = i;
        }
      }
    }
  }
}

constexpr int kChannelsAtOnce = 4;  // of a thread

#ifdef __CUDACC__
// One value for each of kChannelsAtOnce channels.
template <typename T>
struct __align__(16) ValuesOf {
  T of[kChannelsAtOnce];
};
using Values = ValuesOf<float>;
#endif

}  // namespace cvops
