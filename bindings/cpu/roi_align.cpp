#include "roi_align.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "aligned_rois.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;
using namespace cpu::align;

namespace {

// Mean of the samples of a bin. `first` has the products of 0 and the first pixel of each plane.
template <typename P, typename T = typename P::T>
CVOPS_INLINE void mean_of_bin(P& mean, const Planes<P>& planes, const P& first,
                              const AxisSampleOf<T>* samples, const BinSamples& rows,
                              const BinSamples& columns, const SampleCountOf<T>& count) {
  P sum = {};
  for (const AxisSampleOf<T>* y = samples + rows.begin; y < samples + rows.begin + rows.count;
       ++y) {
    const P *const low = planes.row(y->low), *const high = planes.row(y->high);
    const AxisSampleOf<T>* const end = samples + columns.begin + columns.count;
    for (const AxisSampleOf<T>* x = samples + columns.begin; x < end; ++x) {
      typename P::V a, b, c, d;
      fill(a, y->low_weight * x->low_weight);
      fill(b, y->low_weight * x->high_weight);
      fill(c, y->high_weight * x->low_weight);
      fill(d, y->high_weight * x->high_weight);
      for (int v = 0; v < P::kVectors; ++v) {
        sum.of[v] += a * low[x->low].of[v] + b * low[x->high].of[v] + c * high[x->low].of[v] +
                     d * high[x->high].of[v];
      }
    }
  }
  if (count.value == 0.0f) return (void)(mean = {});
  if (rows.outside || columns.outside) {
    for (int v = 0; v < P::kVectors; ++v) sum.of[v] += first.of[v];
  }
  for (int v = 0; v < P::kVectors; ++v) {
    mean.of[v] = count.reciprocal > 0 ? sum.of[v] * count.reciprocal : sum.of[v] / count.value;
  }
}

// Pools an RoI; the results of the work item begin at `to`. `staged` is a buffer for non-temporal
// stores, or null.
template <typename P, typename T = typename P::T>
CVOPS_INLINE void pool(const Forward<T>& call, T* to, const Roi<T>& roi, const Bins& bins,
                       const Planes<P>& planes, const P& first, int channels, T* staged) {
  const RoiAlign& op = call.op;
  const AxisSampleOf<T>* const samples = call.rois.samples.data();
  T* const pooled = staged ? staged : to;
  P means[kTile];
  int num = 0, begin = 0;
  for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
    const BinSamples rows = call.rois.rows[roi.number * op.pooled_height + i];
    for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
      const BinSamples columns = call.rois.columns[roi.number * op.pooled_width + j];
      if (num == 0) begin = i * op.pooled_width + j;
      mean_of_bin(means[num++], planes, first, samples, rows, columns, roi.axes.count);
      const bool last = i + 1 == bins.rows.end && j + 1 == bins.columns.end;
      if (num < kTile && !last) continue;
      transpose<P::kWidth>(pooled + begin, op.bins(), (const T*)means, P::kLanes, num, channels);
      num = 0;
    }
  }
  if (staged) stream<P::kWidth>(to, staged, (int64)channels * op.bins());
}

template <typename P, typename T = typename P::T>
CVOPS_INLINE void copy_planes(const Planes<P>& planes, const T* first, int64 pitch, int width,
                              int channels) {
  interleave<P::kWidth>(planes.pixels, first, pitch, width, planes.window, channels);
}

template <typename P, typename T = typename P::T>
CVOPS_INLINE void pool_item(const Forward<T>& call, const WorkItem<T>& item) {
  const RoiAlign& op = call.op;
  const int channels = std::min(P::kLanes, op.channels - item.channel);
  const Bins bins = bins_of_plane(item.bin, op);
  const int64 num_bins = op.bins(), pitch = call.plane_pitch();
  const T* const data = call.plane(item.begin->axes.image, item);
  Planes<P> planes = {window_of(item.begin, item.end, bins, op), nullptr};
  const int64 area = planes.window.pixels();
  const std::unique_ptr<P[]> memory(new P[area + (call.streams ? num_bins : 0)]);
  planes.pixels = memory.get();
  copy_planes(planes, data, pitch, op.width, channels);
  P first = {};
  for (int k = 0; k < channels; ++k)
    first.of[k / P::kLanesOfVector][k % P::kLanesOfVector] = 0.0f * data[k * pitch];
  T* const staged = call.streams ? (T*)(memory.get() + area) : nullptr;
  for (const Roi<T>* roi = item.begin; roi < item.end; ++roi) {
    T* const to = call.pooled + (roi->number * op.channels + item.channel) * num_bins;
    pool(call, to, *roi, bins, planes, first, channels, staged);
  }
  if (call.streams) streamed();
}

