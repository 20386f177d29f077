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
#include "common.cuh"

namespace cvops {

// Sizes of data (images, channels, height, width), bins per RoI, and the factor from RoI
// coordinates to pixels.
struct RoiPooling {
  int images, channels, height, width, pooled_height, pooled_width;
  float scale;
};

// Half-open range of indices [begin, end).
struct Range {
  int begin, end;
};

constexpr float kLowestFloat = -3.402823466e+38f;

// int arithmetic modulo 2^32, which is MXNet's behavior on overflow.
CVOPS_HD int wrapping_add(int a, int b) { return (int)((uint32)a + (uint32)b); }
CVOPS_HD int wrapping_subtract(int a, int b) { return (int)((uint32)a - (uint32)b); }

CVOPS_HD int clamped(int i, int max) { return i < 0 ? 0 : i > max ? max : i; }

// One axis of an RoI, in pixels: the first pixel, and the length of a bin.
struct RoiAxis {
  int begin;
  float bin;
};

// Axis from the first and last coordinate. The RoI has at least one pixel.
CVOPS_HD RoiAxis roi_axis(float first, float last, float scale, int bins) {
  int begin = truncated(roundf(first * scale)), end = truncated(roundf(last * scale));
  int size = wrapping_add(wrapping_subtract(end, begin), 1);
  return {begin, (float)(size > 1 ? size : 1) / (float)bins};
}

// Pixels of bin i, clamped to [0, limit). Bins overlap if the bin length is not an integer.
CVOPS_HD Range bin_range(RoiAxis axis, int i, int limit) {
  int begin = truncated(floorf((float)i * axis.bin));
  int end = truncated(ceilf((float)(i + 1) * axis.bin));
  return {clamped(wrapping_add(begin, axis.begin), limit),
          clamped(wrapping_add(end, axis.begin), limit)};
}

// Maximum in a bin of each of kPlanes planes, and the index of its first occurrence in the plane.
// NaN is never the maximum. The index is -1 if no value is above kLowestFloat or the bin is empty.
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

// Planes of one channel in the images [first, last) of data (images, channels, pixels).
struct ChannelPlanes {
  int channels, pixels, channel, first, last;
};

// True if `at`, an index into data, is in one of the planes. `plane` is the first pixel of the
// plane of the last hit. Most indices are in the same plane, which avoids the division.
CVOPS_HD bool lies_in(ChannelPlanes own, int at, int& plane) {
  if ((uint32)at - (uint32)plane < (uint32)own.pixels) return true;
  int image = at < 0 ? -1 : at / (own.channels * own.pixels);
  if (image < own.first || image >= own.last) return false;
  int first = (image * own.channels + own.channel) * own.pixels;
  if ((uint32)at - (uint32)first >= (uint32)own.pixels) return false;
  plane = first;
  return true;
}

constexpr int kChannelsAtOnce = 4;
// Sizes of the backward kernel. kOwners: pixel owners, a power of two, and maximum threads per
// block. kRounds: outputs per thread and step. The staging buffer has at most 32 groups of 32
// outputs.
constexpr int kOwners = CVOPS_STEP(256, 64);
constexpr int kRounds = 4;
static_assert(kRounds * kOwners <= 32 * 32, "a bit of StagingBuffer::groups for each group");

// A value to add, and the index of its pixel in the sums.
struct alignas(8) Addend {
  int at;
  float value;
};

// Staging buffer of kRounds outputs per thread, in order, for the pixel owners. The highest bit of
// a word is the first group or lane, because __clz is faster than __ffs.
struct StagingBuffer {
  Addend addends[kRounds * kOwners];  // in groups of 32
  uint32 in_group[32][kOwners];       // lanes of a group, per owner
  uint32 groups[kOwners];             // groups of an owner; other words of `in_group` are undefined
};

// Words per RoI in shared memory: an even number, because the first two hold an int64.
CVOPS_HD int words_of_roi(int pooled_height, int pooled_width) {
  return 2 + (pooled_height + pooled_width + 1) / 2 * 2;
}

}  // namespace cvops

CVOPS_KERNEL roi_pooling_staged(float* pooled, int* argmax, const float* data, const float* rois,
                                cvops::int64 num_rois, cvops::RoiPooling op, int splits,
                                int at_once, int with_argmax);
CVOPS_KERNEL roi_pooling(float* pooled, int* argmax, const float* data, const float* rois,
                         cvops::int64 num_rois, cvops::RoiPooling op, int group, int with_argmax);
CVOPS_KERNEL roi_pooling_backward(float* grad, const float* out_grad, const int* argmax,
                                  cvops::int64 num_rois, int bins, int images, int channels,
                                  int pixels, int group, int in_shared);

