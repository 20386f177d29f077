// psroi_pooling: mean in each bin of each RoI, where a bin has planes of its own; the gradient.
//
// Forward: a thread computes one bin for four output channels. Adjacent threads have adjacent
// bins, so that stores are coalesced. The planes of data that are in use fit into the L2 cache.
//
// Backward: a block has a tile of pixels of the planes of one cell, for some output channels, and a
// thread has one pixel. The block lists the bins that reach the tile, in order, and divides their
// gradients by their areas once. Each pixel then adds its bins in order, in registers. There are no
// atomic additions, and the order is MXNet's.
#pragma once
#include "psroi.cuh"

namespace cvops {

// Pixels of bin i, clamped to [0, limit).
CVOPS_HD Range psroi_bin_range(const PsroiAxis& axis, int i, int limit) {
  return {clamped(truncated(floorf((float)i * axis.bin + axis.begin)), limit),
          clamped(truncated(ceilf((float)(i + 1) * axis.bin + axis.begin)), limit)};
}

// Pixels of a bin.
struct PsroiBin {
  Range rows, columns;

  CVOPS_HD bool empty() const { return rows.begin >= rows.end || columns.begin >= columns.end; }
  CVOPS_HD float area() const {
    return (float)((rows.end - rows.begin) * (columns.end - columns.begin));
  }
};

CVOPS_HD PsroiBin psroi_bin(const float* roi, int row, int column, const Psroi& op) {
  return {psroi_bin_range(psroi_axis(roi[2], roi[4], 0.0f, op), row, op.height),
          psroi_bin_range(psroi_axis(roi[1], roi[3], 0.0f, op), column, op.width)};
}

}  // namespace cvops

CVOPS_KERNEL psroi_pooling(float* pooled, const float* data, const float* rois,
                           cvops::int64 num_rois, cvops::Psroi op);
CVOPS_KERNEL psroi_pooling_backward(float* grad, const float* out_grad, const float* rois,
                                    cvops::int64 num_rois, cvops::Psroi op);

#ifdef __CUDACC__
// pooled (num_rois, output_dim, pooled, pooled), data, rois (num_rois, 5). The x axis of the grid
// is bins of RoIs, the y axis is groups of kChannelsAtOnce channels.
extern "C" __global__ void __launch_bounds__(256, 3)
    psroi_pooling(float* __restrict__ pooled, const float* __restrict__ data,
                  const float* __restrict__ rois, long long num_rois, const cvops::Psroi op) {
  using namespace cvops;
  wait_for_earlier_launches();
  const int bins = op.bins(), pixels = op.pixels();
  const int plane = op.cells() * pixels;
  const int64 step = (int64)gridDim.x * blockDim.x;
  for (int64 at = (int64)blockIdx.x * blockDim.x + threadIdx.x; at < num_rois * bins; at += step) {
    const int64 number = at / bins;
    const int index = (int)(at - number * bins);
    const int i = index / op.pooled, j = index - i * op.pooled;
    const float* const roi = rois + 5 * number;
    const int image = psroi_image(roi, op);
    PsroiBin bin = psroi_bin(roi, i, j, op);
    if (image < 0) bin.rows.end = bin.rows.begin;
    const bool empty = bin.empty();
    for (int channel = (int)blockIdx.y * kChannelsAtOnce; channel < op.output_dim;
         channel += (int)gridDim.y * kChannelsAtOnce) {
      const int channels = min(op.output_dim - channel, kChannelsAtOnce);
      float sums[kChannelsAtOnce] = {};
      if (!empty) {
        const float* const first = data + op.plane(image, channel, op.cell_of_bin(i, j)) * pixels;
#pragma unroll 1
        for (int row = bin.rows.begin; row < bin.rows.end; ++row) {
#pragma unroll 1
          for (int column = bin.columns.begin; column < bin.columns.end; ++column) {
            const float* from = first + row * op.width + column;
#pragma unroll
            for (int n = 0; n < kChannelsAtOnce; ++n) {
              sums[n] += *from;
              if (n + 1 < channels) from += plane;
            }
          }
        }
#pragma unroll
        for (int n = 0; n < kChannelsAtOnce; ++n) sums[n] /= bin.area();
      }
      float* to = pooled + (number * op.output_dim + channel) * bins + index;
#pragma unroll
      for (int n = 0; n < kChannelsAtOnce; ++n) {
        if (n >= channels) break;
        *to = sums[n];
        to += bins;
      }
    }
  }
}

