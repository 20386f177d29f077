#include "roi_align.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "interleaved.h"
#include "nontemporal.h"
#include "parallel.h"
#include "simd.h"

namespace cvops {

using namespace cpu;

namespace {

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
Bins bins_of_plane(int bin, const RoiAlign& op) {
  if (!op.position_sensitive) return {{0, op.pooled_height}, {0, op.pooled_width}};
  const int row = bin / op.pooled_width, column = bin % op.pooled_width;
  return {{row, row + 1}, {column, column + 1}};
}

template <typename T>
Window window_of(const Roi<T>& roi, const Bins& bins, const RoiAlign& op) {
  return {touched_pixels(roi.axes.y, bins.rows, op.height),
          touched_pixels(roi.axes.x, bins.columns, op.width)};
}

template <typename T>
Window window_of(const Roi<T>* begin, const Roi<T>* end, const Bins& bins, const RoiAlign& op) {
  Window window = {};
  for (const Roi<T>* roi = begin; roi < end; ++roi) {
    window = bounds_of(window, window_of(*roi, bins, op));
  }
  return window;
}

// Work item: some RoIs of one image; kLanesOf<T> channels or the rest; the first bin of their
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
template <int kVectors, typename T>
struct Planes {
  Window window;
  Pixel<kVectors, T>* pixels;

  Pixel<kVectors, T>* row(int row) const { return pixels + window.index(row, 0); }
};

// Mean of the samples of a bin. `first` has the products of 0 and the first pixel of each plane.
template <int kVectors, typename T>
CVOPS_INLINE void mean_of_bin(Pixel<kVectors, T>& mean, const Planes<kVectors, T>& planes,
                              const Pixel<kVectors, T>& first, const AxisSampleOf<T>* samples,
                              const BinSamples& rows, const BinSamples& columns,
                              const SampleCountOf<T>& count) {
  Pixel<kVectors, T> sum = {};
  for (const AxisSampleOf<T>* y = samples + rows.begin; y < samples + rows.begin + rows.count;
       ++y) {
    const Pixel<kVectors, T>*const low = planes.row(y->low), *const high = planes.row(y->high);
    const AxisSampleOf<T>* const end = samples + columns.begin + columns.count;
    for (const AxisSampleOf<T>* x = samples + columns.begin; x < end; ++x) {
      VectorOf<T> a, b, c, d;
      fill(a, y->low_weight * x->low_weight);
      fill(b, y->low_weight * x->high_weight);
      fill(c, y->high_weight * x->low_weight);
      fill(d, y->high_weight * x->high_weight);
      for (int v = 0; v < kVectors; ++v) {
        sum.of[v] += a * low[x->low].of[v] + b * low[x->high].of[v] + c * high[x->low].of[v] +
                     d * high[x->high].of[v];
      }
    }
  }
  if (count.value == 0.0f) return (void)(mean = {});
  if (rows.outside || columns.outside) {
    for (int v = 0; v < kVectors; ++v) sum.of[v] += first.of[v];
  }
  for (int v = 0; v < kVectors; ++v) {
    mean.of[v] = count.reciprocal > 0 ? sum.of[v] * count.reciprocal : sum.of[v] / count.value;
  }
}

// Pools an RoI; the results of the work item begin at `to`. `staged` is a buffer for non-temporal
// stores, or null.
template <int kVectors, typename T>
void pool(const Forward<T>& call, T* to, const Roi<T>& roi, const Bins& bins,
          const Planes<kVectors, T>& planes, const Pixel<kVectors, T>& first, int channels,
          T* staged) {
  const RoiAlign& op = call.op;
  const AxisSampleOf<T>* const samples = call.rois.samples.data();
  T* const pooled = staged ? staged : to;
  Pixel<kVectors, T> means[kTile];
  int num = 0, begin = 0;
  for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
    const BinSamples rows = call.rois.rows[roi.number * op.pooled_height + i];
    for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
      const BinSamples columns = call.rois.columns[roi.number * op.pooled_width + j];
      if (num == 0) begin = i * op.pooled_width + j;
      mean_of_bin(means[num++], planes, first, samples, rows, columns, roi.axes.count);
      const bool last = i + 1 == bins.rows.end && j + 1 == bins.columns.end;
      if (num < kTile && !last) continue;
      transpose(pooled + begin, op.bins(), (const T*)means, kVectors * kWidthOf<T>, num, channels);
      num = 0;
    }
  }
  if (staged) stream(to, staged, (int64)channels * op.bins());
}