#ifdef __CUDACC__
namespace cvops {

// One value for each of kChannelsAtOnce channels.
struct __align__(16) Values {
  float of[kChannelsAtOnce];
};

// Sets best = value and at = i if value is larger. `at` holds the bits of an int that is no NaN
// pattern. A GPU has half the throughput for selects that it has for additions. Addition of -0.0
// changes no bit.
__device__ __forceinline__ void keep_larger(float& best, float& at, float value, float i) {
#ifdef __CUDA_ARCH__
  asm("{\n"
      "  .reg .pred larger;\n"
      "  setp.gt.f32 larger, %2, %0;\n"
      "  @larger add.f32 %0, %2, 0f80000000;\n"
      "  @larger add.f32 %1, %3, 0f80000000;\n"
      "}"
      : "+f"(best), "+f"(at)
      : "f"(value), "f"(i));
#else
  if (value > best) {
    best = value;
    at = i;
  }
#endif
}

// Shared memory of a block: the planes of kChannelsAtOnce channels, and RoIs.
struct SharedPlanes {
  Values* pixels;  // NaN and other values not above kLowestFloat are kLowestFloat
  Values* pairs;   // maximum of a pixel and the next one
  // An RoI is an int64, the offset of its first bin in channel 0 of `pooled`, then the edges of its
  // rows of bins and columns of bins.
  uint32* rois;
  int roi_words;
  unsigned char* second;  // per pixel and channel: 1 if the next pixel is larger
};

__device__ __forceinline__ uint32 packed(Range range) {
  return (uint32)range.begin | (uint32)range.end << 16;
}

__device__ __forceinline__ Range unpacked(uint32 range) {
  return {(int)(range & 0xffff), (int)(range >> 16)};
}

// Fills `shared` with `channels` planes, the first one at `first`.
__device__ __forceinline__ void load_planes(const SharedPlanes& shared,
                                            const float* __restrict__ first, int channels,
                                            int pixels) {
  for (int i = (int)threadIdx.x; i < pixels; i += (int)blockDim.x) {
    const int next = i + 1 < pixels ? i + 1 : i;
    Values pixel, pair;
    uint32 second = 0;
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      const float* plane = first + (k < channels ? k : 0) * pixels;
      pixel.of[k] = larger(plane[i], kLowestFloat);
      pair.of[k] = larger(plane[next], pixel.of[k]);
      second |= (uint32)(pair.of[k] > pixel.of[k]) << 8 * k;
    }
    shared.pixels[i] = pixel;
    shared.pairs[i] = pair;
    ((uint32*)shared.second)[i] = second;
  }
}

// Edges of the rows and columns of bins of an RoI. An RoI of an unknown image has empty rows.
__device__ __forceinline__ void find_edges(uint32* edges, const float* __restrict__ roi, bool known,
                                           const RoiPooling& op) {
  const RoiAxis y = roi_axis(roi[2], roi[4], op.scale, op.pooled_height);
  const RoiAxis x = roi_axis(roi[1], roi[3], op.scale, op.pooled_width);
#pragma unroll 1
  for (int i = 0; i < op.pooled_height; ++i) {
    *edges++ = known ? packed(bin_range(y, i, op.height)) : 0;
  }
#pragma unroll 1
  for (int j = 0; j < op.pooled_width; ++j) *edges++ = packed(bin_range(x, j, op.width));
}

// Maximum in a nonempty bin, and its position in the planes. `at` does not change if no value is
// above kLowestFloat.
template <bool kWithArgmax>
__device__ __forceinline__ void max_of_bin(const SharedPlanes& shared, Range rows, Range columns,
                                           int width, Values& best, int (&at)[kChannelsAtOnce]) {
  const int step = min(columns.end - columns.begin, 2);
  const bool paired = step == 2;
  const Values* const from = paired ? shared.pairs : shared.pixels;
  float where[kChannelsAtOnce];
#pragma unroll
  for (int k = 0; k < kChannelsAtOnce; ++k) {
    best.of[k] = kLowestFloat;
    where[k] = __int_as_float(at[k]);
  }
  auto visit = [&](int i) {
    const Values value = from[i];
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      keep_larger(best.of[k], where[k], value.of[k], __int_as_float(i));
    }
  };
  for (int row = rows.begin; row < rows.end; ++row) {
    const int last = row * width + columns.end - step;
#pragma unroll 1
    for (int i = row * width + columns.begin; i < last; i += step) visit(i);
    visit(last);  // may share a pixel with the previous pair, which has no effect
  }
#pragma unroll
  for (int k = 0; k < kChannelsAtOnce && kWithArgmax; ++k) {
    at[k] = __float_as_int(where[k]);
    if (paired && (uint32)at[k] < 1u << 16) at[k] += shared.second[kChannelsAtOnce * at[k] + k];
  }
}

