// The gradient of roi_align.
#include <algorithm>
#include <memory>
#include <vector>

#include "aligned_rois.h"

namespace cvops {

using namespace cpu;
using namespace cpu::align;

namespace {

// Adds a bin's gradient, times a weight and divided by the number of samples. `reciprocal` and
// `count` have the members of SampleCount.
template <typename P, typename T = typename P::T>
CVOPS_INLINE void add_weighted(P& sum, const P& top, T weight, bool exact,
                               const typename P::V& reciprocal, const typename P::V& count) {
  typename P::V weights;
  fill(weights, weight);
  for (int v = 0; v < P::kVectors; ++v) {
    const typename P::V weighted = top.of[v] * weights;
    sum.of[v] += exact ? weighted * reciprocal : weighted / count;
  }
}

// Adds the gradients of the outputs of an RoI to the sums of their pixels. The gradients of the
// work item begin at `out_grad`.
template <typename P, typename T = typename P::T>
CVOPS_INLINE void add_gradients(const Planes<P>& sums, const Backward<T>& call, const T* out_grad,
                                const Roi<T>& roi, const Bins& bins, int channels) {
  const RoiAlign& op = call.op;
  const bool exact = roi.axes.count.reciprocal > 0.0f;
  typename P::V reciprocal, count;
  fill(reciprocal, roi.axes.count.reciprocal);
  fill(count, roi.axes.count.value);
  const AxisSampleOf<T>* const samples = call.rois.samples.data();
  const int last = (bins.rows.end - 1) * op.pooled_width + bins.columns.end;
  P tops[kTile] = {};
  int begin = 0, end = 0;  // bins in `tops`
  for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
    const BinSamples rows = call.rois.rows[roi.number * op.pooled_height + i];
    for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
      const BinSamples columns = call.rois.columns[roi.number * op.pooled_width + j];
      const int bin = i * op.pooled_width + j;
      if (bin >= end) {
        begin = bin, end = std::min(bin + kTile, last);
        transpose<P::kWidth>((T*)tops, P::kLanes, out_grad + begin, op.bins(), channels,
                             end - begin);
      }
      const P top = tops[bin - begin];
      for (int64 k = rows.begin; k < rows.begin + rows.count; ++k) {
        const AxisSampleOf<T> y = samples[k];
        P *const low = sums.row(y.low), *const high = sums.row(y.high);
        for (int64 l = columns.begin; l < columns.begin + columns.count; ++l) {
          const AxisSampleOf<T> x = samples[l];
          add_weighted(low[x.low], top, y.low_weight * x.low_weight, exact, reciprocal, count);
          add_weighted(low[x.high], top, y.low_weight * x.high_weight, exact, reciprocal, count);
          add_weighted(high[x.low], top, y.high_weight * x.low_weight, exact, reciprocal, count);
          add_weighted(high[x.high], top, y.high_weight * x.high_weight, exact, reciprocal, count);
        }
      }
    }
  }
}

template <typename P, typename T = typename P::T>
CVOPS_INLINE void add_gradients_of_item(const Backward<T>& call, const WorkItem<T>& item,
                                        int image) {
  const RoiAlign& op = call.op;
  const int channels = std::min(P::kLanes, op.channels - item.channel);
  const Bins bins = bins_of_plane(item.bin, op);
  const int64 pixels = (int64)op.height * op.width, pitch = call.plane_pitch();
  T* const grad = call.plane(image, item);
  const Window window = window_of(item.begin, item.end, bins, op);
  const int64 area = window.pixels();
  if (area < pixels) {
    for (int k = 0; k < channels; ++k) std::fill_n(grad + k * pitch, pixels, T(0));
  }
  if (area == 0) return;
  const std::unique_ptr<P[]> memory(new P[area]());
  const Planes<P> sums = {window, memory.get()};
  for (const Roi<T>* roi = item.begin; roi < item.end; ++roi) {
    const int64 from = (roi->number * op.channels + item.channel) * op.bins();
    add_gradients(sums, call, call.pooled + from, *roi, bins, channels);
  }
  write_planes(grad, sums.pixels, window, pitch, op.width, channels);
}

}  // namespace

template <typename T>
void roi_align_backward(const Cpu&, T* grad, const T* out_grad, const T* boxes, int64 num_rois,
                        RoiAlign op) {
  const int64 pixels = (int64)op.height * op.width;
  if ((int64)op.images * op.planes() * pixels == 0) return;
  if (op.bins() == 0) num_rois = 0;
  const Backward<T> call = {grad, out_grad, op, find_rois(boxes, num_rois, op), false};
  const std::vector<Roi<T>>& known = call.rois.known;
  std::vector<WorkItem<T>> of_image(op.images, {known.data(), known.data(), 0, 0});
  double samples = 0;
  for_each_image(known, [&](const Roi<T>* begin, const Roi<T>* end) {
    of_image[begin->axes.image] = {begin, end, 0, 0};
    for (const Roi<T>* roi = begin; roi < end; ++roi) samples += num_samples(call.rois, *roi, op);
  });
  // All RoIs of an image go through one work item, in order. Smaller groups of channels occupy the
  // threads if there are few.
  const int64 planes_of_channel = (int64)op.images * op.plane_step();
  int lanes = kMaxLanesOf<T>;
  while (lanes > kMaxLanesOf<T> / 4 &&
         (lanes >= 2 * op.channels ||
          ceil_div(op.channels, lanes) * planes_of_channel < 2 * num_threads())) {
    lanes /= 2;
  }
  const int64 groups = ceil_div(op.channels, lanes);
  const double cost = lanes * (0.4 * samples / planes_of_channel + 0.3 * pixels);
  parallel_for(groups * planes_of_channel, cost, [&](int64 number) {
    const int image = (int)(number / (groups * op.plane_step()));
    WorkItem<T> item = of_image[image];
    item.channel = (int)(number % groups) * lanes;
    item.bin = (int)(number / groups % op.plane_step());
    with_pixel<T>(lanes, [&](auto type) __attribute__((always_inline)) {
      add_gradients_of_item<typename decltype(type)::Of>(call, item, image);
    });
  });
}

template void roi_align_backward(const Cpu&, float*, const float*, const float*, int64, RoiAlign);
template void roi_align_backward(const Cpu&, double*, const double*, const double*, int64,
                                 RoiAlign);

}  // namespace cvops
