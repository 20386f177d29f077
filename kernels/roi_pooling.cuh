// roi_pooling: the largest value in each bin of each region of interest, and the gradient.
//
// Forward: a thread keeps one bin of a roi and goes through channels with it, so that it finds the
// bin's edges once, for all of them, in registers; neighbouring threads have neighbouring bins, so
// that stores are coalesced. It pools kChannelsAtOnce channels at a time: their loads are in flight
// together and share their addresses' arithmetic.
//
// Backward: floats are added at the argmax in MXNet's order: roi after roi, bin after bin. A block
// owns one channel of some images and takes as many outputs at a time as it has threads, in that
// order. Threads with the same target take turns, the lowest first: each bids its number for the
// target's slot of a table in shared memory, the lowest bid adds and leaves, the others bid again.
// Targets whose slots collide only wait for each other. So the order is MXNet's without an atomic
// on floats, and all threads whose targets differ add at once; a warp that walked a plane's outputs
// alone would give the same sums, but wait for memory 32 times as often.
#pragma once
#include "common.cuh"

namespace cvops {

// The sizes of data (images, channels, height, width) and of the grid of bins of a roi, and what a
// roi's coordinates are multiplied by to give pixels of data.
struct RoiPooling {
  int images, channels, height, width, pooled_height, pooled_width;
  float scale;
};

// The indices from begin up to end, without end.
struct Range {
  int begin, end;
};

constexpr float kLowestFloat = -3.402823466e+38f;

// Sums of ints modulo 2^32, which is what MXNet's give where they overflow.
CVOPS_HD int wrapping_add(int a, int b) { return (int)((uint32)a + (uint32)b); }
CVOPS_HD int wrapping_subtract(int a, int b) { return (int)((uint32)a - (uint32)b); }

CVOPS_HD int clamped(int i, int limit) { return i < 0 ? 0 : i > limit ? limit : i; }

// One axis of a roi, in pixels: its first pixel, and the length of a bin.
struct RoiAxis {
  int begin;
  float bin;
};

// From a roi's first and last coordinate. It has one pixel at least.
CVOPS_HD RoiAxis roi_axis(float first, float last, float scale, int bins) {
  int begin = truncated(roundf(first * scale)), end = truncated(roundf(last * scale));
  int size = wrapping_add(wrapping_subtract(end, begin), 1);
  return {begin, (float)(size > 1 ? size : 1) / (float)bins};
}

// The pixels of bin i, of `limit` that there are. Bins overlap where their length is not whole.
CVOPS_HD Range bin_range(RoiAxis axis, int i, int limit) {
  int begin = truncated(floorf((float)i * axis.bin));
  int end = truncated(ceilf((float)(i + 1) * axis.bin));
  return {clamped(wrapping_add(begin, axis.begin), limit),
          clamped(wrapping_add(end, axis.begin), limit)};
}

// The largest value in a bin of each of kPlanes planes, and its index in the plane: the first if
// there are several. NaN is never chosen; -1 if nothing is above kLowestFloat, or the bin is empty.
template <int kPlanes>
CVOPS_HD void max_of_bin(const float* const (&planes)[kPlanes], Range rows, Range columns,
                         int width, float (&best)[kPlanes], int (&at)[kPlanes]) {
  bool empty = rows.begin >= rows.end || columns.begin >= columns.end;
  for (int k = 0; k < kPlanes; ++k) {
    best[k] = empty ? 0.0f : kLowestFloat;
    at[k] = -1;
  }
  if (empty) return;
  for (int row = rows.begin; row < rows.end; ++row) {
    for (int i = row * width + columns.begin; i < row * width + columns.end; ++i) {
      for (int k = 0; k < kPlanes; ++k) {
        float value = planes[k][i];
        if (value > best[k]) {
          best[k] = value;
          at[k] = i;
        }
      }
    }
  }
}

// One channel's planes of the images [first, last) of data (images, channels, pixels).
struct ChannelPlanes {
  int channels, pixels, channel, first, last;
};

// Whether `at`, an index into data, lies in one of the planes. `plane` is the index of the first
// pixel of the plane that was found last: mostly `at` lies there, and nothing needs to be divided.
CVOPS_HD bool lies_in(ChannelPlanes own, int at, int& plane) {
  if ((uint32)at - (uint32)plane < (uint32)own.pixels) return true;
  if (at < 0) return false;
  int number = at / own.pixels, image = number / own.channels;
  if (number - image * own.channels != own.channel || image < own.first || image >= own.last) {
    return false;
  }
  plane = number * own.pixels;
  return true;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {
constexpr int kChannelsAtOnce = 4;
constexpr int kSlots = 4096;      // a power of two
constexpr int kNobody = 1 << 30;  // above every thread's number
}  // namespace cvops

// pooled (num_rois, channels, pooled_height, pooled_width), argmax the same or, if not
// `with_argmax`, not touched; data, rois (num_rois, 5). An item of work is a roi with `group`
// channels.
extern "C" __global__ void __launch_bounds__(256)
    roi_pooling(float* __restrict__ pooled, int* __restrict__ argmax,
                const float* __restrict__ data, const float* __restrict__ rois, long long num_rois,
                const cvops::RoiPooling op, int group, int with_argmax) {
  using namespace cvops;
  const int bins = op.pooled_height * op.pooled_width, pixels = op.height * op.width;
  const int groups = (op.channels - 1) / group + 1;
  // Threads beyond the last whole set of bins have nothing to do.
  const int side_by_side = bins < (int)blockDim.x ? (int)blockDim.x / bins : 1;
  const int first_channel = bins < (int)blockDim.x ? (int)threadIdx.x / bins : 0;
  if (first_channel >= side_by_side) return;
  for (int64 item = blockIdx.x; item < num_rois * groups; item += gridDim.x) {
    const int64 roi = item / groups;
    const int begin = (int)(item - roi * groups) * group;
    const int count = op.channels - begin < group ? op.channels - begin : group;
    const float* r = rois + 5 * roi;
    const int image = truncated(r[0]);
    const bool known = image >= 0 && image < op.images;
    const RoiAxis y = roi_axis(r[2], r[4], op.scale, op.pooled_height);
    const RoiAxis x = roi_axis(r[1], r[3], op.scale, op.pooled_width);
    for (int64 bin = (int)threadIdx.x - first_channel * bins; bin < bins; bin += blockDim.x) {
      const int row = (int)bin / op.pooled_width, column = (int)bin - row * op.pooled_width;
      Range rows = bin_range(y, row, op.height), columns = bin_range(x, column, op.width);
      if (!known) rows.end = rows.begin;
      for (int c = first_channel; c < count; c += kChannelsAtOnce * side_by_side) {
        const float* planes[kChannelsAtOnce];
        int channel[kChannelsAtOnce], at[kChannelsAtOnce];
        float best[kChannelsAtOnce];
#pragma unroll
        for (int k = 0; k < kChannelsAtOnce; ++k) {
          // Beyond the last channel: c's once more, not stored.
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

// grad (images, channels, pixels); out_grad and argmax (num_rois, channels, bins). An item of work
// is a channel of `group` images.
extern "C" __global__ void __launch_bounds__(512)
    roi_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                         const int* __restrict__ argmax, long long num_rois, int bins, int images,
                         int channels, int pixels, int group) {
  using namespace cvops;
  __shared__ int lowest_bid[kSlots];
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  for (int i = me; i < kSlots; i += threads) lowest_bid[i] = kNobody;
  const int groups = (images - 1) / group + 1;
  for (int64 item = blockIdx.x; item < (int64)channels * groups; item += gridDim.x) {
    const int channel = (int)(item % channels), first = (int)(item / channels) * group;
    const int last = images - first < group ? images : first + group;
    const ChannelPlanes own = {channels, pixels, channel, first, last};
    int plane = (first * channels + channel) * pixels;
    for (int image = first; image < last; ++image) {
      float* zeros = grad + (image * channels + channel) * pixels;
      for (int64 i = me; i < pixels; i += threads) zeros[i] = 0.0f;
    }
    // My first output is output `me` of the channel, and the next one `threads` further.
    int bin = me % bins;
    int64 from = ((int64)(me / bins) * channels + channel) * bins + bin;
    int64 left = num_rois * bins - me;
    int at = left > 0 ? argmax[from] : -1;
    float value = left > 0 ? out_grad[from] : 0.0f;
    for (; left + me > 0; left -= threads) {
      bin += threads % bins;
      from += (int64)(threads / bins) * channels * bins + threads % bins;
      if (bin >= bins) {
        bin -= bins;
        from += (int64)(channels - 1) * bins;
      }
      // The next output is on its way while this one waits for its turn.
      const int next_at = left > threads ? argmax[from] : -1;
      const float next_value = left > threads ? out_grad[from] : 0.0f;

      bool waits = lies_in(own, at, plane);
      int* bid = &lowest_bid[at & (kSlots - 1)];
      while (__syncthreads_or(waits)) {
        if (waits) atomicMin(bid, me);
        __syncthreads();
        if (waits && atomicCAS(bid, me, kNobody) == me) {
          grad[at] += value;
          waits = false;
        }
      }
      at = next_at;
      value = next_value;
    }
  }
}
#endif