template <int kVectors, typename T>
void copy_planes(const Planes<kVectors, T>& planes, const T* first, int64 pitch, int width,
                 int channels) {
  interleave(planes.pixels, first, pitch, width, planes.window, channels);
}

template <int kVectors, typename T>
void pool_item(const Forward<T>& call, const WorkItem<T>& item) {
  const RoiAlign& op = call.op;
  const int channels = std::min(kVectors * kWidthOf<T>, op.channels - item.channel);
  const Bins bins = bins_of_plane(item.bin, op);
  const int64 num_bins = op.bins(), pitch = call.plane_pitch();
  const T* const data = call.plane(item.begin->axes.image, item);
  Planes<kVectors, T> planes = {window_of(item.begin, item.end, bins, op), nullptr};
  const int64 area = planes.window.pixels();
  const std::unique_ptr<Pixel<kVectors, T>[]> memory(
      new Pixel<kVectors, T>[area + (call.streams ? num_bins : 0)]);
  planes.pixels = memory.get();
  simd<copy_planes<kVectors, T>>(planes, data, pitch, op.width, channels);
  Pixel<kVectors, T> first = {};
  for (int k = 0; k < channels; ++k)
    first.of[k / kWidthOf<T>][k % kWidthOf<T>] = 0.0f * data[k * pitch];
  T* const staged = call.streams ? (T*)(memory.get() + area) : nullptr;
  for (const Roi<T>* roi = item.begin; roi < item.end; ++roi) {
    T* const to = call.pooled + (roi->number * op.channels + item.channel) * num_bins;
    simd<pool<kVectors, T>>(call, to, *roi, bins, planes, first, channels, staged);
  }
  if (call.streams) streamed();
}

// Adds a bin's gradient, times a weight and divided by the number of samples. `reciprocal` and
// `count` have the members of SampleCount.
template <int kVectors, typename T>
CVOPS_INLINE void add_weighted(Pixel<kVectors, T>& sum, const Pixel<kVectors, T>& top, T weight,
                               bool exact, const VectorOf<T>& reciprocal,
                               const VectorOf<T>& count) {
  VectorOf<T> weights;
  fill(weights, weight);
  for (int v = 0; v < kVectors; ++v) {
    const VectorOf<T> weighted = top.of[v] * weights;
    sum.of[v] += exact ? weighted * reciprocal : weighted / count;
  }
}