// Splits the RoIs of one image into work items and returns their cost in ns.
template <typename T>
double add_items(std::vector<WorkItem<T>>& items, const Rois<T>& rois, const Roi<T>* begin,
                 const Roi<T>* end, const RoiAlign& op) {
  const Bins bins = {{0, op.pooled_height}, {0, op.pooled_width}};
  const int64 blocks = ceil_div(op.channels, kMaxLanesOf<T>) * op.plane_step();
  double separate = 0, samples = 0;
  for (const Roi<T>* roi = begin; roi < end; ++roi) {
    separate += window_of(*roi, bins, op).pixels();
    samples += num_samples(rois, *roi, op);
  }
  const double together = window_of(begin, end, bins, op).pixels();
  double interleaving = 0.2 * kMaxLanesOf<T> * together;
  const double pooling =
      kMaxLanesOf<T> * (0.2 * samples + 0.2 * op.bins() * (end - begin)) / op.plane_step();
  int64 parts = end - begin;
  if (op.position_sensitive || separate > together) {
    // Each work item interleaves its planes itself, so there are only enough of them to occupy the
    // threads.
    const double worth = std::min(4.0 * num_threads() / blocks, pooling / (4 * interleaving));
    parts = std::clamp<int64>((int64)worth, 1, parts);
    interleaving *= parts;
  } else {
    interleaving = 0.2 * kMaxLanesOf<T> * separate;
  }
  for (int channel = 0; channel < op.channels; channel += kMaxLanesOf<T>) {
    for (int bin = 0; bin < op.plane_step(); ++bin) {
      for (int64 p = 0; p < parts; ++p) {
        items.push_back({begin + (end - begin) * p / parts, begin + (end - begin) * (p + 1) / parts,
                         channel, bin});
      }
    }
  }
  return blocks * (interleaving + pooling);
}

}  // namespace

template <typename T>
void roi_align(const Cpu&, T* pooled, const T* data, const T* boxes, int64 num_rois, RoiAlign op) {
  const int64 bins = op.bins(), outputs = num_rois * op.channels * bins;
  if (outputs == 0) return;
  if ((int64)op.images * op.height * op.width == 0) return (void)std::fill_n(pooled, outputs, T(0));
  const bool streams = !op.position_sensitive && bins <= kMaxStaged &&
                       worth_streaming_parts((int64)sizeof(T) * outputs);
  const Forward<T> call = {data, pooled, op, find_rois(boxes, num_rois, op), streams};
  for (int64 n : call.rois.unknown) {
    std::fill_n(pooled + n * op.channels * bins, op.channels * bins, T(0));
  }
  std::vector<WorkItem<T>> items;
  double cost = 0;
  for_each_image(call.rois.known, [&](const Roi<T>* begin, const Roi<T>* end) {
    cost += add_items(items, call.rois, begin, end, op);
  });
  if (items.empty()) return;
  parallel_for((int64)items.size(), cost / (double)items.size(), [&](int64 w) {
    const int lanes = lanes_for<T>(op.channels - items[w].channel);
    with_pixel<T>(lanes, [&](auto type) __attribute__((always_inline)) {
      pool_item<typename decltype(type)::Of>(call, items[w]);
    });
  });
}

template void roi_align(const Cpu&, float*, const float*, const float*, int64, RoiAlign);
template void roi_align(const Cpu&, double*, const double*, const double*, int64, RoiAlign);

}  // namespace cvops
