// deformable_psroi_pooling: mean of bilinear samples in position-sensitive bins that learned
// offsets move, and the gradients.
//
// Forward: a thread computes one bin for four output channels, as in psroi_pooling.
//
// Gradient of data: a block has a tile of pixels of the planes of one cell, for some channels of a
// class, and a thread has one pixel. The block lists the bins that reach the tile, in order. Each
// pixel then adds the samples that touch it, in registers. Gradient of the offsets: a thread has
// one part of an RoI, and adds its samples in order. There are no atomic additions, and the orders
// are MXNet's.
#pragma once
#include "psroi.cuh"
#include "roi_samples.cuh"

namespace cvops {

// Sizes and options. A grid of part x part parts divides an RoI. Each part has an offset for each
// class, a fraction of the RoI's size times `trans_std`: trans (RoIs, classes, 2, part, part), the
// offset of x first. Output channels are in `classes` classes of equal size.
struct DeformablePsroi {
  Psroi psroi;
  int part, samples;  // samples of a bin along each axis
  float trans_std;
  int classes;

  CVOPS_HD int channels_of_class() const { return psroi.output_dim / classes; }
  CVOPS_HD int parts() const { return part * part; }
  // Part of bin i along an axis. It rises with i.
  CVOPS_HD int part_of(int i) const {
    return clamped((int)floorf((float)i / (float)psroi.pooled * (float)part), part - 1);
  }
  CVOPS_HD Range bins_of_part(int p) const {
    auto of_bin = [&](int i) { return part_of(i); };
    return {first_of(psroi.pooled, p, of_bin), first_of(psroi.pooled, p + 1, of_bin)};
  }
  // Index in trans of the offset of x; that of y comes parts() elements later.
  CVOPS_HD int64 offset_index(int64 roi, int class_id, int row, int column) const {
    return (roi * classes + class_id) * 2 * parts() + part_of(row) * part + part_of(column);
  }
};

// Samples of a bin along an axis, which begin at its begin.
struct DeformedAxis {
  float begin, step;

  // Position of sample k. It rises with k.
  CVOPS_HD float position(int k) const { return begin + (float)k * step; }
};

CVOPS_HD DeformedAxis deformed_axis(const PsroiAxis& axis, int i, float offset,
                                    const DeformablePsroi& op) {
  float begin = (float)i * axis.bin + axis.begin;
  begin += offset * axis.size;
  return {begin, axis.bin / (float)op.samples};
}

// Linear interpolation. Positions up to half a pixel outside have the value of the edge.
CVOPS_HD AxisSample deformed_sample(float position, int size) {
  if (!(position >= -0.5f && position <= (float)size - 0.5f)) return {-1, -1, 0.0f, 0.0f};
  position = smaller(larger(position, 0.0f), (float)(size - 1));
  const float low = floorf(position), weight = position - low;
  return {(int)low, (int)ceilf(position), 1.0f - weight, weight};
}

// Number of samples in the map.
CVOPS_HD int samples_inside(const DeformedAxis& axis, int size, const DeformablePsroi& op) {
  int num = 0;
  for (int k = 0; k < op.samples; ++k) num += deformed_sample(axis.position(k), size).inside();
  return num;
}

// Range of pixels that includes all pixels that samples touch.
CVOPS_HD Range touched_pixels(const DeformedAxis& axis, int size, const DeformablePsroi& op) {
  const float first = axis.position(0), last = axis.position(op.samples - 1);
  if (!(last >= -0.5f && first <= (float)size - 0.5f)) return {0, 0};
  return {(int)larger(first, 0.0f), (int)ceilf(smaller(larger(last, 0.0f), (float)(size - 1))) + 1};
}

// Samples of a bin along both axes.
struct DeformedBin {
  DeformedAxis y, x;