// Pools all `num` RoIs of `shared`. `pooled` and `argmax` begin at the first of `channels`
// channels; its plane begins at `plane` in data.
template <bool kWithArgmax>
__device__ __forceinline__ void pool(const SharedPlanes& shared, int num,
                                     float* __restrict__ pooled, int* __restrict__ argmax,
                                     const RoiPooling& op, int plane, int channels) {
  const int width = op.pooled_width, bins = op.pooled_height * width;
  const int pixels = op.height * op.width, threads = (int)blockDim.x, me = (int)threadIdx.x;
  // Bin of this thread, and the increments to its next bin.
  const uint32* roi = shared.rois + me / bins * shared.roi_words;
  int row = me % bins / width, column = me % bins % width;
  const int next_roi = threads / bins * shared.roi_words;
  const int next_row = threads % bins / width, next_column = threads % bins % width;
  while (roi < shared.rois + num * shared.roi_words) {
    const Range rows = unpacked(roi[2 + row]);
    const Range columns = unpacked(roi[2 + op.pooled_height + column]);
    const int64 to = *(const int64*)roi + row * width + column;
    float* to_pooled = pooled + to;
    int* to_argmax = kWithArgmax ? argmax + to : nullptr;
    Values best = {};
    int at[kChannelsAtOnce];
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) at[k] = wrapping_subtract(-1 - plane, k * pixels);
    if (rows.begin < rows.end && columns.begin < columns.end) {
      max_of_bin<kWithArgmax>(shared, rows, columns, op.width, best, at);
    }
#pragma unroll
    for (int k = 0; k < kChannelsAtOnce; ++k) {
      if (k >= channels) break;
      *to_pooled = best.of[k];
      to_pooled += bins;
      if (!kWithArgmax) continue;
      *to_argmax = plane + k * pixels + at[k];
      to_argmax += bins;
    }
    roi += next_roi;
    row += next_row;
    column += next_column;
    if (column >= width) {
      column -= width;
      ++row;
    }
    if (row >= op.pooled_height) {
      row -= op.pooled_height;
      roi += shared.roi_words;
    }
  }
}

}  // namespace cvops

