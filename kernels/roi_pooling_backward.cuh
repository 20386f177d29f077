// The gradient of roi_pooling: the additions of a block, in order, by the owners of the pixels.
#pragma once
#include "roi.cuh"

namespace cvops {

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

// Sizes of the backward kernel. kOwners: pixel owners, a power of two, and maximum threads per
// block; the staging buffer fits into 48 KiB. kRounds: outputs per thread and step. The staging
// buffer has at most 32 groups of 32 outputs.
template <typename T>
constexpr int kOwners = CVOPS_STEP(1024, 256) / (int)sizeof(T);
constexpr int kRounds = 4;
static_assert(kRounds * kOwners<float> <= 32 * 32, "a bit of StagingBuffer::groups for each group");

// A value to add, and the index of its pixel in the sums.
template <typename T>
struct alignas(2 * sizeof(T)) Addend {
  int at;
  T value;
};

// Staging buffer of kRounds outputs per thread, in order, for the pixel owners. The highest bit of
// a word is the first group or lane, because __clz is faster than __ffs.
template <typename T>
struct StagingBuffer {
  Addend<T> addends[kRounds * kOwners<T>];  // in groups of 32
  uint32 in_group[32][kOwners<T>];          // lanes of a group, per owner
  // Groups of an owner; other words of `in_group` are undefined.
  uint32 groups[kOwners<T>];
};

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Iterator over the outputs of one channel, in order. A thread takes each blockDim.x-th output,
// from number `me` on.
template <typename T>
struct Outputs {
  const T* __restrict__ out_grad;
  const int* __restrict__ argmax;
  int64 total;             // number of outputs of all threads
  int bins, left;          // number of outputs left for this thread
  int64 from;              // index of the next output
  int bin;                 // bin of the next output
  int64 step, roi_stride;  // stride to the next output; extra stride
  int bin_step;            // if that output is in the next RoI

  __device__ __forceinline__ Outputs(const T* __restrict__ out_grad, const int* __restrict__ argmax,
                                     int64 rois, int bins, int channels, int channel, int me)
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
  __device__ __forceinline__ int next(T& value) {
    const int at = left > 0 ? argmax[from] : -1;
    value = left > 0 ? out_grad[from] : T(0);
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
template <bool kInShared, typename T>
__device__ __forceinline__ void add_outputs(T* __restrict__ sums, StagingBuffer<T>& staging,
                                            const T* __restrict__ out_grad,
                                            const int* __restrict__ argmax, int64 num_rois,
                                            int bins, ChannelPlanes own) {
  // The last lane of a warp has the first output of a group.
  const int threads = (int)blockDim.x, lane = (int)threadIdx.x % 32;
  const int me = (int)threadIdx.x - lane + (31 - lane);
  Outputs<T> outputs(out_grad, argmax, num_rois, bins, own.channels, own.channel, me);
  int plane = (own.first * own.channels + own.channel) * own.pixels;
  int shift = kInShared ? -plane : 0;  // from an index into data to an index into sums
  int at[kRounds];
  T value[kRounds];
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
      const int to = wrapping_add(at[k], shift), owner = to & (kOwners<T> - 1);
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
    for (int owner = (int)threadIdx.x; owner < kOwners<T>; owner += threads) {
      uint32 groups = staging.groups[owner], in_group = 0;
      const Addend<T>* group = nullptr;
      staging.groups[owner] = 0;
      while (groups | in_group) {
        if (in_group == 0) {
          const int first = __clz((int)groups);
          group = staging.addends + 32 * first;
          in_group = staging.in_group[first][owner];
          groups &= ~(kFirst >> first);
        }
        const int first = __clz((int)in_group);
        const Addend<T> addend = group[first];
        in_group &= ~(kFirst >> first);
        sums[addend.at] += addend.value;
      }
    }
    __syncthreads();
  }
}

}  // namespace cvops
#endif
