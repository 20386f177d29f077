// roi_align: mean of bilinear samples in the bins of an RoI, and the gradient.
//
// Forward: a thread computes one bin for four channels. It derives the samples from the RoI, so
// there is no table whose size depends on the data. If the planes fit, a block keeps those of four
// channels of an image in shared memory, and processes all RoIs of the image.
//
// Backward: a block has a tile of pixels of some channels, and a thread has one pixel. All RoIs
// that reach the tile are processed in order. For each of its rows and columns, threads first find
// the samples that may touch it. Each pixel then adds its samples in order, in registers. There are
// no atomic additions, and the order is MXNet's.
#pragma once
#include "aligned_roi.cuh"
#include "warp.cuh"

namespace cvops {

// Sizes of the backward kernel. kGradTile: side of a tile. kGradRois: RoIs at once, so that each of
// the kGradTile^2 threads has one row or column of a tile and an RoI.
constexpr int kGradTile = CVOPS_STEP(16, 8);
constexpr int kGradThreads = kGradTile * kGradTile, kGradRois = kGradTile / 2;
constexpr int kGradChannels = 8;  // of a thread

}  // namespace cvops

CVOPS_KERNEL roi_align(float* pooled, const float* data, const float* rois, cvops::int64 num_rois,
                       cvops::RoiAlign op, int splits, int in_shared);
CVOPS_KERNEL roi_align_f64(double* pooled, const double* data, const double* rois,
                           cvops::int64 num_rois, cvops::RoiAlign op, int splits, int in_shared);
CVOPS_KERNEL roi_align_backward(float* grad, const float* out_grad, const float* rois,
                                cvops::int64 num_rois, cvops::RoiAlign op);
CVOPS_KERNEL roi_align_backward_f64(double* grad, const double* out_grad, const double* rois,
                                    cvops::int64 num_rois, cvops::RoiAlign op);

#ifdef __CUDACC__
namespace cvops {

// Samples, in the order of bins, that may touch a pixel: from sample `first` of bin `first_bin` to
// sample `last` of bin `last_bin`. There are none if first_bin > last_bin.
struct __align__(16) SampleInterval {
  int first_bin, first, last_bin, last;
};

template <typename T>
__device__ __forceinline__ SampleInterval samples_touching(const RoiAlignAxisOf<T>& axis,
                                                           Range bins, int pixel) {
  // Positions from -1 to 0 touch the pixels 0 and 1.
  const T lower = pixel > 1 ? (T)(pixel - 1) : T(-1);
  SampleInterval found = {bins.end, 0, -1, 0};
#pragma unroll 1
  for (int i = bins.begin; i < bins.end; ++i) {
    const Range range = samples_between(axis, i, lower, (T)(pixel + 1));
    if (range.begin >= range.end) continue;
    if (found.last_bin < 0) {
      found.first_bin = i;
      found.first = range.begin;
    }
    found.last_bin = i;
    found.last = range.end - 1;
  }
  return found;
}

// Work item of the backward kernel: a tile of an image, and kGradChannels channels. If
// position-sensitive, also one bin.
struct GradTile {
  int image, channel;
  Range pixel_rows, pixel_columns;
  Range bin_rows, bin_columns;

  __device__ __forceinline__ void set(int64 item, const RoiAlign& op) {
    const int down = (int)ceil_div(op.height, kGradTile);
    const int across = (int)ceil_div(op.width, kGradTile);
    const int groups = (int)ceil_div(op.channels, kGradChannels);
    const int column = (int)(item % across);
    item /= across;
    const int row = (int)(item % down);
    item /= down;
    const int bin = (int)(item % op.plane_step());
    item /= op.plane_step();
    channel = (int)(item % groups) * kGradChannels;
    image = (int)(item / groups);
    pixel_rows = {row * kGradTile, row * kGradTile + kGradTile};
    pixel_columns = {column * kGradTile, column * kGradTile + kGradTile};
    bin_rows = {0, op.pooled_height};
    bin_columns = {0, op.pooled_width};
    if (op.position_sensitive) {
      bin_rows = {bin / op.pooled_width, bin / op.pooled_width + 1};
      bin_columns = {bin % op.pooled_width, bin % op.pooled_width + 1};
    }
  }

