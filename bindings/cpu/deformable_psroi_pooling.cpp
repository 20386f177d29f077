#include "deformable_psroi_pooling.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "parallel.h"
#include "simd.h"
#include "staged_bins.h"

namespace cvops {

using namespace cpu;

namespace {

// RoIs of each image, in order.
using RoiLists = std::vector<std::vector<int64>>;

RoiLists rois_of_images(const float* rois, int64 num_rois, const Psroi& op) {
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
template <int kVectors>
void copy_planes(Pixel<kVectors>* pixels, const float* first, int64 pitch, int height, int width,
                 int channels) {
  auto same = [](Quad quad) __attribute__((always_inline)) { return quad; };
  interleave(pixels, first, pitch, width, {{0, height}, {0, width}}, channels, same);
}

// Pools the bins of a cell from interleaved planes.
template <int kVectors>
void pool(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
          const Pixel<kVectors>* pixels, const StagedBins& staged) {
  const Psroi& op = call.op.psroi;
  Samples samples(call.op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    Pixel<kVectors> sum = {};
    for (const AxisSample& y : samples.rows) {
      const Pixel<kVectors>* const low = pixels + (int64)y.low * op.width;
      const Pixel<kVectors>* const high = pixels + (int64)y.high * op.width;
      for (const AxisSample& x : samples.columns) {
        const Corners<float> weight = weights_of(y, x);
        FloatVector a, b, c, d;
        fill(a, weight.a);
        fill(b, weight.b);
        fill(c, weight.c);
        fill(d, weight.d);
        for (int v = 0; v < kVectors; ++v) {
          sum.of[v] += a * low[x.low].of[v] + b * high[x.low].of[v] + c * low[x.high].of[v] +
                       d * high[x.high].of[v];
        }
      }
    }
    const float num = samples.count();
    FloatVector count;
    fill(count, num > 0.0f ? num : 1.0f);
    for (int v = 0; v < kVectors; ++v) sum.of[v] /= count;
    staged.at<kVectors>(item.group, index, n) = sum;
  });
}

// Pools without interleaved planes, for few bins.
template <int kVectors>
void pool_separately(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
                     const StagedBins& staged) {
  const Psroi& op = call.op.psroi;
  const float* const first = call.plane(item.image, item.channel, item.cell);
  Samples samples(call.op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) {
    float* const to = (float*)&staged.at<kVectors>(item.group, index, n);
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

template <int kVectors>
void pool_item(const Forward& call, const std::vector<int64>& rois, const WorkItem& item,
               const StagedBins& staged) {
  const Psroi& op = call.op.psroi;
  const double reads =
      4.0 * call.op.samples * call.op.samples * bins_of_cell(item.cell, op).num() * rois.size();
  if (4 * reads < op.pixels()) return pool_separately<kVectors>(call, rois, item, staged);
  const std::unique_ptr<Pixel<kVectors>[]> pixels(new Pixel<kVectors>[op.pixels()]);
  simd<copy_planes<kVectors>>(pixels.get(), call.plane(item.image, item.channel, item.cell),
                              call.plane_pitch(), op.height, op.width, item.channels);
  simd<pool<kVectors>>(call, rois, item, pixels.get(), staged);
}

// Adds the gradients of the bins of a cell to the sums of their pixels.
template <int kVectors>
void add_gradients(const Backward& call, const std::vector<int64>& rois, const WorkItem& item,
                   Pixel<kVectors>* sums) {
  const Psroi& op = call.op.psroi;
  const int num_bins = op.bins();
  Samples samples(call.op);
  Pixel<kVectors> top = {};
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    if (samples.rows.empty() || samples.columns.empty()) return;
    const float* const from = call.output(n, item.channel) + index;
    for (int k = 0; k < item.channels; ++k) ((float*)&top)[k] = from[(int64)k * num_bins];
    FloatVector count;
    fill(count, samples.count());
    Pixel<kVectors> part;
    for (int v = 0; v < kVectors; ++v) part.of[v] = top.of[v] / count;
    for (const AxisSample& y : samples.rows) {
      Pixel<kVectors>* const low = sums + (int64)y.low * op.width;
      Pixel<kVectors>* const high = sums + (int64)y.high * op.width;
      for (const AxisSample& x : samples.columns) {
        const Corners<float> weight = weights_of(y, x);
        auto add = [&](Pixel<kVectors>& to, float w) __attribute__((always_inline)) {
          FloatVector weights;
          fill(weights, w);
          for (int v = 0; v < kVectors; ++v) to.of[v] += weights * part.of[v];
        };
        add(low[x.low], weight.a);
        add(high[x.low], weight.b);
        add(low[x.high], weight.c);
        add(high[x.high], weight.d);
      }
    }
  });
}

template <int kVectors>
void add_gradients_of_item(const Backward& call, const std::vector<int64>& rois,
                           const WorkItem& item) {
  const Psroi& op = call.op.psroi;
  const int64 pitch = call.plane_pitch();
  float* const grad = call.plane(item.image, item.channel, item.cell);
  if (rois.empty()) {
    for (int k = 0; k < item.channels; ++k) std::fill_n(grad + k * pitch, op.pixels(), 0.0f);
    return;
  }
  const std::unique_ptr<Pixel<kVectors>[]> sums(new Pixel<kVectors>[op.pixels()]());
  simd<add_gradients<kVectors>>(call, rois, item, sums.get());
  const Window window = {{0, op.height}, {0, op.width}};
  simd<write_planes<kVectors, float>>(grad, sums.get(), window, pitch, op.width, item.channels);
}

// Maximum number of samples of a bin for add_offset_gradients_of_cell.
constexpr int kMaxTerms = 256;

// Products of slopes and factors of the samples of a bin, for some channels.
template <int kVectors>
struct Terms {
  Pixel<kVectors> of_x[kMaxTerms], of_y[kMaxTerms];
};

// Adds the gradients of the offsets of the bins of a cell, of which each has its own offset. An
// offset adds all samples of a channel before the next channel, so the terms of a bin come first.
// `sums` has the offsets of each bin; they continue those of the previous channels.
template <int kVectors>
void add_offset_gradients_of_cell(const Forward& call, const float* out_grad,
                                  const std::vector<int64>& rois, const WorkItem& item,
                                  const Pixel<kVectors>* pixels, Terms<kVectors>& terms,
                                  OfOffsets<float>* sums) {
  const DeformablePsroi& op = call.op;
  const Psroi& psroi = op.psroi;
  const int num_bins = psroi.bins();
  constexpr int kItemLanes = kVectors * kWidth;
  Samples samples(op);
  for_each_bin(call, rois, item, samples, [&](int64 n, int index) __attribute__((always_inline)) {
    OfOffsets<float>& sum = *sums++;
    if (samples.rows.empty() || samples.columns.empty()) return;
    const float* const roi = call.rois + 5 * n;
    const float height = psroi_axis(roi[2], roi[4], 0.5f, psroi).size;
    const float width = psroi_axis(roi[1], roi[3], 0.5f, psroi).size;
    const float* const from = out_grad + (n * psroi.output_dim + item.channel) * num_bins + index;
    Pixel<kVectors> factors_x = {}, factors_y = {};
    for (int k = 0; k < item.channels; ++k) {
      const float top = from[(int64)k * num_bins] / samples.count();
      const OfOffsets<float> factors = slope_factors(top, height, width, op);
      ((float*)&factors_x)[k] = factors.x;
      ((float*)&factors_y)[k] = factors.y;
    }
    int num = 0;
    for (const AxisSample& y : samples.rows) {
      const Pixel<kVectors>* const low = pixels + (int64)y.low * psroi.width;
      const Pixel<kVectors>* const high = pixels + (int64)y.high * psroi.width;
      FloatVector y_low, y_high;
      fill(y_low, y.low_weight);
      fill(y_high, y.high_weight);
      for (const AxisSample& x : samples.columns) {
        FloatVector x_low, x_high;
        fill(x_low, x.low_weight);
        fill(x_high, x.high_weight);
        for (int v = 0; v < kVectors; ++v) {
          const FloatVector a = low[x.low].of[v], b = high[x.low].of[v];
          const FloatVector c = low[x.high].of[v], d = high[x.high].of[v];
          const FloatVector slope_x = d * y_high + c * y_low - b * y_high - a * y_low;
          const FloatVector slope_y = d * x_high + b * x_low - c * x_high - a * x_low;
          terms.of_x[num].of[v] = slope_x * factors_x.of[v];
          terms.of_y[num].of[v] = slope_y * factors_y.of[v];
        }
        ++num;
      }
    }
    const float* const of_x = (const float*)terms.of_x;
    const float* const of_y = (const float*)terms.of_y;
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
template <int kVectors>
void offset_gradients_of_cell(float* trans_grad, const Forward& call, const float* out_grad,
                              const std::vector<int64>& rois, WorkItem item) {
  const DeformablePsroi& op = call.op;
  const Psroi& psroi = op.psroi;
  const Bins bins = bins_of_cell(item.cell, psroi);
  if (rois.empty() || bins.num() == 0) return;
  std::vector<OfOffsets<float>> sums(rois.size() * bins.num());
  const std::unique_ptr<Pixel<kVectors>[]> pixels(new Pixel<kVectors>[psroi.pixels()]);
  const std::unique_ptr<Terms<kVectors>> terms(new Terms<kVectors>);
  const int end = item.channel + op.channels_of_class();
  for (; item.channel < end; item.channel += kVectors * kWidth) {
    item.channels = std::min(kVectors * kWidth, end - item.channel);
    simd<copy_planes<kVectors>>(pixels.get(), call.plane(item.image, item.channel, item.cell),
                                call.plane_pitch(), psroi.height, psroi.width, item.channels);
    simd<add_offset_gradients_of_cell<kVectors>>(call, out_grad, rois, item, pixels.get(), *terms,
                                                 sums.data());
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

// Channels of a class in groups, one per lane.
struct Groups {
  int of_class, lanes, num;

  explicit Groups(const DeformablePsroi& op) : of_class(op.channels_of_class()) {
    const int64 vectors = ceil_div(of_class, kWidth);
    lanes = kWidth * (vectors > 2 ? kMaxVectors : vectors > 1 ? 2 : 1);
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
    if (lanes > 2 * kWidth) return pool_item<4>(call, list, item, staged);
    if (lanes > kWidth) return pool_item<2>(call, list, item, staged);
    pool_item<1>(call, list, item, staged);
  });
  parallel_for(num_rois, 0.3 * of_roi, [&](int64 n) {
    if (psroi_image(rois + 5 * n, psroi) < 0) return;
    for (int group = 0; group < op.classes * groups.num; ++group) {
      staged.write(call.output(n, groups.first(group)), group, n, groups.channels(group));
    }
  });
}

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
    if (lanes > 2 * kWidth) return add_gradients_of_item<4>(call, list, item);
    if (lanes > kWidth) return add_gradients_of_item<2>(call, list, item);
    add_gradients_of_item<1>(call, list, item);
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
      const int64 vectors = ceil_div(op.channels_of_class(), kWidth);
      if (vectors > 2) {
        return offset_gradients_of_cell<4>(trans_grad, of_data, out_grad, list, item);
      }
      if (vectors > 1) {
        return offset_gradients_of_cell<2>(trans_grad, of_data, out_grad, list, item);
      }
      offset_gradients_of_cell<1>(trans_grad, of_data, out_grad, list, item);
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
