// Radix select: a bound with a number of keys of sort_key.cuh up to it. A block of kTopkThreads
// threads selects in one row.
#pragma once
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

constexpr uint64 kAllKeys = kNoKey - 1;  // bound that excludes no key
constexpr int kTopkThreads = 1024;

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Shared memory of a radix select.
struct RadixSelect {
  int bins[2 * kTopkThreads], warp_sums[kTopkThreads / 32];
  int count, rank;
  uint32 min_upper, max_upper;  // upper halves of the extreme keys
  uint64 low, high;
};

// Calls use(key) for key_at(0), ..., key_at(num - 1), then for kNoKey. All threads of the block
// call it the same number of times. The loads of kAtOnce keys overlap.
template <typename KeyAt, typename Use>
__device__ __forceinline__ void for_each_key(const KeyAt& key_at, int num, const Use& use) {
  constexpr int kAtOnce = 4;
  for (int64 begin = threadIdx.x; begin - threadIdx.x < num; begin += kAtOnce * kTopkThreads) {
    uint64 keys[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int64 i = begin + k * kTopkThreads;
      keys[k] = i < num ? key_at((int)i) : kNoKey;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) use(keys[k]);
  }
}

// Radix select: a bound with exactly `rank` keys of key_at(0), ..., key_at(num - 1) up to it.
// kAllKeys if there are no more keys. All threads of a block of kTopkThreads must call it.
//
// Each round counts the keys in [low, high] by their first digit that differs. The digit with the
// rank becomes the next [low, high].
template <typename KeyAt>
__device__ __forceinline__ uint64 radix_select(const KeyAt& key_at, int num, int rank,
                                               RadixSelect& s) {
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  if (t == 0) s.count = 0, s.rank = rank, s.min_upper = ~0u, s.max_upper = 0;
  uint32 min_upper = ~0u, max_upper = 0;
  int count = 0;
  for_each_key(key_at, num, [&](uint64 key) {
    if (key == kNoKey) return;
    const uint32 upper = (uint32)(key >> 32);
    min_upper = min(min_upper, upper), max_upper = max(max_upper, upper), ++count;
  });
  min_upper = warp_min(min_upper), max_upper = warp_max(max_upper), count = warp_sum(count);
  __syncthreads();
  if (lane == 0) {
    atomicMin(&s.min_upper, min_upper), atomicMax(&s.max_upper, max_upper),
        atomicAdd(&s.count, count);
  }
  __syncthreads();
  if (s.count <= rank) return kAllKeys;
  if (t == 0) s.low = (uint64)s.min_upper << 32, s.high = (uint64)s.max_upper << 32 | ~0u;
  __syncthreads();
  do {
    const uint64 low = s.low, high = s.high;
    const int left = s.rank, shift = max(0, 53 - __clzll(high - low));  // a digit has 11 bits
    s.bins[2 * t] = s.bins[2 * t + 1] = 0;
    __syncthreads();
    for_each_key(key_at, num, [&](uint64 key) {
      if (key >= low && key <= high) atomicAdd(&s.bins[(key - low) >> shift], 1);
    });
    __syncthreads();
    const int first = s.bins[2 * t], second = s.bins[2 * t + 1];
    const int up_to = warp_prefix_sum(first + second);
    if (lane == 31) s.warp_sums[warp] = up_to;
    __syncthreads();
    // Number of keys before the two bins of the thread.
    const int before = warp_sum(lane < warp ? s.warp_sums[lane] : 0) + up_to - first - second;
    if (before < left && left <= before + first + second) {
      const bool in_second = left > before + first;
      s.low = low + ((2ull * t + in_second) << shift);
      s.high = min(high, s.low + ((1ull << shift) - 1));
      s.rank = left - before - (in_second ? first : 0);
      s.count = in_second ? second : first;
    }
    __syncthreads();
  } while (s.rank < s.count);
  return s.high;
}

// Writes the `topk` best keys to `out` in any order, and their number to `count`.
template <typename KeyAt>
__device__ __forceinline__ void write_topk(uint64* out, int* count, const KeyAt& key_at, int num,
                                           int topk, RadixSelect& s) {
  const uint64 bound = radix_select(key_at, num, topk, s);
  __syncthreads();
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
  for_each_key(key_at, num, [&](uint64 key) {
    const int at = warp_append(&s.count, key <= bound);
    if (key <= bound) out[at] = key;
  });
  __syncthreads();
  if (threadIdx.x == 0) *count = s.count;
}

}  // namespace cvops
#endif