  CVOPS_HD float count(const DeformablePsroi& op) const {
    return (float)(samples_inside(y, op.psroi.height, op) * samples_inside(x, op.psroi.width, op));
  }
};

// Bin (i, j) of an RoI; trans may be null.
CVOPS_HD DeformedBin deformed_bin(const float* roi, const float* trans, int64 number, int class_id,
                                  int i, int j, const DeformablePsroi& op) {
  float offset_x = 0.0f, offset_y = 0.0f;
  if (trans) {
    const float* const offset = trans + op.offset_index(number, class_id, i, j);
    offset_x = offset[0] * op.trans_std;
    offset_y = offset[op.parts()] * op.trans_std;
  }
  return {deformed_axis(psroi_axis(roi[2], roi[4], 0.5f, op.psroi), i, offset_y, op),
          deformed_axis(psroi_axis(roi[1], roi[3], 0.5f, op.psroi), j, offset_x, op)};
}

// Four pixels of a sample: a (y.low, x.low), b (y.high, x.low), c (y.low, x.high), d (y.high,
// x.high). All sums have this order.
template <typename T>
struct Corners {
  T a, b, c, d;
};

CVOPS_HD Corners<float> weights_of(const AxisSample& y, const AxisSample& x) {
  return {x.low_weight * y.low_weight, x.low_weight * y.high_weight, x.high_weight * y.low_weight,
          x.high_weight * y.high_weight};
}

// A value for the offset of x, and one for that of y.
template <typename T>
struct OfOffsets {
  T x, y;
};

// Slopes along the axes at a sample.
template <typename T>
CVOPS_HD OfOffsets<T> slopes_of(const Corners<T>& value, const AxisSample& y, const AxisSample& x) {
  return {value.d * y.high_weight + value.c * y.low_weight - value.b * y.high_weight -
              value.a * y.low_weight,
          value.d * x.high_weight + value.b * x.low_weight - value.c * x.high_weight -
              value.a * x.low_weight};
}

// Factors of the slopes for samples with the gradient `top`, and for an RoI of a size.
CVOPS_HD OfOffsets<float> slope_factors(float top, float height, float width,
                                        const DeformablePsroi& op) {
  return {op.trans_std * top * width, op.trans_std * top * height};
}

}  // namespace cvops

CVOPS_KERNEL deformable_psroi_pooling(float* pooled, const float* data, const float* rois,
                                      const float* trans, cvops::int64 num_rois,
                                      cvops::DeformablePsroi op);
CVOPS_KERNEL deformable_psroi_pooling_backward(float* grad, const float* out_grad,
                                               const float* rois, const float* trans,
                                               cvops::int64 num_rois, cvops::DeformablePsroi op);
CVOPS_KERNEL deformable_psroi_pooling_offsets(float* trans_grad, const float* out_grad,
                                              const float* data, const float* rois,
                                              const float* trans, cvops::int64 num_rois,
                                              cvops::DeformablePsroi op);

#ifdef __CUDACC__
// pooled (num_rois, output_dim, pooled, pooled), data, rois (num_rois, 5); trans or null. The x
// axis of the grid is bins of RoIs, the y axis is groups of kChannelsAtOnce channels of a class.
extern "C" __global__ void __launch_bounds__(256, 3)
    deformable_psroi_pooling(float* __restrict__ pooled, const float* __restrict__ data,
                             const float* __restrict__ rois, const float* __restrict__ trans,
                             long long num_rois, const cvops::DeformablePsroi op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const Psroi& psroi = op.psroi;
  const int bins = psroi.bins(), pixels = psroi.pixels(), of_class = op.channels_of_class();
  const int plane = psroi.cells() * pixels;
  const int groups_of_class = (of_class - 1) / kChannelsAtOnce + 1;
  const int64 step = (int64)gridDim.x * blockDim.x;
  for (int64 at = (int64)blockIdx.x * blockDim.x + threadIdx.x; at < num_rois * bins; at += step) {
    const int64 number = at / bins;
    const int index = (int)(at - number * bins);
    const int i = index / psroi.pooled, j = index - i * psroi.pooled;
    const float* const roi = rois + 5 * number;
    const int image = psroi_image(roi, psroi);
    for (int group = (int)blockIdx.y; group < groups_of_class * op.classes;
         group += (int)gridDim.y) {
      const int class_id = group / groups_of_class;
      const int in_class = (group - class_id * groups_of_class) * kChannelsAtOnce;
      const int channel = class_id * of_class + in_class;
      const int channels = min(of_class - in_class, kChannelsAtOnce);
      float sums[kChannelsAtOnce] = {};
      int count = 0;
      if (image >= 0) {
        const DeformedBin bin = deformed_bin(roi, trans, number, class_id, i, j, op);
        const float* const first =
            data + psroi.plane(image, channel, psroi.cell_of_bin(i, j)) * pixels;
#pragma unroll 1
        for (int k = 0; k < op.samples; ++k) {
          const AxisSample y = deformed_sample(bin.y.position(k), psroi.height);
          if (!y.inside()) continue;
#pragma unroll 1
          for (int l = 0; l < op.samples; ++l) {
            const AxisSample x = deformed_sample(bin.x.position(l), psroi.width);
            if (!x.inside()) continue;
            ++count;
            const Corners<float> weight = weights_of(y, x);
            const float* low = first + y.low * psroi.width;
            const float* high = first + y.high * psroi.width;
#pragma unroll
            for (int n = 0; n < kChannelsAtOnce; ++n) {
              sums[n] += weight.a * low[x.low] + weight.b * high[x.low] + weight.c * low[x.high] +
                         weight.d * high[x.high];
              if (n + 1 < channels) {
                low += plane;
                high += plane;
              }
            }
          }
        }
      }
      float* to = pooled + (number * psroi.output_dim + channel) * bins + index;
#pragma unroll
      for (int n = 0; n < kChannelsAtOnce; ++n) {
        if (n >= channels) break;
        *to = count ? sums[n] / (float)count : 0.0f;
        to += bins;
      }
    }
  }
}

