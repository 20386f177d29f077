// The gradients of deformable_psroi_pooling.
#include <algorithm>
#include <memory>
#include <vector>

#include "deformed_bins.h"

namespace cvops {

using namespace cpu;
using namespace cpu::deformed;

namespace {

// Adds the gradients of the bins of a cell to the sums of their pixels.
template <typename P>
CVOPS_INLINE void add_gradients(const Backward& call, const std::vector<int64>& rois,
                                const WorkItem& item, P* sums) {
  const Psroi& op = call.op.psroi;
  const int num_bins = op.bins();
  Samples samples(call.op);
  P top = {};
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    if (samples.rows.empty() || samples.columns.empty()) return;
    const float* const from = call.output(n, item.channel) + index;
    for (int k = 0; k < item.channels; ++k) ((float*)&top)[k] = from[(int64)k * num_bins];
    typename P::V count;
    fill(count, samples.count());
    P part;
    for (int v = 0; v < P::kVectors; ++v) part.of[v] = top.of[v] / count;
    for (const AxisSample& y : samples.rows) {
      P* const low = sums + (int64)y.low * op.width;
      P* const high = sums + (int64)y.high * op.width;
      for (const AxisSample& x : samples.columns) {
        const Corners<float> weight = weights_of(y, x);
        auto add = [&](P& to, float w) __attribute__((always_inline)) {
          typename P::V weights;
          fill(weights, w);
          for (int v = 0; v < P::kVectors; ++v) to.of[v] += weights * part.of[v];
        };
        add(low[x.low], weight.a);
        add(high[x.low], weight.b);
        add(low[x.high], weight.c);
        add(high[x.high], weight.d);
      }
    }
  });
}

template <typename P>
CVOPS_INLINE void add_gradients_of_item(const Backward& call, const std::vector<int64>& rois,
                                        const WorkItem& item) {
  const Psroi& op = call.op.psroi;
  const int64 pitch = call.plane_pitch();
  float* const grad = call.plane(item.image, item.channel, item.cell);
  if (rois.empty()) {
    for (int k = 0; k < item.channels; ++k) std::fill_n(grad + k * pitch, op.pixels(), 0.0f);
    return;
  }
  const std::unique_ptr<P[]> sums(new P[op.pixels()]());
  add_gradients(call, rois, item, sums.get());
  const Window window = {{0, op.height}, {0, op.width}};
  write_planes(grad, sums.get(), window, pitch, op.width, item.channels);
}

// Maximum number of samples of a bin for add_offset_gradients_of_cell.
constexpr int kMaxTerms = 256;

// Adds the gradients of the offsets of the bins of a cell, of which each has its own offset. An
// offset adds all samples of a channel before the next channel, so the terms of a bin come first:
// the products of slopes and factors. `terms` has space for those of all samples of a bin, for each
// axis. `sums` has the offsets of each bin; they continue those of the previous channels.
template <typename P>
CVOPS_INLINE void add_offset_gradients_of_cell(const Forward& call, const float* out_grad,
                                               const std::vector<int64>& rois, const WorkItem& item,
                                               const P* pixels, P* terms, OfOffsets<float>* sums) {
  const DeformablePsroi& op = call.op;
  const Psroi& psroi = op.psroi;
  const int num_bins = psroi.bins();
  constexpr int kItemLanes = P::kLanes;
  P *const terms_x = terms, *const terms_y = terms + op.samples * op.samples;
  Samples samples(op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    OfOffsets<float>& sum = *sums++;
    if (samples.rows.empty() || samples.columns.empty()) return;
    const float* const roi = call.rois + 5 * n;
    const float height = psroi_axis(roi[2], roi[4], 0.5f, psroi).size;
    const float width = psroi_axis(roi[1], roi[3], 0.5f, psroi).size;
    const float* const from = out_grad + (n * psroi.output_dim + item.channel) * num_bins + index;
    P factors_x = {}, factors_y = {};
    for (int k = 0; k < item.channels; ++k) {
      const float top = from[(int64)k * num_bins] / samples.count();
      const OfOffsets<float> factors = slope_factors(top, height, width, op);
      ((float*)&factors_x)[k] = factors.x;
      ((float*)&factors_y)[k] = factors.y;
    }
    int num = 0;
    for (const AxisSample& y : samples.rows) {
      const P* const low = pixels + (int64)y.low * psroi.width;
      const P* const high = pixels + (int64)y.high * psroi.width;
      typename P::V y_low, y_high;
      fill(y_low, y.low_weight);
      fill(y_high, y.high_weight);
      for (const AxisSample& x : samples.columns) {
        typename P::V x_low, x_high;
        fill(x_low, x.low_weight);
        fill(x_high, x.high_weight);
        for (int v = 0; v < P::kVectors; ++v) {
          const typename P::V a = low[x.low].of[v], b = high[x.low].of[v];
          const typename P::V c = low[x.high].of[v], d = high[x.high].of[v];
          const typename P::V slope_x = d * y_high + c * y_low - b * y_high - a * y_low;
          const typename P::V slope_y = d * x_high + b * x_low - c * x_high - a * x_low;
          terms_x[num].of[v] = slope_x * factors_x.of[v];
          terms_y[num].of[v] = slope_y * factors_y.of[v];
        }
        ++num;
      }
    }
    const float* const of_x = (const float*)terms_x;
    const float* const of_y = (const float*)terms_y;
    OfOffsets<float> own = sum;
    for (int k = 0; k < item.channels; ++k) {
      for (int i = 0; i < num; ++i) {
        own.x += of_x[i * kItemLanes + k];
        own.y += of_y[i * kItemLanes + k];
      }
    }
    sum = own;
  });
}

