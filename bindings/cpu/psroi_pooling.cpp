#include "psroi_pooling.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "interleaved.h"
#include "parallel.h"
#include "simd.h"
#include "staged_bins.h"

namespace cvops {

using namespace cpu;

namespace {

struct Roi {
  int64 number;
  int image;
};

// All RoIs, and the edges of their bins, computed once for all channels.
struct Rois {
  std::vector<Range> rows, columns;  // (num_rois, pooled)
  std::vector<Roi> known;            // ordered by image
  std::vector<int64> unknown;        // RoIs whose image does not exist
};

void add_rois(Rois& out, const float* rois, int64 num_rois, const Psroi& op) {
  for (int64 n = 0; n < num_rois; ++n) {
    const float* const roi = rois + 5 * n;
    const int image = psroi_image(roi, op);
    if (image < 0) {
      out.unknown.push_back(n);
      continue;
    }
    const PsroiAxis y = psroi_axis(roi[2], roi[4], 0.0f, op);
    const PsroiAxis x = psroi_axis(roi[1], roi[3], 0.0f, op);
    for (int i = 0; i < op.pooled; ++i) {
      out.rows[n * op.pooled + i] = psroi_bin_range(y, i, op.height);
      out.columns[n * op.pooled + i] = psroi_bin_range(x, i, op.width);
    }
    out.known.push_back({n, image});
  }
}

Rois find_rois(const float* boxes, int64 num_rois, const Psroi& op) {
  Rois rois;
  rois.rows.resize(num_rois * op.pooled);
  rois.columns.resize(num_rois * op.pooled);
  rois.known.reserve(num_rois);
  add_rois(rois, boxes, num_rois, op);
  auto before = [](const Roi& a, const Roi& b) { return a.image < b.image; };
  if (!std::is_sorted(rois.known.begin(), rois.known.end(), before)) {
    std::stable_sort(rois.known.begin(), rois.known.end(), before);
  }
  return rois;
}

// RoIs of one image.
struct RoiList {
  const Roi *begin = nullptr, *end = nullptr;
};

// A call in either direction. `planes` is data or its gradient, `pooled` the result or its
// gradient.
template <typename Planes, typename Pooled>
struct Call {
  Planes* planes;
  Pooled* pooled;
  Psroi op;
  Rois rois;

  // First of the planes of a work item; the others are plane_pitch() elements apart.
  Planes* plane(int image, int channel, int cell) const {
    return planes + (int64)op.plane(image, channel, cell) * op.pixels();
  }
  int64 plane_pitch() const { return (int64)op.cells() * op.pixels(); }
  Pooled* output(int64 roi, int channel) const {
    return pooled + (roi * op.output_dim + channel) * op.bins();
  }

  PsroiBin bin(int64 roi, int i, int j) const {
    return {rois.rows[roi * op.pooled + i], rois.columns[roi * op.pooled + j]};
  }