// grad: the shape of data; out_grad (num_rois, output_dim, pooled, pooled); rois (num_rois, 5);
// trans or null. A work item is a PsroiTile. Blocks have kPsroiThreads threads. The planes that no
// bin reads are not written.
extern "C" __global__ void __launch_bounds__(256, 3)
    deformable_psroi_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                                      const float* __restrict__ rois,
                                      const float* __restrict__ trans, long long num_rois,
                                      const cvops::DeformablePsroi op) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ PsroiTile tile;
  __shared__ DeformedBin found[kPsroiThreads];                   // bins that reach the tile
  __shared__ Range rows[kPsroiThreads], columns[kPsroiThreads];  // of the pixels that they touch
  __shared__ float counts[kPsroiThreads];
  __shared__ int64 from[kPsroiThreads];  // indices of their gradients for the first channel
  __shared__ float tops[kPsroiThreads][kPsroiChannels];  // the gradients by the counts
  __shared__ int in_warp[kPsroiThreads / 32];
  const Psroi& psroi = op.psroi;
  const int me = (int)threadIdx.x, of_class = op.channels_of_class();
  const int64 items = (int64)psroi.images * ceil_div(of_class, kPsroiChannels) * op.classes *
                      psroi.cells() * ceil_div(psroi.height, kPsroiTile) *
                      ceil_div(psroi.width, kPsroiTile);
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    if (me == 0) tile.set(item, of_class, psroi);
    __syncthreads();
    const int channels = tile.channels, class_id = tile.channel / of_class;
    const int bins = tile.num_bins(), bin_columns = tile.bin_columns.end - tile.bin_columns.begin;
    const int row = tile.pixel_rows.begin + me / kPsroiTile;
    const int column = tile.pixel_columns.begin + me % kPsroiTile;
    float sums[kPsroiChannels] = {};
    // A candidate is a bin of the cell in an RoI.
    for (int64 first = 0; first < num_rois * bins; first += kPsroiThreads) {
      DeformedBin bin = {};
      Range bin_pixel_rows = {0, 0}, bin_pixel_columns = {0, 0};
      int64 out = 0;
      bool reaches = false;
      if (first + me < num_rois * bins) {
        const int64 number = (first + me) / bins;
        const int index = (int)(first + me - number * bins);
        const int i = tile.bin_rows.begin + index / bin_columns;
        const int j = tile.bin_columns.begin + index % bin_columns;
        const float* const roi = rois + 5 * number;
        if (psroi_image(roi, psroi) == tile.image) {
          bin = deformed_bin(roi, trans, number, class_id, i, j, op);
          bin_pixel_rows = touched_pixels(bin.y, psroi.height, op);
          bin_pixel_columns = touched_pixels(bin.x, psroi.width, op);
          out = (number * psroi.output_dim + tile.channel) * psroi.bins() + i * psroi.pooled + j;
          reaches = intersect(bin_pixel_rows, tile.pixel_rows) &&
                    intersect(bin_pixel_columns, tile.pixel_columns);
        }
      }
      int num;
      const int at = number_in_block(reaches, in_warp, num);
      if (reaches) {
        found[at] = bin;
        rows[at] = bin_pixel_rows;
        columns[at] = bin_pixel_columns;
        counts[at] = bin.count(op);
        from[at] = out;
      }
      __syncthreads();
      for (int k = me; k < num * kPsroiChannels; k += kPsroiThreads) {
        const int n = k % kPsroiChannels, b = k / kPsroiChannels;
        if (n < channels) tops[b][n] = out_grad[from[b] + n * psroi.bins()] / counts[b];
      }
      __syncthreads();
#pragma unroll 1
      for (int b = 0; b < num; ++b) {
        if (!contains(rows[b], row) || !contains(columns[b], column)) continue;
#pragma unroll 1
        for (int k = 0; k < op.samples; ++k) {
          const AxisSample y = deformed_sample(found[b].y.position(k), psroi.height);
          if (!y.touches(row)) continue;
#pragma unroll 1
          for (int l = 0; l < op.samples; ++l) {
            const AxisSample x = deformed_sample(found[b].x.position(l), psroi.width);
            if (!x.touches(column)) continue;
            const float weight = x.weight(column) * y.weight(row);
            // At an integer position, both pixels of an axis are the same one. The second one has a
            // weight of 0, which matters for an infinite gradient only.
            const bool twice = y.low == y.high || x.low == x.high;
#pragma unroll
            for (int n = 0; n < kPsroiChannels; ++n) {
              sums[n] += weight * tops[b][n];
              if (twice) sums[n] += 0.0f * tops[b][n];
            }
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < kPsroiChannels; ++n) {
      if (n >= channels || row >= psroi.height || column >= psroi.width) break;
      const int plane = psroi.plane(tile.image, tile.channel + n, tile.cell);
      grad[(plane * psroi.height + row) * psroi.width + column] = sums[n];
    }
    __syncthreads();
  }
}

// trans_grad, trans (num_rois, classes, 2, part, part); out_grad (num_rois, output_dim, pooled,
// pooled); data; rois (num_rois, 5). A thread has the offsets of a part.
extern "C" __global__ void __launch_bounds__(256, 3)
    deformable_psroi_pooling_offsets(float* __restrict__ trans_grad,
                                     const float* __restrict__ out_grad,
                                     const float* __restrict__ data, const float* __restrict__ rois,
                                     const float* __restrict__ trans, long long num_rois,
                                     const cvops::DeformablePsroi op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const Psroi& psroi = op.psroi;
  const int of_class = op.channels_of_class(), pixels = psroi.pixels();
  const int64 step = (int64)gridDim.x * blockDim.x, num = num_rois * op.classes * op.parts();
  for (int64 at = (int64)blockIdx.x * blockDim.x + threadIdx.x; at < num; at += step) {
    const int64 group = at / op.parts(), number = group / op.classes;
    const int class_id = (int)(group - number * op.classes);
    const int part = (int)(at - group * op.parts());
    const Range bin_rows = op.bins_of_part(part / op.part);
    const Range bin_columns = op.bins_of_part(part % op.part);
    const float* const roi = rois + 5 * number;
    const int image = psroi_image(roi, psroi);
    const float height = psroi_axis(roi[2], roi[4], 0.5f, psroi).size;
    const float width = psroi_axis(roi[1], roi[3], 0.5f, psroi).size;
    float sum_x = 0.0f, sum_y = 0.0f;
#pragma unroll 1
    for (int c = 0; c < of_class && image >= 0; ++c) {
      const int channel = class_id * of_class + c;
#pragma unroll 1
      for (int i = bin_rows.begin; i < bin_rows.end; ++i) {
#pragma unroll 1
        for (int j = bin_columns.begin; j < bin_columns.end; ++j) {
          const DeformedBin bin = deformed_bin(roi, trans, number, class_id, i, j, op);
          const float count = bin.count(op);
          if (!(count > 0.0f)) continue;
          const int64 out =
              (number * psroi.output_dim + channel) * psroi.bins() + i * psroi.pooled + j;
          const OfOffsets<float> factors = slope_factors(out_grad[out] / count, height, width, op);
          const float* const plane =
              data + psroi.plane(image, channel, psroi.cell_of_bin(i, j)) * pixels;
#pragma unroll 1
          for (int k = 0; k < op.samples; ++k) {
            const AxisSample y = deformed_sample(bin.y.position(k), psroi.height);
            if (!y.inside()) continue;
            const float* const low = plane + y.low * psroi.width;
            const float* const high = plane + y.high * psroi.width;
#pragma unroll 1
            for (int l = 0; l < op.samples; ++l) {
              const AxisSample x = deformed_sample(bin.x.position(l), psroi.width);
              if (!x.inside()) continue;
              const Corners<float> value = {low[x.low], high[x.low], low[x.high], high[x.high]};
              const OfOffsets<float> slopes = slopes_of(value, y, x);
              sum_x += slopes.x * factors.x;
              sum_y += slopes.y * factors.y;
            }
          }
        }
      }
    }
    float* const to = trans_grad + group * 2 * op.parts() + part;
    to[0] = sum_x;
    to[op.parts()] = sum_y;
  }
}
#endif