// Gradients of the offsets of the bins of a cell, for all channels of a class.
template <typename P>
CVOPS_INLINE void offset_gradients_of_cell(float* trans_grad, const Forward& call,
                                           const float* out_grad, const std::vector<int64>& rois,
                                           WorkItem item) {
  const DeformablePsroi& op = call.op;
  const Psroi& psroi = op.psroi;
  const Bins bins = bins_of_cell(item.cell, psroi);
  if (rois.empty() || bins.num() == 0) return;
  std::vector<OfOffsets<float>> sums(rois.size() * bins.num());
  const int64 num_pixels = psroi.pixels(), num_terms = 2 * op.samples * op.samples;
  const std::unique_ptr<P[]> pixels(new P[num_pixels + num_terms]);
  P* const terms = pixels.get() + num_pixels;
  const int end = item.channel + op.channels_of_class();
  for (; item.channel < end; item.channel += P::kLanes) {
    item.channels = std::min(P::kLanes, end - item.channel);
    copy_planes(pixels.get(), call.plane(item.image, item.channel, item.cell), call.plane_pitch(),
                psroi.height, psroi.width, item.channels);
    add_offset_gradients_of_cell(call, out_grad, rois, item, pixels.get(), terms, sums.data());
  }
  const OfOffsets<float>* sum = sums.data();
  for (int64 n : rois) {
    for (int i = bins.rows.begin; i < bins.rows.end; ++i) {
      for (int j = bins.columns.begin; j < bins.columns.end; ++j, ++sum) {
        float* const to = trans_grad + op.offset_index(n, item.class_id, i, j);
        to[0] = sum->x;
        to[op.parts()] = sum->y;
      }
    }
  }
}

// True if each bin has an offset of its own.
bool own_offsets(const DeformablePsroi& op) {
  for (int i = 1; i < op.psroi.pooled; ++i) {
    if (op.part_of(i) == op.part_of(i - 1)) return false;
  }
  return true;
}

