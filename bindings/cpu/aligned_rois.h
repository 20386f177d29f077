// RoIs of roi_align with their samples, and the work items of both directions.
#pragma once
#include <algorithm>
#include <vector>

#include "interleaved.h"
#include "parallel.h"
#include "roi_align.h"
#include "simd.h"

namespace cvops::cpu::align {

constexpr int kTile = 64;  // bins whose values are transposed at once

// Samples of a bin along an axis, those in the map: `count` entries of Rois::samples.
struct BinSamples {
  int64 begin;
  int count;
  bool outside;  // true if the bin has other samples too
};

template <typename T>
struct Roi {
  int64 number;
  AlignedRoiOf<T> axes;
};

// All RoIs, and their samples along the axes, computed once for all channels.
template <typename T>
struct Rois {
  std::vector<AxisSampleOf<T>> samples;
  std::vector<BinSamples> rows, columns;  // (num_rois, pooled_height), (num_rois, pooled_width)
  std::vector<Roi<T>> known;              // ordered by image
  std::vector<int64> unknown;             // RoIs whose image does not exist
};

template <typename T>
CVOPS_INLINE void find_samples(Rois<T>& out, BinSamples* bins, const RoiAlignAxisOf<T>& axis,
                               int num_bins, int size) {
  for (int i = 0; i < num_bins; ++i) {
    const int64 begin = (int64)out.samples.size();
    const Range range = samples_in_map(axis, i, size);
    for (int k = range.begin; k < range.end; ++k) {
      const AxisSampleOf<T> sample = axis_sample(axis.position(i, k), size);
      if (sample.inside()) out.samples.push_back(sample);
    }
    const int count = (int)((int64)out.samples.size() - begin);
    bins[i] = {begin, count, count < axis.samples};
  }
}

template <typename T>
void add_rois(Rois<T>& out, const T* rois, int64 num_rois, const RoiAlign& op) {
  for (int64 n = 0; n < num_rois; ++n) {
    const AlignedRoiOf<T> axes = aligned_roi(rois + 5 * n, op);
    if (axes.image < 0) {
      out.unknown.push_back(n);
      continue;
    }
    find_samples(out, &out.rows[n * op.pooled_height], axes.y, op.pooled_height, op.height);
    find_samples(out, &out.columns[n * op.pooled_width], axes.x, op.pooled_width, op.width);
    out.known.push_back({n, axes});
  }
}

template <typename T>
Rois<T> find_rois(const T* boxes, int64 num_rois, const RoiAlign& op) {
  Rois<T> rois;
  rois.rows.resize(num_rois * op.pooled_height);
  rois.columns.resize(num_rois * op.pooled_width);
  rois.known.reserve(num_rois);
  simd<add_rois<T>>(rois, boxes, num_rois, op);
  auto before = [](const Roi<T>& a, const Roi<T>& b) { return a.axes.image < b.axes.image; };
  if (!std::is_sorted(rois.known.begin(), rois.known.end(), before)) {
    std::stable_sort(rois.known.begin(), rois.known.end(), before);
  }
  return rois;
}

struct Bins {
  Range rows, columns;
};

// The bins of a plane of data: all, or its own bin if position-sensitive.
CVOPS_INLINE Bins bins_of_plane(int bin, const RoiAlign& op) {
  if (!op.position_sensitive) return {{0, op.pooled_height}, {0, op.pooled_width}};
  const int row = bin / op.pooled_width, column = bin % op.pooled_width;
  return {{row, row + 1}, {column, column + 1}};
}

template <typename T>
CVOPS_INLINE Window window_of(const Roi<T>& roi, const Bins& bins, const RoiAlign& op) {
  return {touched_pixels(roi.axes.y, bins.rows, op.height),
          touched_pixels(roi.axes.x, bins.columns, op.width)};
}

template <typename T>
CVOPS_INLINE Window window_of(const Roi<T>* begin, const Roi<T>* end, const Bins& bins,
                              const RoiAlign& op) {
  Window window = {};
  for (const Roi<T>* roi = begin; roi < end; ++roi) {
    window = bounds_of(window, window_of(*roi, bins, op));
  }
  return window;
}

// Work item: some RoIs of one image; kMaxLanesOf<T> channels or the rest; the first bin of their
// planes.
template <typename T>
struct WorkItem {
  const Roi<T>*begin, *end;
  int channel, bin;
};

// A call in either direction. `planes` is data or its gradient, `pooled` the result or its
// gradient.
template <typename T, typename Planes, typename Pooled>
struct Call {
  Planes* planes;
  Pooled* pooled;
  RoiAlign op;
  Rois<T> rois;
  bool streams;

  // First of the planes of a work item; the others are plane_pitch() elements apart.
  Planes* plane(int image, const WorkItem<T>& item) const {
    return planes + (int64)op.plane(image, item.channel, item.bin) * op.height * op.width;
  }
  int64 plane_pitch() const { return (int64)op.plane_step() * op.height * op.width; }
};
template <typename T>
using Forward = Call<T, const T, T>;
template <typename T>
using Backward = Call<T, T, const T>;

// Interleaved planes of some channels in a window.
template <typename P, typename T = typename P::T>
struct Planes {
  Window window;
  P* pixels;

  P* row(int row) const { return pixels + window.index(row, 0); }
};

// Number of samples of all bins of an RoI in the map.
template <typename T>
double num_samples(const Rois<T>& rois, const Roi<T>& roi, const RoiAlign& op) {
  double rows = 0, columns = 0;
  for (int i = 0; i < op.pooled_height; ++i) {
    rows += rois.rows[roi.number * op.pooled_height + i].count;
  }
  for (int j = 0; j < op.pooled_width; ++j) {
    columns += rois.columns[roi.number * op.pooled_width + j].count;
  }
  return rows * columns;
}

// Calls body(begin, end) for the RoIs of each image that has RoIs.
template <typename T, typename Body>
void for_each_image(const std::vector<Roi<T>>& rois, const Body& body) {
  const Roi<T>* const last = rois.data() + rois.size();
  for (const Roi<T>*begin = rois.data(), *end = begin; begin < last; begin = end) {
    while (end < last && end->axes.image == begin->axes.image) ++end;
    body(begin, end);
  }
}

}  // namespace cvops::cpu::align
