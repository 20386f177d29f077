// roi_pooling: the maximum in each bin of each region of interest (RoI), and the gradient.
//
// Forward: a thread takes one bin of an RoI and pools kChannelsAtOnce channels. Adjacent threads
// have adjacent bins, so that stores are coalesced.
//
// - roi_pooling, the textbook kernel, for all sizes: a thread computes the edges of its bin and
//   reads the channels of a group from global memory.
// - roi_pooling_staged, the shared-memory version: a block copies kChannelsAtOnce planes of an
//   image, interleaved by pixel. One load then gets a pixel of all planes. It also stores the
//   maximum of each pixel and its right neighbor, which halves the loads per bin. The block
//   computes the bin edges once for all threads. It processes all RoIs of its image, or one split
//   of them. It pays if planes fit into shared memory and are read often.
//
// Backward: gradients are added at the argmax in MXNet's order, RoI by RoI, bin by bin. A block
// takes one channel of some images. Its sums are in shared memory if they fit. It processes the
// outputs in order, kRounds per thread at a time. Each pixel has an owner: the only thread that
// adds to it. The order is therefore MXNet's without float atomics. Each warp groups its 32 outputs
// by owner (__match_any_sync). One lane per owner stores the lane mask and flags the group. The
// owner then iterates over its groups, and over the lanes of each group, in order.
#pragma once
#include "roi.cuh"
#include "roi_pooling_backward.cuh"
#include "roi_pooling_shared.cuh"

CVOPS_KERNEL roi_pooling(float* pooled, int* argmax, const float* data, const float* rois,
                         cvops::int64 num_rois, cvops::RoiPooling op, int group, int with_argmax);
CVOPS_KERNEL roi_pooling_staged(float* pooled, int* argmax, const float* data, const float* rois,
                                cvops::int64 num_rois, cvops::RoiPooling op, int splits,
                                int at_once, int with_argmax);
CVOPS_KERNEL roi_pooling_f64(double* pooled, int* argmax, const double* data, const double* rois,
                             cvops::int64 num_rois, cvops::RoiPooling op, int group,
                             int with_argmax);
CVOPS_KERNEL roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                                  cvops::int64 num_rois, int bins, int images, int channels,
                                  int pixels, int group, int in_shared);
CVOPS_KERNEL roi_pooling_backward_f64(double* grad, const double* out_grad, const int* argmax,
                                      cvops::int64 num_rois, int bins, int images, int channels,
                                      int pixels, int group, int in_shared);