// Gradients of the offsets of one RoI and one class, for any options. The samples of its bins are
// computed once for all channels.
void add_offset_gradients(float* trans_grad, const float* out_grad, const float* data,
                          const float* rois, const float* trans, int64 number, int class_id,
                          const DeformablePsroi& op) {
  const Psroi& psroi = op.psroi;
  const int64 offset = (number * op.classes + class_id) * 2 * op.parts();
  float* const sums_x = trans_grad + offset;
  float* const sums_y = sums_x + op.parts();
  std::fill_n(sums_x, 2 * (int64)op.parts(), 0.0f);
  const float* const roi = rois + 5 * number;
  const int image = psroi_image(roi, psroi);
  if (image < 0) return;
  const float height = psroi_axis(roi[2], roi[4], 0.5f, psroi).size;
  const float width = psroi_axis(roi[1], roi[3], 0.5f, psroi).size;
  std::vector<Samples> samples;
  samples.reserve(psroi.bins());
  for (int i = 0; i < psroi.pooled; ++i) {
    for (int j = 0; j < psroi.pooled; ++j) {
      samples.emplace_back(op);
      samples.back().find(deformed_bin(roi, trans, number, class_id, i, j, op), op);
    }
  }
  for (int c = 0; c < op.channels_of_class(); ++c) {
    const int channel = class_id * op.channels_of_class() + c;
    const float* const tops = out_grad + (number * psroi.output_dim + channel) * psroi.bins();
    for (int i = 0; i < psroi.pooled; ++i) {
      for (int j = 0; j < psroi.pooled; ++j) {
        const Samples& of_bin = samples[i * psroi.pooled + j];
        if (of_bin.rows.empty() || of_bin.columns.empty()) continue;
        const float top = tops[i * psroi.pooled + j] / of_bin.count();
        const OfOffsets<float> factors = slope_factors(top, height, width, op);
        const float* const plane =
            data + (int64)psroi.plane(image, channel, psroi.cell_of_bin(i, j)) * psroi.pixels();
        const int part = op.part_of(i) * op.part + op.part_of(j);
        float sum_x = sums_x[part], sum_y = sums_y[part];
        for (const AxisSample& y : of_bin.rows) {
          const float* const low = plane + (int64)y.low * psroi.width;
          const float* const high = plane + (int64)y.high * psroi.width;
          for (const AxisSample& x : of_bin.columns) {
            const Corners<float> value = {low[x.low], high[x.low], low[x.high], high[x.high]};
            const OfOffsets<float> slopes = slopes_of(value, y, x);
            sum_x += slopes.x * factors.x;
            sum_y += slopes.y * factors.y;
          }
        }
        sums_x[part] = sum_x;
        sums_y[part] = sum_y;
      }
    }
  }
}

}  // namespace

void deformable_psroi_pooling_backward(const Cpu&, float* grad, float* trans_grad,
                                       const float* out_grad, const float* data, const float* rois,
                                       const float* trans, int64 num_rois, DeformablePsroi op) {
  const Psroi& psroi = op.psroi;
  if ((int64)psroi.images * psroi.channels * psroi.pixels() == 0) {
    if (trans_grad) std::fill_n(trans_grad, 2 * num_rois * op.classes * op.parts(), 0.0f);
    return;
  }
  const int64 unused = psroi.channels - psroi.used_channels();
  for (int image = 0; unused > 0 && image < psroi.images; ++image) {
    const int64 first = (int64)image * psroi.channels + psroi.used_channels();
    std::fill_n(grad + first * psroi.pixels(), unused * psroi.pixels(), 0.0f);
  }
  const RoiLists lists = rois_of_images(rois, num_rois, psroi);
  const Backward call = {grad, out_grad, rois, trans, op};
  for_each_item(op, num_rois, 0.6, 0.4, [&](const WorkItem& item, int lanes) {
    const std::vector<int64>& list = lists[item.image];
    with_pixel<float, kMaxWidthOfSums>(lanes, [&](auto type) __attribute__((always_inline)) {
      add_gradients_of_item<typename decltype(type)::Of>(call, list, item);
    });
  });
  if (!trans_grad) return;
  if (own_offsets(op) && op.samples * op.samples <= kMaxTerms) {
    std::fill_n(trans_grad, 2 * num_rois * op.classes * op.parts(), 0.0f);
    const Forward of_data = {data, nullptr, rois, trans, op};
    const int64 per_image = (int64)op.classes * psroi.cells();
    const double samples =
        (double)num_rois / psroi.images * psroi.bins() / psroi.cells() * op.samples * op.samples;
    const double cost = op.channels_of_class() * (2 * samples + 0.2 * psroi.pixels());
    parallel_for(psroi.images * per_image, cost, [&](int64 number) {
      const int image = (int)(number / per_image), cell = (int)(number % psroi.cells());
      const int class_id = (int)(number % per_image / psroi.cells());
      const WorkItem item = {image, class_id, class_id * op.channels_of_class(), 0, cell, 0};
      const std::vector<int64>& list = lists[image];
      with_pixel<float, kMaxWidthOfSums>(lanes_for(op.channels_of_class()),
                                         [&](auto type) __attribute__((always_inline)) {
                                           offset_gradients_of_cell<typename decltype(type)::Of>(
                                               trans_grad, of_data, out_grad, list, item);
                                         });
    });
    return;
  }
  const double cost = 6.0 * op.channels_of_class() * psroi.bins() * op.samples * op.samples;
  parallel_for(num_rois * op.classes, cost, [&](int64 number) {
    simd<add_offset_gradients>(trans_grad, out_grad, data, rois, trans, number / op.classes,
                               (int)(number % op.classes), op);
  });
}

}  // namespace cvops
