// Bins of deformable_psroi_pooling with their samples, and the work items of both directions.
#pragma once
#include <algorithm>
#include <vector>

#include "deformable_psroi_pooling.h"
#include "interleaved.h"
#include "parallel.h"
#include "simd.h"

namespace cvops::cpu::deformed {

// RoIs of each image, in order.
using RoiLists = std::vector<std::vector<int64>>;

inline RoiLists rois_of_images(const float* rois, int64 num_rois, const Psroi& op) {
  RoiLists lists(op.images);
  for (int64 n = 0; n < num_rois; ++n) {
    const int image = psroi_image(rois + 5 * n, op);
    if (image >= 0) lists[image].push_back(n);
  }
  return lists;
}

// Bins of a cell.
struct Bins {
  Range rows, columns;

  int64 num() const { return (int64)(rows.end - rows.begin) * (columns.end - columns.begin); }
};

CVOPS_INLINE Bins bins_of_cell(int cell, const Psroi& op) {
  return {op.bins_of_cell(cell / op.group), op.bins_of_cell(cell % op.group)};
}

// Samples of a bin in the map.
struct Samples {
  std::vector<AxisSample> rows, columns;

  explicit Samples(const DeformablePsroi& op) {
    rows.reserve(op.samples);
    columns.reserve(op.samples);
  }
  void find(const DeformedBin& bin, const DeformablePsroi& op) {
    find(rows, bin.y, op.psroi.height, op);
    find(columns, bin.x, op.psroi.width, op);
  }
  float count() const { return (float)(rows.size() * columns.size()); }

 private:
  static void find(std::vector<AxisSample>& out, const DeformedAxis& axis, int size,
                   const DeformablePsroi& op) {
    out.clear();
    for (int k = 0; k < op.samples; ++k) {
      const AxisSample sample = deformed_sample(axis.position(k), size);
      if (sample.inside()) out.push_back(sample);
    }
  }
};

// A call in either direction. `planes` is data or its gradient, `pooled` the result or its
// gradient.
template <typename PlaneValue, typename Pooled>
struct Call {
  PlaneValue* planes;
  Pooled* pooled;
  const float *rois, *trans;
  DeformablePsroi op;

  // First of the planes of a work item; the others are plane_pitch() elements apart.
  PlaneValue* plane(int image, int channel, int cell) const {
    return planes + (int64)op.psroi.plane(image, channel, cell) * op.psroi.pixels();
  }
  int64 plane_pitch() const { return (int64)op.psroi.cells() * op.psroi.pixels(); }
  Pooled* output(int64 roi, int channel) const {
    return pooled + (roi * op.psroi.output_dim + channel) * op.psroi.bins();
  }
};
using Forward = Call<const float, float>;
using Backward = Call<float, const float>;

// Work item: a cell of an image, and a group of channels of a class.
struct WorkItem {
  int image, class_id, channel, channels, cell;
  int group;  // see Groups; 0 for all channels of a class
};

// Calls body(roi, index) with the samples of each bin of the cell.
template <typename Call, typename Body>
CVOPS_INLINE void for_each_bin(const Call& call, const std::vector<int64>& rois,
                               const WorkItem& item, Samples& samples, const Body& body) {
  const Bins bins = bins_of_cell(item.cell, call.op.psroi);
  for (int64 n : rois) {
    for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
      for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
        samples.find(deformed_bin(call.rois + 5 * n, call.trans, n, item.class_id, i, j, call.op),
                     call.op);
        body(n, i * call.op.psroi.pooled + j);
      }
    }
  }
}

// All planes of a work item, interleaved.
template <typename P>
CVOPS_INLINE void copy_planes(P* pixels, const float* first, int64 pitch, int height, int width,
                              int channels) {
  interleave<4>(pixels, first, pitch, width, {{0, height}, {0, width}}, channels);
}

// Channels of a class in groups, one per lane.
struct Groups {
  int of_class, lanes, num;

  explicit Groups(const DeformablePsroi& op) : of_class(op.channels_of_class()) {
    lanes = lanes_for(of_class);
    num = (int)ceil_div(of_class, lanes);
  }

  // First channel of a group of any class, and the number of its channels.
  int first(int group) const { return group / num * of_class + group % num * lanes; }
  int channels(int group) const { return std::min(lanes, of_class - group % num * lanes); }
};

// Calls body(item, lanes) for each work item, on several threads. `costs`: ns of a sample and of a
// pixel, for one channel.
template <typename Body>
void for_each_item(const DeformablePsroi& op, int64 num_rois, double of_sample, double of_pixel,
                   const Body& body) {
  const Psroi& psroi = op.psroi;
  const Groups groups(op);
  const double samples =
      (double)num_rois / psroi.images * psroi.bins() / psroi.cells() * op.samples * op.samples;
  const double cost = groups.lanes * (of_sample * samples + of_pixel * psroi.pixels());
  const int64 per_image = (int64)op.classes * groups.num * psroi.cells();
  parallel_for(psroi.images * per_image, cost, [&](int64 number) {
    const int image = (int)(number / per_image), cell = (int)(number % psroi.cells());
    const int group = (int)(number % per_image / psroi.cells());
    body(WorkItem{image, group / groups.num, groups.first(group), groups.channels(group), cell,
                  group},
         groups.lanes);
  });
}

}  // namespace cvops::cpu::deformed