  std::vector<RoiList> lists() const {
    std::vector<RoiList> of_image(op.images);
    const Roi* const last = rois.known.data() + rois.known.size();
    for (const Roi *begin = rois.known.data(), *end = begin; begin < last; begin = end) {
      while (end < last && end->image == begin->image) ++end;
      of_image[begin->image] = {begin, end};
    }
    return of_image;
  }
};
using Forward = Call<const float, float>;
using Backward = Call<float, const float>;

// Bins of a cell.
struct Bins {
  Range rows, columns;
};

CVOPS_INLINE Bins bins_of_cell(int cell, const Psroi& op) {
  return {op.bins_of_cell(cell / op.group), op.bins_of_cell(cell % op.group)};
}

// Calls body(bin, index) for each bin of an RoI that has pixels.
template <typename Call, typename Body>
CVOPS_INLINE void for_each_bin(const Call& call, int64 roi, const Bins& bins, const Body& body) {
  for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
    for (int j = bins.columns.begin; j < bins.columns.end; ++j) {
      body(call.bin(roi, i, j), i * call.op.pooled + j);
    }
  }
}

// Window of the pixels of the bins, and the number of pixels of all bins.
template <typename Call>
CVOPS_INLINE Window window_of(const Call& call, const RoiList& list, const Bins& bins,
                              double& pixels) {
  Window window = {};
  pixels = 0;
  for (const Roi* roi = list.begin; roi < list.end; ++roi) {
    for_each_bin(call, roi->number, bins, [&](const PsroiBin& bin, int) {
      if (bin.empty()) return;
      window = bounds_of(window, {bin.rows, bin.columns});
      pixels += bin.area();
    });
  }
  return window;
}

template <typename P>
struct Planes {
  Window window;
  P* pixels;
};

template <typename P>
CVOPS_INLINE void copy_planes(const Planes<P>& planes, const float* first, int64 pitch, int width,
                              int channels) {
  interleave<4>(planes.pixels, first, pitch, width, planes.window, channels);
}

// Pools the bins of a cell for all RoIs of the list, from interleaved planes.
template <typename P>
CVOPS_INLINE void pool(const Forward& call, const RoiList& list, const Bins& bins,
                       const Planes<P>& planes, const StagedBins& staged, int64 group) {
  const int64 pitch = planes.window.columns.end - planes.window.columns.begin;
  for (const Roi* roi = list.begin; roi < list.end; ++roi) {
    for_each_bin(call, roi->number, bins,
                 [&](const PsroiBin& bin, int index) __attribute__((always_inline)) {
                   P sum = {};
                   if (!bin.empty()) {
                     const int width = bin.columns.end - bin.columns.begin;
                     const P* from =
                         planes.pixels + planes.window.index(bin.rows.begin, bin.columns.begin);
                     for (int row = bin.rows.begin; row < bin.rows.end; ++row, from += pitch) {
                       for (int i = 0; i < width; ++i) {
                         for (int v = 0; v < P::kVectors; ++v) sum.of[v] += from[i].of[v];
                       }
                     }
                     typename P::V area;
                     fill(area, bin.area());
                     for (int v = 0; v < P::kVectors; ++v) sum.of[v] /= area;
                   }
                   staged.at<P>(group, index, roi->number) = sum;
                 });
  }
}

// Pools without interleaved planes, for few bins.
void pool_separately(const Forward& call, const RoiList& list, const Bins& bins,
                     const float* planes, int channels, const StagedBins& staged, int64 group) {
  for (const Roi* roi = list.begin; roi < list.end; ++roi) {
    for_each_bin(call, roi->number, bins, [&](const PsroiBin& bin, int index) {
      float* const to = staged.lanes_of(group, index, roi->number);
      for (int k = 0; k < channels; ++k) {
        const float* const plane = planes + k * call.plane_pitch();
        float sum = 0.0f;
        for (int row = bin.rows.begin; row < bin.rows.end; ++row) {
          const float* const from = plane + (int64)row * call.op.width;
          for (int i = bin.columns.begin; i < bin.columns.end; ++i) sum += from[i];
        }
        to[k] = bin.empty() ? 0.0f : sum / bin.area();
      }
    });
  }
}

void pool_item(const Forward& call, const RoiList& list, int image, int64 group, int cell,
               const StagedBins& staged, int lanes) {
  const Psroi& op = call.op;
  const int channel = (int)group * lanes;
  const int channels = std::min(lanes, op.output_dim - channel);
  const Bins bins = bins_of_cell(cell, op);
  const float* const first = call.plane(image, channel, cell);
  double pixels;
  const Window window = window_of(call, list, bins, pixels);
  const int64 area = window.pixels();
  if (4 * pixels < area) {
    return pool_separately(call, list, bins, first, channels, staged, group);
  }
  with_pixel(lanes, [&](auto type) __attribute__((always_inline)) {
    using P = typename decltype(type)::Of;
    const std::unique_ptr<P[]> memory(new P[area]);
    const Planes<P> planes = {window, memory.get()};
    copy_planes(planes, first, call.plane_pitch(), op.width, channels);
    pool(call, list, bins, planes, staged, group);
  });
}

// Adds the gradients of the bins of a cell to the sums of their pixels.
template <typename P>
CVOPS_INLINE void add_gradients(const Backward& call, const RoiList& list, const Bins& bins,
                                const Planes<P>& sums, int channel, int channels) {
  const int64 pitch = sums.window.columns.end - sums.window.columns.begin;
  const int num_bins = call.op.bins();
  P top = {};
  for (const Roi* roi = list.begin; roi < list.end; ++roi) {
    const float* const from = call.output(roi->number, channel);
    for_each_bin(call, roi->number, bins,
                 [&](const PsroiBin& bin, int index) __attribute__((always_inline)) {
                   if (bin.empty()) return;
                   for (int k = 0; k < channels; ++k)
                     ((float*)&top)[k] = from[(int64)k * num_bins + index];
                   typename P::V area;
                   fill(area, bin.area());
                   P part;
                   for (int v = 0; v < P::kVectors; ++v) part.of[v] = top.of[v] / area;
                   const int width = bin.columns.end - bin.columns.begin;
                   P* to = sums.pixels + sums.window.index(bin.rows.begin, bin.columns.begin);
                   for (int row = bin.rows.begin; row < bin.rows.end; ++row, to += pitch) {
                     for (int i = 0; i < width; ++i) {
                       for (int v = 0; v < P::kVectors; ++v) to[i].of[v] += part.of[v];
                     }
                   }
                 });
  }
}

template <typename P>
CVOPS_INLINE void add_gradients_of_item(const Backward& call, const RoiList& list, int image,
                                        int channel, int cell) {
  const Psroi& op = call.op;
  const int channels = std::min(P::kLanes, op.output_dim - channel);
  const Bins bins = bins_of_cell(cell, op);
  const int64 pitch = call.plane_pitch();
  float* const grad = call.plane(image, channel, cell);
  double pixels;
  const Window window = window_of(call, list, bins, pixels);
  const int64 area = window.pixels();
  if (area < op.pixels()) {
    for (int k = 0; k < channels; ++k) std::fill_n(grad + k * pitch, op.pixels(), 0.0f);
  }
  if (area == 0) return;
  const std::unique_ptr<P[]> memory(new P[area]());
  const Planes<P> sums = {window, memory.get()};
  add_gradients(call, list, bins, sums, channel, channels);
  write_planes(grad, sums.pixels, window, pitch, op.width, channels);
}

}  // namespace

