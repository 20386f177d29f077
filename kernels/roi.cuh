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

// One axis of an RoI, in pixels: the first pixel, and the length of a bin.
struct RoiAxis {
  int begin;
  float bin;
};

// Axis from the first and last coordinate. The RoI has at least one pixel.
CVOPS_HD RoiAxis roi_axis(float first, float last, float scale, int bins) {
  int begin = truncated(roundf(first * scale)), end = truncated(roundf(last * scale));
  int size = wrapping_add(wrapping_subtract(end, begin), 1);
  return {begin, (float)(size > 1 ? size : 1) / (float)bins};
}

// Pixels of bin i, clamped to [0, limit). Bins overlap if the bin length is not an integer.
CVOPS_HD Range bin_range(RoiAxis axis, int i, int limit) {
  int begin = truncated(floorf((float)i * axis.bin));
  int end = truncated(ceilf((float)(i + 1) * axis.bin));
  return {clamped(wrapping_add(begin, axis.begin), limit),
          clamped(wrapping_add(end, axis.begin), limit)};
}

// Maximum in a bin of each of kPlanes planes, and the index of its first occurrence in the plane.
// NaN is never the maximum. The index is -1 if no value is above kLowestFloat or the bin is empty.
template <int kPlanes>
CVOPS_HD void max_of_bin(const float* const (&planes)[kPlanes], Range rows, Range columns,
                         int width, float (&best)[kPlanes], int (&at)[kPlanes]) {
  bool empty = rows.begin >= rows.end || columns.begin >= columns.end;
  for (int k = 0; k < kPlanes; ++k) {
    best[k] = empty ? 0.0f : kLowestFloat;
    at[k] = -1;
  }
  if (empty) return;
  for (int row = rows.begin; row < rows.end; ++row) {
    for (int i = row * width + columns.begin; i < row * width + columns.end; ++i) {
      for (int k = 0; k < kPlanes; ++k) {
        float value = planes[k][i];
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
struct __align__(16) Values {
  float of[kChannelsAtOnce];
};
#endif

}  // namespace cvops
