#include "deformable_psroi_pooling.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "deformed_bins.h"
#include "staged_bins.h"

namespace cvops {

using namespace cpu;
using namespace cpu::deformed;

namespace {

// Pools the bins of a cell from interleaved planes.
template <typename P>
CVOPS_INLINE void pool(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
                       const P* pixels, const StagedBins& staged) {
  const Psroi& op = call.op.psroi;
  Samples samples(call.op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    P sum = {};
    for (const AxisSample& y : samples.rows) {
      const P* const low = pixels + (int64)y.low * op.width;
      const P* const high = pixels + (int64)y.high * op.width;
      for (const AxisSample& x : samples.columns) {
        const Corners<float> weight = weights_of(y, x);
        typename P::V a, b, c, d;
        fill(a, weight.a);
        fill(b, weight.b);
        fill(c, weight.c);
        fill(d, weight.d);
        for (int v = 0; v < P::kVectors; ++v) {
          sum.of[v] += a * low[x.low].of[v] + b * high[x.low].of[v] + c * low[x.high].of[v] +
                       d * high[x.high].of[v];
        }
      }
    }
    const float num = samples.count();
    typename P::V count;
    fill(count, num > 0.0f ? num : 1.0f);
    for (int v = 0; v < P::kVectors; ++v) sum.of[v] /= count;
    staged.at<P>(item.group, index, n) = sum;
  });
}

// Pools without interleaved planes, for few bins.
void pool_separately(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
                     const StagedBins& staged) {
  const Psroi& op = call.op.psroi;
  const float* const first = call.plane(item.image, item.channel, item.cell);
  Samples samples(call.op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) {
    float* const to = staged.lanes_of(item.group, index, n);
    const float count = samples.count();
    for (int k = 0; k < item.channels; ++k) {
      const float* const plane = first + k * call.plane_pitch();
      float sum = 0.0f;
      for (const AxisSample& y : samples.rows) {
        const float* const low = plane + (int64)y.low * op.width;
        const float* const high = plane + (int64)y.high * op.width;
        for (const AxisSample& x : samples.columns) {
          const Corners<float> weight = weights_of(y, x);
          sum += weight.a * low[x.low] + weight.b * high[x.low] + weight.c * low[x.high] +
                 weight.d * high[x.high];
        }
      }
      to[k] = count > 0.0f ? sum / count : 0.0f;
    }
  });
}

void pool_item(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
               const StagedBins& staged, int lanes) {
  const Psroi& op = call.op.psroi;
  const double reads =
      4.0 * call.op.samples * call.op.samples * bins_of_cell(item.cell, op).num() * rois.size();
  if (4 * reads < op.pixels()) return pool_separately(call, rois, item, staged);
  with_pixel(lanes, [&](auto type) __attribute__((always_inline)) {
    using P = typename decltype(type)::Of;
    const std::unique_ptr<P[]> pixels(new P[op.pixels()]);
    copy_planes(pixels.get(), call.plane(item.image, item.channel, item.cell), call.plane_pitch(),
                op.height, op.width, item.channels);
    pool(call, rois, item, pixels.get(), staged);
  });
}

}  // namespace

void deformable_psroi_pooling(const Cpu&, float* pooled, const float* data, const float* rois,
                              const float* trans, int64 num_rois, DeformablePsroi op) {
  const Psroi& psroi = op.psroi;
  const int64 of_roi = (int64)psroi.output_dim * psroi.bins();
  if (num_rois * of_roi == 0) return;
  if ((int64)psroi.images * psroi.pixels() == 0) {
    return (void)std::fill_n(pooled, num_rois * of_roi, 0.0f);
  }
  for (int64 n = 0; n < num_rois; ++n) {
    if (psroi_image(rois + 5 * n, psroi) < 0) std::fill_n(pooled + n * of_roi, of_roi, 0.0f);
  }
  const RoiLists lists = rois_of_images(rois, num_rois, psroi);
  const Forward call = {data, pooled, rois, trans, op};
  const Groups groups(op);
  const StagedBins staged(op.classes * groups.num, psroi.bins(), num_rois, groups.lanes);
  for_each_item(op, num_rois, 0.3, 0.2, [&](const WorkItem& item, int lanes) {
    const std::vector<int64>& list = lists[item.image];
    if (list.empty()) return;
    pool_item(call, list, item, staged, lanes);
  });
  parallel_for(num_rois, 0.3 * of_roi, [&](int64 n) {
    if (psroi_image(rois + 5 * n, psroi) < 0) return;
    for (int group = 0; group < op.classes * groups.num; ++group) {
      staged.write(call.output(n, groups.first(group)), group, n, groups.channels(group));
    }
  });
}

}  // namespace cvops