void psroi_pooling(const Cpu&, float* pooled, const float* data, const float* boxes, int64 num_rois,
                   Psroi op) {
  const int64 of_roi = (int64)op.output_dim * op.bins();
  if (num_rois * of_roi == 0) return;
  if ((int64)op.images * op.pixels() == 0) {
    return (void)std::fill_n(pooled, num_rois * of_roi, 0.0f);
  }
  const Forward call = {data, pooled, op, find_rois(boxes, num_rois, op)};
  for (int64 n : call.rois.unknown) std::fill_n(pooled + n * of_roi, of_roi, 0.0f);
  std::vector<RoiList> lists = call.lists();
  const int lanes = lanes_for(op.output_dim);
  const int64 groups = ceil_div(op.output_dim, lanes), per_image = groups * op.cells();
  const StagedBins staged(groups, op.bins(), num_rois, lanes);
  const double rois_of_image = (double)num_rois / op.images;
  const double cost = lanes * (rois_of_image * op.bins() / op.cells() * 3 + 0.2 * op.pixels());
  parallel_for(op.images * per_image, cost, [&](int64 item) {
    const int image = (int)(item / per_image), cell = (int)(item % op.cells());
    const int64 group = item % per_image / op.cells();
    const RoiList& list = lists[image];
    if (list.begin == list.end) return;
    pool_item(call, list, image, group, cell, staged, lanes);
  });
  parallel_for((int64)call.rois.known.size(), 0.3 * of_roi, [&](int64 k) {
    const int64 n = call.rois.known[k].number;
    for (int64 group = 0; group < groups; ++group) {
      const int channel = (int)group * lanes;
      staged.write(call.output(n, channel), group, n, std::min(lanes, op.output_dim - channel));
    }
  });
}

void psroi_pooling_backward(const Cpu&, float* grad, const float* out_grad, const float* boxes,
                            int64 num_rois, Psroi op) {
  if ((int64)op.images * op.channels * op.pixels() == 0) return;
  const Backward call = {grad, out_grad, op, find_rois(boxes, num_rois, op)};
  std::vector<RoiList> lists = call.lists();
  const int64 unused = op.channels - op.used_channels();
  for (int image = 0; unused > 0 && image < op.images; ++image) {
    std::fill_n(grad + ((int64)image * op.channels + op.used_channels()) * op.pixels(),
                unused * op.pixels(), 0.0f);
  }
  const int lanes = lanes_for(op.output_dim);
  const int64 groups = ceil_div(op.output_dim, lanes), per_image = groups * op.cells();
  const double rois_of_image = (double)num_rois / op.images;
  const double cost = lanes * (rois_of_image * op.bins() / op.cells() * 5 + 0.4 * op.pixels());
  parallel_for(op.images * per_image, cost, [&](int64 item) {
    const int image = (int)(item / per_image), cell = (int)(item % op.cells());
    const int channel = (int)(item % per_image / op.cells()) * lanes;
    with_pixel(lanes, [&](auto type) __attribute__((always_inline)) {
      add_gradients_of_item<typename decltype(type)::Of>(call, lists[image], image, channel, cell);
    });
  });
}

}  // namespace cvops