// grad: the shape of data; out_grad (num_rois, output_dim, pooled, pooled); rois (num_rois, 5). A
// work item is a PsroiTile. Blocks have kPsroiThreads threads. The planes that no bin reads are not
// written.
extern "C" __global__ void __launch_bounds__(256, 3)
    psroi_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                           const float* __restrict__ rois, long long num_rois,
                           const cvops::Psroi op) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ PsroiTile tile;
  __shared__ PsroiBin found[kPsroiThreads];  // bins that reach the tile
  __shared__ int64 from[kPsroiThreads];      // indices of their gradients for the first channel
  __shared__ float weighted[kPsroiThreads][kPsroiChannels];  // the gradients by the areas
  __shared__ int in_warp[kPsroiThreads / 32];                // numbers of such bins
  const int me = (int)threadIdx.x;
  const int64 items = (int64)op.images * ceil_div(op.output_dim, kPsroiChannels) * op.cells() *
                      ceil_div(op.height, kPsroiTile) * ceil_div(op.width, kPsroiTile);
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    if (me == 0) tile.set(item, op.output_dim, op);
    __syncthreads();
    const int channels = tile.channels;
    const int bins = tile.num_bins(), bin_columns = tile.bin_columns.end - tile.bin_columns.begin;
    const int row = tile.pixel_rows.begin + me / kPsroiTile;
    const int column = tile.pixel_columns.begin + me % kPsroiTile;
    float sums[kPsroiChannels] = {};
    // A candidate is a bin of the cell in an RoI.
    for (int64 first = 0; first < num_rois * bins; first += kPsroiThreads) {
      PsroiBin bin = {};
      int64 out = 0;
      bool reaches = false;
      if (first + me < num_rois * bins) {
        const int64 number = (first + me) / bins;
        const int index = (int)(first + me - number * bins);
        const int i = tile.bin_rows.begin + index / bin_columns;
        const int j = tile.bin_columns.begin + index % bin_columns;
        const float* const roi = rois + 5 * number;
        bin = psroi_bin(roi, i, j, op);
        out = (number * op.output_dim + tile.channel) * op.bins() + i * op.pooled + j;
        reaches = psroi_image(roi, op) == tile.image && !bin.empty() &&
                  intersect(bin.rows, tile.pixel_rows) &&
                  intersect(bin.columns, tile.pixel_columns);
      }
      int num;
      const int at = number_in_block(reaches, in_warp, num);
      if (reaches) {
        found[at] = bin;
        from[at] = out;
      }
      __syncthreads();
      for (int k = me; k < num * kPsroiChannels; k += kPsroiThreads) {
        const int n = k % kPsroiChannels, b = k / kPsroiChannels;
        if (n < channels) weighted[b][n] = out_grad[from[b] + n * op.bins()] / found[b].area();
      }
      __syncthreads();
#pragma unroll 1
      for (int b = 0; b < num; ++b) {
        if (!contains(found[b].rows, row) || !contains(found[b].columns, column)) continue;
#pragma unroll
        for (int n = 0; n < kPsroiChannels; ++n) sums[n] += weighted[b][n];
      }
      __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < kPsroiChannels; ++n) {
      if (n >= channels || row >= op.height || column >= op.width) break;
      const int plane = op.plane(tile.image, tile.channel + n, tile.cell);
      grad[(plane * op.height + row) * op.width + column] = sums[n];
    }
    __syncthreads();
  }
}
#endif