#ifdef __CUDACC__
namespace cvops {

// The textbook version.
template <typename T>
__device__ __forceinline__ void pool_bins(T* __restrict__ pooled, int* __restrict__ argmax,
                                          const T* __restrict__ data, const T* __restrict__ rois,
                                          int64 num_rois, const RoiPooling& op, int group,
                                          int with_argmax) {
  const int bins = op.pooled_height * op.pooled_width, pixels = op.height * op.width;
  const int groups = (op.channels - 1) / group + 1;
  // Threads beyond the last complete set of bins are idle.
  const int side_by_side = bins < (int)blockDim.x ? (int)blockDim.x / bins : 1;
  const int first_channel = bins < (int)blockDim.x ? (int)threadIdx.x / bins : 0;
  if (first_channel >= side_by_side) return;
  for (int64 item = blockIdx.x; item < num_rois * groups; item += gridDim.x) {
    const int64 roi = item / groups;
    const int begin = (int)(item - roi * groups) * group;
    const int count = op.channels - begin < group ? op.channels - begin : group;
    const T* r = rois + 5 * roi;
    const int image = truncated(r[0]);
    const bool known = image >= 0 && image < op.images;
    const RoiAxisOf<T> y = roi_axis(r[2], r[4], op.scale, op.pooled_height);
    const RoiAxisOf<T> x = roi_axis(r[1], r[3], op.scale, op.pooled_width);
    for (int64 bin = (int)threadIdx.x - first_channel * bins; bin < bins; bin += blockDim.x) {
      const int row = (int)bin / op.pooled_width, column = (int)bin - row * op.pooled_width;
      Range rows = bin_range(y, row, op.height), columns = bin_range(x, column, op.width);
      if (!known) rows.end = rows.begin;
      for (int c = first_channel; c < count; c += kChannelsAtOnce * side_by_side) {
        const T* planes[kChannelsAtOnce];
        int channel[kChannelsAtOnce], at[kChannelsAtOnce];
        T best[kChannelsAtOnce];
#pragma unroll
        for (int k = 0; k < kChannelsAtOnce; ++k) {
          // Beyond the last channel: channel c again, which is not stored.
          channel[k] = begin + (c + k * side_by_side < count ? c + k * side_by_side : c);
          planes[k] = data + (known ? (image * op.channels + channel[k]) * pixels : 0);
        }
        max_of_bin(planes, rows, columns, op.width, best, at);
#pragma unroll
        for (int k = 0; k < kChannelsAtOnce; ++k) {
          if (c + k * side_by_side >= count) break;
          const int64 out = (roi * op.channels + channel[k]) * bins + bin;
          pooled[out] = best[k];
          if (with_argmax) argmax[out] = at[k] < 0 ? -1 : (int)(planes[k] - data) + at[k];
        }
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ void add_outputs_of_items(T* __restrict__ grad,
                                                     const T* __restrict__ out_grad,
                                                     const int* __restrict__ argmax, int64 num_rois,
                                                     int bins, int images, int channels, int pixels,
                                                     int group, int in_shared,
                                                     StagingBuffer<T>* staging) {
  T* const own_sums = (T*)(staging + 1);
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  for (int i = me; i < kOwners<T>; i += threads) staging->groups[i] = 0;
  __syncthreads();
  const int groups = (images - 1) / group + 1;
  for (uint32 item = blockIdx.x; item < (uint32)(channels * groups); item += gridDim.x) {
    const int channel = (int)item % channels, first = (int)item / channels * group;
    const int last = images - first < group ? images : first + group;
    const ChannelPlanes own = {channels, pixels, channel, first, last};
    for (int image = first; image < last; ++image) {
      T* const to = in_shared ? own_sums + (image - first) * pixels
                              : grad + (image * channels + channel) * pixels;
      for (int64 i = me; i < pixels; i += threads) to[i] = T(0);
    }
    if (!in_shared) {
      add_outputs<false>(grad, *staging, out_grad, argmax, num_rois, bins, own);
      continue;
    }
    add_outputs<true>(own_sums, *staging, out_grad, argmax, num_rois, bins, own);
    for (int image = first; image < last; ++image) {
      T* const to = grad + (image * channels + channel) * pixels;
      for (int i = me; i < pixels; i += threads) to[i] = own_sums[(image - first) * pixels + i];
    }
  }
}
}  // namespace cvops

// The textbook kernel. pooled (num_rois, channels, pooled_height, pooled_width); argmax: the same
// shape, not written unless `with_argmax`; data; rois (num_rois, 5). A work item is an RoI with
// `group` channels.
extern "C" __global__ void __launch_bounds__(256)
    roi_pooling(float* __restrict__ pooled, int* __restrict__ argmax,
                const float* __restrict__ data, const float* __restrict__ rois, long long num_rois,
                const cvops::RoiPooling op, int group, int with_argmax) {
  cvops::wait_for_earlier_launches();
  cvops::pool_bins(pooled, argmax, data, rois, num_rois, op, group, with_argmax);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    roi_pooling_f64(double* __restrict__ pooled, int* __restrict__ argmax,
                    const double* __restrict__ data, const double* __restrict__ rois,
                    long long num_rois, const cvops::RoiPooling op, int group, int with_argmax) {
  cvops::wait_for_earlier_launches();
  cvops::pool_bins(pooled, argmax, data, rois, num_rois, op, group, with_argmax);
}

// The shared-memory version. pooled (num_rois, channels, pooled_height, pooled_width); argmax: the
// same shape, not written unless `with_argmax`; data; rois (num_rois, 5). A work item is
// kChannelsAtOnce channels of an image and each `splits`-th RoI, in batches of `at_once` RoIs. A
// plane has 1 to 2^16 - 1 pixels. Shared memory: 36 bytes per pixel, one word, and words_of_roi()
// words for each of `at_once` RoIs.
extern "C" __global__ void __launch_bounds__(1024, 1)
    roi_pooling_staged(float* __restrict__ pooled, int* __restrict__ argmax,
                       const float* __restrict__ data, const float* __restrict__ rois,
                       long long num_rois, const cvops::RoiPooling op, int splits, int at_once,
                       int with_argmax) {
  using namespace cvops;
  wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(Values, memory);
  const int pixels = op.height * op.width, bins = op.pooled_height * op.pooled_width;
  const int roi_words = words_of_roi(op.pooled_height, op.pooled_width);
  uint32* const table = (uint32*)(memory + 2 * pixels);
  const SharedPlanes shared = {memory, memory + pixels, table, roi_words,
                               (unsigned char*)(table + at_once * roi_words)};
  int* const found = (int*)(shared.second + kChannelsAtOnce * pixels);
  const int groups = (op.channels - 1) / kChannelsAtOnce + 1;
  for (int64 item = blockIdx.x; item < (int64)op.images * groups * splits; item += gridDim.x) {
    const int planes = (int)item / splits, own_image = planes / groups;
    const int channel = (planes - own_image * groups) * kChannelsAtOnce;
    const int channels = min(op.channels - channel, kChannelsAtOnce);
    const int plane = (own_image * op.channels + channel) * pixels;
    load_planes(shared, data + plane, channels, pixels);
    for (int64 begin = (int)item % splits; begin < num_rois; begin += (int64)at_once * splits) {
      if (threadIdx.x == 0) *found = 0;
      __syncthreads();
      for (int n = (int)threadIdx.x; n < at_once; n += (int)blockDim.x) {
        const int64 roi = begin + (int64)n * splits;
        if (roi >= num_rois) break;
        const int image = truncated(rois[5 * roi]);
        const bool known = image >= 0 && image < op.images;
        // RoIs of an unknown image belong to image 0 and have empty bins.
        if ((known ? image : 0) != own_image) continue;
        uint32* const mine = shared.rois + atomicAdd(found, 1) * roi_words;
        *(int64*)mine = roi * op.channels * bins;
        find_edges(mine + 2, rois + 5 * roi, known, op);
      }
      __syncthreads();
      float* const to = pooled + (int64)channel * bins;
      if (with_argmax) {
        pool<true>(shared, *found, to, argmax + (int64)channel * bins, op, plane, channels);
      } else {
        pool<false>(shared, *found, to, nullptr, op, plane, channels);
      }
      __syncthreads();
    }
  }
}

// grad (images, channels, pixels); out_grad and argmax (num_rois, channels, bins). A work item is a
// channel of `group` images. Shared memory: a StagingBuffer and, if `in_shared`, one element per
// pixel of a group. The number of threads is a multiple of 32.
extern "C" __global__ void __launch_bounds__(256, 4)
    roi_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                         const int* __restrict__ argmax, long long num_rois, int bins, int images,
                         int channels, int pixels, int group, int in_shared) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(cvops::StagingBuffer<float>, staging);
  cvops::add_outputs_of_items(grad, out_grad, argmax, num_rois, bins, images, channels, pixels,
                              group, in_shared, staging);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    roi_pooling_backward_f64(double* __restrict__ grad, const double* __restrict__ out_grad,
                             const int* __restrict__ argmax, long long num_rois, int bins,
                             int images, int channels, int pixels, int group, int in_shared) {
  cvops::wait_for_earlier_launches();
  CVOPS_DYNAMIC_SHARED(cvops::StagingBuffer<double>, staging_f64);
  cvops::add_outputs_of_items(grad, out_grad, argmax, num_rois, bins, images, channels, pixels,
                              group, in_shared, staging_f64);
}
#endif