  template <typename T>
  __device__ __forceinline__ bool touched_by(const AlignedRoiOf<T>& roi, const RoiAlign& op) const {
    return roi.image == image &&
           intersect(touched_pixels(roi.y, bin_rows, op.height), pixel_rows) &&
           intersect(touched_pixels(roi.x, bin_columns, op.width), pixel_columns);
  }
};

// Adds the gradients of an RoI to the sums of the pixel (row, column). out_grad begins at the
// RoI's first of `channels` channels.
template <typename T>
__device__ __forceinline__ void add_samples(T (&sums)[kGradChannels],
                                            const T* __restrict__ out_grad, int channels,
                                            const AlignedRoiOf<T>& roi, const SampleInterval& rows,
                                            const SampleInterval& columns, int row, int column,
                                            const RoiAlign& op) {
#pragma unroll 1
  for (int i = rows.first_bin; i <= rows.last_bin; ++i) {
    const int k_begin = i == rows.first_bin ? rows.first : 0;
    const int k_end = i == rows.last_bin ? rows.last + 1 : roi.y.samples;
#pragma unroll 1
    for (int j = columns.first_bin; j <= columns.last_bin; ++j) {
      const int l_begin = j == columns.first_bin ? columns.first : 0;
      const int l_end = j == columns.last_bin ? columns.last + 1 : roi.x.samples;
      const T* from = out_grad + i * op.pooled_width + j;
      T top[kGradChannels];
#pragma unroll
      for (int n = 0; n < kGradChannels; ++n) {
        top[n] = *from;
        if (n + 1 < channels) from += op.bins();
      }
#pragma unroll 1
      for (int k = k_begin; k < k_end; ++k) {
        const AxisSampleOf<T> y = axis_sample(roi.y.position(i, k), op.height);
        if (!y.touches(row)) continue;
#pragma unroll 1
        for (int l = l_begin; l < l_end; ++l) {
          const AxisSampleOf<T> x = axis_sample(roi.x.position(j, l), op.width);
          if (!x.touches(column)) continue;
          const T weight = y.weight(row) * x.weight(column);
          // At the edge of the map, both pixels of an axis are the same one. The second one has a
          // weight of 0, which matters for an infinite gradient only.
          const bool twice = y.low == y.high || x.low == x.high;
#pragma unroll
          for (int n = 0; n < kGradChannels; ++n) {
            sums[n] += divided(top[n] * weight, roi.count);
            if (twice) sums[n] += top[n] * 0.0f;
          }
        }
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ void align_rois(T* __restrict__ pooled, const T* __restrict__ data,
                                           const T* __restrict__ rois, int64 num_rois,
                                           const RoiAlign& op, int splits, int in_shared,
                                           ValuesOf<T>* planes) {
  auto find = [&](int64 number) { return aligned_roi(rois + 5 * number, op); };
  align_bins(pooled, data, num_rois, op, splits, in_shared, planes, find);
}

template <typename T>
__device__ __forceinline__ void add_tiles(T* __restrict__ grad, const T* __restrict__ out_grad,
                                          const T* __restrict__ rois, int64 num_rois,
                                          const RoiAlign& op) {
  __shared__ SampleInterval intervals[kGradRois][2 * kGradTile];  // of rows, then of columns
  __shared__ GradTile tile;
  __shared__ AlignedRoiOf<T> shared_rois[kGradRois];
  __shared__ int found[kGradThreads];         // RoIs that reach the tile, relative to the first
  __shared__ int in_warp[kGradThreads / 32];  // numbers of such RoIs
  const int me = (int)threadIdx.x, lane = me % 32;
  const int64 items = (int64)op.images * ceil_div(op.channels, kGradChannels) * op.plane_step() *
                      ceil_div(op.height, kGradTile) * ceil_div(op.width, kGradTile);
  for (int64 item = blockIdx.x; item < items; item += gridDim.x) {
    if (me == 0) tile.set(item, op);
    __syncthreads();
    const int channels = min(op.channels - tile.channel, kGradChannels);
    const int row = tile.pixel_rows.begin + me / kGradTile;
    const int column = tile.pixel_columns.begin + me % kGradTile;
    T sums[kGradChannels] = {};
    for (int64 first = 0; first < num_rois; first += kGradThreads) {
      const bool reaches =
          first + me < num_rois && tile.touched_by(aligned_roi(rois + 5 * (first + me), op), op);
      const uint32 lanes = __ballot_sync(kWarp, reaches);
      if (lane == 0) in_warp[me / 32] = __popc(lanes);
      __syncthreads();
      int num = 0, at = lanes_before(lanes, lane);
#pragma unroll
      for (int warp = 0; warp < kGradThreads / 32; ++warp) {
        if (warp < me / 32) at += in_warp[warp];
        num += in_warp[warp];
      }
      if (reaches) found[at] = me;
      __syncthreads();
      for (int begin = 0; begin < num; begin += kGradRois) {
        const int end = min(begin + kGradRois, num), line = me % (2 * kGradTile);
        const int mine = begin + me / (2 * kGradTile);
        if (mine < end) {
          const AlignedRoiOf<T> roi = aligned_roi(rois + 5 * (first + found[mine]), op);
          if (line == 0) shared_rois[mine - begin] = roi;
          intervals[mine - begin][line] =
              line < kGradTile
                  ? samples_touching(roi.y, tile.bin_rows, tile.pixel_rows.begin + line)
                  : samples_touching(roi.x, tile.bin_columns,
                                     tile.pixel_columns.begin + line - kGradTile);
        }
        __syncthreads();
        for (int n = begin; n < end; ++n) {
          const int64 number = first + found[n];
          const SampleInterval& rows = intervals[n - begin][me / kGradTile];
          const SampleInterval& columns = intervals[n - begin][kGradTile + me % kGradTile];
          if (rows.first_bin > rows.last_bin || columns.first_bin > columns.last_bin) continue;
          add_samples(sums, out_grad + (number * op.channels + tile.channel) * op.bins(), channels,
                      shared_rois[n - begin], rows, columns, row, column, op);
        }
        __syncthreads();
      }
    }
    const int bin = tile.bin_rows.begin * op.pooled_width + tile.bin_columns.begin;
#pragma unroll
    for (int n = 0; n < kGradChannels; ++n) {
      if (n >= channels || row >= op.height || column >= op.width) break;
      const int plane = op.plane(tile.image, tile.channel + n, bin);
      grad[(plane * op.height + row) * op.width + column] = sums[n];
    }
    __syncthreads();
  }
}

}  // namespace cvops

// pooled (num_rois, channels, pooled_height, pooled_width), data, rois (num_rois, 5). See
// align_bins. The planes of data are not empty.
extern "C" __global__ void __launch_bounds__(256, 3)
    roi_align(float* __restrict__ pooled, const float* __restrict__ data,
              const float* __restrict__ rois, long long num_rois, const cvops::RoiAlign op,
              int splits, int in_shared) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(cvops::Values, planes);
  cvops::align_rois(pooled, data, rois, num_rois, op, splits, in_shared, planes);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    roi_align_f64(double* __restrict__ pooled, const double* __restrict__ data,
                  const double* __restrict__ rois, long long num_rois, const cvops::RoiAlign op,
                  int splits, int in_shared) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(cvops::ValuesOf<double>, planes_f64);
  cvops::align_rois(pooled, data, rois, num_rois, op, splits, in_shared, planes_f64);
}

// grad: the shape of data; out_grad (num_rois, channels, pooled_height, pooled_width); rois
// (num_rois, 5). A work item is a GradTile. Blocks have kGradThreads threads.
extern "C" __global__ void __launch_bounds__(256, 3)
    roi_align_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                       const float* __restrict__ rois, long long num_rois,
                       const cvops::RoiAlign op) {
  cvops::wait_for_earlier_launches();
  cvops::add_tiles(grad, out_grad, rois, num_rois, op);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    roi_align_backward_f64(double* __restrict__ grad, const double* __restrict__ out_grad,
                           const double* __restrict__ rois, long long num_rois,
                           const cvops::RoiAlign op) {
  cvops::wait_for_earlier_launches();
  cvops::add_tiles(grad, out_grad, rois, num_rois, op);
}
#endif