// The shared-memory version. pooled (num_rois, channels, pooled_height, pooled_width); argmax: the
// same shape, not written unless `with_argmax`; data; rois (num_rois, 5). A work item is
// kChannelsAtOnce channels of an image and each `splits`-th RoI, in batches of `at_once` RoIs. A
// plane has 1 to 2^16 - 1 pixels. Shared memory: 36 bytes per pixel, one word, and words_of_roi()
// words for each of `at_once` RoIs.
extern "C" __global__ void __launch_bounds__(1024)
    roi_pooling_staged(float* __restrict__ pooled, int* __restrict__ argmax,
                       const float* __restrict__ data, const float* __restrict__ rois,
                       long long num_rois, const cvops::RoiPooling op, int splits, int at_once,
                       int with_argmax) {
  using namespace cvops;
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

// The textbook kernel. pooled (num_rois, channels, pooled_height, pooled_width); argmax: the same
// shape, not written unless `with_argmax`; data; rois (num_rois, 5). A work item is an RoI with
// `group` channels.
extern "C" __global__ void __launch_bounds__(256)
    roi_pooling(float* __restrict__ pooled, int* __restrict__ argmax,
                const float* __restrict__ data, const float* __restrict__ rois, long long num_rois,
                const cvops::RoiPooling op, int group, int with_argmax) {
  using namespace cvops;
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

namespace cvops {

// Iterator over the outputs of one channel, in order. A thread takes each blockDim.x-th output,
// from number `me` on.
struct Outputs {
  const float* __restrict__ out_grad;
  const int* __restrict__ argmax;
  int64 total;             // number of outputs of all threads
  int bins, left;          // number of outputs left for this thread
  int64 from;              // index of the next output
  int bin;                 // bin of the next output
  int64 step, roi_stride;  // stride to the next output; extra stride
  int bin_step;            // if that output is in the next RoI

  __device__ __forceinline__ Outputs(const float* __restrict__ out_grad,
                                     const int* __restrict__ argmax, int64 rois, int bins,
                                     int channels, int channel, int me)
      : out_grad(out_grad), argmax(argmax), total(rois * bins), bins(bins) {
    const int threads = (int)blockDim.x;
    left = (int)((total - me + threads - 1) / threads);
    bin = me % bins;
    from = ((int64)(me / bins) * channels + channel) * bins + bin;
    bin_step = threads % bins;
    step = (int64)(threads / bins) * channels * bins + bin_step;
    roi_stride = (int64)(channels - 1) * bins;
  }

  // Argmax and gradient of the next output; -1 after the last one.
  __device__ __forceinline__ int next(float& value) {
    const int at = left > 0 ? argmax[from] : -1;
    value = left > 0 ? out_grad[from] : 0.0f;
    --left;
    from += step;
    bin += bin_step;
    if (bin >= bins) {
      bin -= bins;
      from += roi_stride;
    }
    return at;
  }
};

constexpr uint32 kFirst = 1u << 31;

// Adds the outputs that point into the planes `own` to sums. With kInShared, sums holds these
// planes in shared memory; otherwise it is grad. `shelf.groups` is 0 before and after.
template <bool kInShared>
__device__ __forceinline__ void add_outputs(float* __restrict__ sums, StagingBuffer& staging,
                                            const float* __restrict__ out_grad,
                                            const int* __restrict__ argmax, int64 num_rois,
                                            int bins, ChannelPlanes own) {
  // The last lane of a warp has the first output of a group.
  const int threads = (int)blockDim.x, lane = (int)threadIdx.x % 32;
  const int me = (int)threadIdx.x - lane + (31 - lane);
  Outputs outputs(out_grad, argmax, num_rois, bins, own.channels, own.channel, me);
  int plane = (own.first * own.channels + own.channel) * own.pixels;
  int shift = kInShared ? -plane : 0;  // from an index into data to an index into sums
  int at[kRounds];
  float value[kRounds];
#pragma unroll
  for (int k = 0; k < kRounds; ++k) at[k] = outputs.next(value[k]);
  for (int64 begin = 0; begin < outputs.total; begin += kRounds * threads) {
#pragma unroll
    for (int k = 0; k < kRounds; ++k) {
      const int before = plane;
      const bool mine = lies_in(own, at[k], plane);
      if (kInShared && plane != before) {
        shift = (plane / (own.channels * own.pixels) - own.first) * own.pixels - plane;
      }
      const int to = wrapping_add(at[k], shift), owner = to & (kOwners - 1);
      const int place = k * threads + me;
      const uint32 peers = __match_any_sync(~0u, mine ? owner : ~lane);
      staging.addends[place] = {to, value[k]};
      if (mine && peers >> lane == 1) {
        staging.in_group[place / 32][owner] = peers;
        atomicOr(&staging.groups[owner], kFirst >> place / 32);
      }
    }
    __syncthreads();
    // The loads of the next outputs overlap with these additions.
#pragma unroll
    for (int k = 0; k < kRounds; ++k) at[k] = outputs.next(value[k]);
    for (int owner = (int)threadIdx.x; owner < kOwners; owner += threads) {
      uint32 groups = staging.groups[owner], in_group = 0;
      const Addend* group = nullptr;
      staging.groups[owner] = 0;
      while (groups | in_group) {
        if (in_group == 0) {
          const int first = __clz((int)groups);
          group = staging.addends + 32 * first;
          in_group = staging.in_group[first][owner];
          groups &= ~(kFirst >> first);
        }
        const int first = __clz((int)in_group);
        const Addend addend = group[first];
        in_group &= ~(kFirst >> first);
        sums[addend.at] += addend.value;
      }
    }
    __syncthreads();
  }
}

}  // namespace cvops

// grad (images, channels, pixels); out_grad and argmax (num_rois, channels, bins). A work item is a
// channel of `group` images. Shared memory: a StagingBuffer and, if `in_shared`, one float per
// pixel of a group. The number of threads is a multiple of 32.
extern "C" __global__ void __launch_bounds__(256, 4)
    roi_pooling_backward(float* __restrict__ grad, const float* __restrict__ out_grad,
                         const int* __restrict__ argmax, long long num_rois, int bins, int images,
                         int channels, int pixels, int group, int in_shared) {
  using namespace cvops;
  CVOPS_DYNAMIC_SHARED(StagingBuffer, staging);
  float* const own_sums = (float*)(staging + 1);
  const int me = (int)threadIdx.x, threads = (int)blockDim.x;
  for (int i = me; i < kOwners; i += threads) staging->groups[i] = 0;
  __syncthreads();
  const int groups = (images - 1) / group + 1;
  for (uint32 item = blockIdx.x; item < (uint32)(channels * groups); item += gridDim.x) {
    const int channel = (int)item % channels, first = (int)item / channels * group;
    const int last = images - first < group ? images : first + group;
    const ChannelPlanes own = {channels, pixels, channel, first, last};
    for (int image = first; image < last; ++image) {
      float* const to = in_shared ? own_sums + (image - first) * pixels
                                  : grad + (image * channels + channel) * pixels;
      for (int64 i = me; i < pixels; i += threads) to[i] = 0.0f;
    }
    if (!in_shared) {
      add_outputs<false>(grad, *staging, out_grad, argmax, num_rois, bins, own);
      continue;
    }
    add_outputs<true>(own_sums, *staging, out_grad, argmax, num_rois, bins, own);
    for (int image = first; image < last; ++image) {
      float* const to = grad + (image * channels + channel) * pixels;
      for (int i = me; i < pixels; i += threads) to[i] = own_sums[(image - first) * pixels + i];
    }
  }
}
#endif