// Adds the gradients of the outputs of an RoI to the sums of their pixels. The gradients of the
// work item begin at `out_grad`.
template <int kVectors, typename T>
void add_gradients(const Planes<kVectors, T>& sums, const Backward<T>& call, const T* out_grad,
                   const Roi<T>& roi, const Bins& bins, int channels) {
  const RoiAlign& op = call.op;
  const bool exact = roi.axes.count.reciprocal > 0.0f;
  VectorOf<T> reciprocal, count;
  fill(reciprocal, roi.axes.count.reciprocal);
  fill(count, roi.axes.count.value);
  const AxisSampleOf<T>* const samples = call.rois.samples.data();
  const int last = (bins.rows.end - 1) * op.pooled_width + bins.columns.end;
  Pixel<kVectors, T> tops[kTile] = {};
  int begin = 0, end = 0;  // bins in `tops`
  for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
    const BinSamples rows = call.rois.rows[roi.number * op.pooled_height + i];
    for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
      const BinSamples columns = call.rois.columns[roi.number * op.pooled_width + j];
      const int bin = i * op.pooled_width + j;
      if (bin >= end) {
        begin = bin, end = std::min(bin + kTile, last);
        transpose((T*)tops, kVectors * kWidthOf<T>, out_grad + begin, op.bins(), channels,
                  end - begin);
      }
      const Pixel<kVectors, T> top = tops[bin - begin];
      for (int64 k = rows.begin; k < rows.begin + rows.count; ++k) {
        const AxisSampleOf<T> y = samples[k];
        Pixel<kVectors, T>*const low = sums.row(y.low), *const high = sums.row(y.high);
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

template <int kVectors, typename T>
void add_gradients_of_item(const Backward<T>& call, const WorkItem<T>& item, int image) {
  const RoiAlign& op = call.op;
  const int channels = std::min(kVectors * kWidthOf<T>, op.channels - item.channel);
  const Bins bins = bins_of_plane(item.bin, op);
  const int64 pixels = (int64)op.height * op.width, pitch = call.plane_pitch();
  T* const grad = call.plane(image, item);
  const Window window = window_of(item.begin, item.end, bins, op);
  const int64 area = window.pixels();
  if (area < pixels) {
    for (int k = 0; k < channels; ++k) std::fill_n(grad + k * pitch, pixels, T(0));
  }
  if (area == 0) return;
  const std::unique_ptr<Pixel<kVectors, T>[]> memory(new Pixel<kVectors, T>[area]());
  const Planes<kVectors, T> sums = {window, memory.get()};
  for (const Roi<T>* roi = item.begin; roi < item.end; ++roi) {
    const int64 from = (roi->number * op.channels + item.channel) * op.bins();
    simd<add_gradients<kVectors, T>>(sums, call, call.pooled + from, *roi, bins, channels);
  }
  simd<write_planes<kVectors, T>>(grad, sums.pixels, window, pitch, op.width, channels);
}

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

// Splits the RoIs of one image into work items and returns their cost in ns.
template <typename T>
double add_items(std::vector<WorkItem<T>>& items, const Rois<T>& rois, const Roi<T>* begin,
                 const Roi<T>* end, const RoiAlign& op) {
  const Bins bins = {{0, op.pooled_height}, {0, op.pooled_width}};
  const int64 blocks = ceil_div(op.channels, kLanesOf<T>) * op.plane_step();
  double separate = 0, samples = 0;
  for (const Roi<T>* roi = begin; roi < end; ++roi) {
    separate += window_of(*roi, bins, op).pixels();
    samples += num_samples(rois, *roi, op);
  }
  const double together = window_of(begin, end, bins, op).pixels();
  double interleaving = 0.2 * kLanesOf<T> * together;
  const double pooling =
      kLanesOf<T> * (0.2 * samples + 0.2 * op.bins() * (end - begin)) / op.plane_step();
  int64 parts = end - begin;
  if (op.position_sensitive || separate > together) {
    // Each work item interleaves its planes itself, so there are only enough of them to occupy the
    // threads.
    const double worth = std::min(4.0 * num_threads() / blocks, pooling / (4 * interleaving));
    parts = std::clamp<int64>((int64)worth, 1, parts);
    interleaving *= parts;
  } else {
    interleaving = 0.2 * kLanesOf<T> * separate;
  }
  for (int channel = 0; channel < op.channels; channel += kLanesOf<T>) {
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
    const int64 vectors = ceil_div(op.channels - items[w].channel, kWidthOf<T>);
    if (vectors > 2) return pool_item<4, T>(call, items[w]);
    if (vectors > 1) return pool_item<2, T>(call, items[w]);
    pool_item<1, T>(call, items[w]);
  });
}

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
  int lanes = kLanesOf<T>;
  while (lanes > kWidthOf<T> &&
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
    if (lanes > 2 * kWidthOf<T>) return add_gradients_of_item<4, T>(call, item, image);
    if (lanes > kWidthOf<T>) return add_gradients_of_item<2, T>(call, item, image);
    add_gradients_of_item<1, T>(call, item, image);
  });
}

#define CVOPS_INSTANTIATE(T)                                                    \
  template void roi_align(const Cpu&, T*, const T*, const T*, int64, RoiAlign); \
  template void roi_align_backward(const Cpu&, T*, const T*, const T*, int64, RoiAlign);
CVOPS_INSTANTIATE(float)
CVOPS_INSTANTIATE(double)

}  // namespace cvops
