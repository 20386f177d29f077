// Top-k: the `topk` best scores of each row, unsorted, in the order of sort_key.cuh. The scores are
// read once.
//
// - topk_sample reads a sample of kSamples scores per row, one at a hashed position in each
//   stretch. It takes one of the best samples as the bound. About five times the wanted number of
//   keys should be within the bound.
// - topk_collect reads all scores and lists the keys within the bound.
// - topk_select finds the k-th key by radix select and writes the keys up to it. One block per row.
//
// Keys are unique, so ties make no list longer. If the list is too short or overflows its capacity,
// topk_select reads all scores instead: slower, with the same result.
#pragma once
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

constexpr int kSamples = CVOPS_STEP(4096, 128);  // power of two
constexpr int kCollectTile = 4096;               // scores per block
constexpr uint64 kAllKeys = kNoKey - 1;          // bound that excludes no key

// Filter of the scores of a row: above the threshold and outside [skip, skip_end).
struct ScoreFilter {
  float threshold;
  int skip, skip_end;
};

CVOPS_HD uint64 candidate_key(const float* scores, int i, ScoreFilter filter) {
  const float score = scores[i];
  const bool counts = score > filter.threshold && (i < filter.skip || i >= filter.skip_end);
  return counts ? sort_key(score, (uint32)i) : kNoKey;
}

// Position of sample j in a row of `num` > kSamples scores. A hash selects the position in the
// stretch; a fixed stride would fail for periodic scores.
CVOPS_HD int sample_position(int j, int num) {
  const uint64 before = (uint64)(uint32)j * (uint32)num;
  const uint32 begin = (uint32)(before / kSamples), end = (uint32)((before + num) / kSamples);
  uint32 mixed = (uint32)j * 2654435761u;
  mixed = (mixed ^ mixed >> 15) * 2246822519u;
  return (int)(begin + (uint32)((uint64)mixed * (end - begin) >> 32));
}

}  // namespace cvops

CVOPS_KERNEL topk_sample(cvops::uint64* bounds, int* found, const float* scores, int num, int rank,
                         cvops::ScoreFilter filter);
CVOPS_KERNEL topk_collect(cvops::uint64* list, int* found, const cvops::uint64* bounds,
                          const float* scores, cvops::int64 total, int num, int tiles, int capacity,
                          cvops::ScoreFilter filter);
CVOPS_KERNEL topk_select(cvops::uint64* out, int* counts, const cvops::uint64* list,
                         const int* found, const cvops::uint64* bounds, const float* scores,
                         int num, int capacity, int topk, cvops::ScoreFilter filter);

#ifdef __CUDACC__
namespace cvops {

constexpr int kTopkThreads = 1024;

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

// bounds (B): the bound of each row of scores (B, N): the sample's `rank`-th best key, or kAllKeys
// if rank is 0. found (B): 0. Grid (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024)
    topk_sample(unsigned long long* __restrict__ bounds, int* __restrict__ found,
                const float* __restrict__ scores, int num, int rank,
                const cvops::ScoreFilter filter) {
  using namespace cvops;
  __shared__ uint64 sample[kSamples];
  __shared__ RadixSelect shared;
  const int batch = blockIdx.x, t = threadIdx.x;
  scores += (int64)batch * num;
  uint64 bound = kAllKeys;
  if (rank > 0) {
    for (int j = t; j < kSamples; j += kTopkThreads) {
      sample[j] = candidate_key(scores, sample_position(j, num), filter);
    }
    bound = radix_select([&](int j) { return sample[j]; }, kSamples, rank, shared);
  }
  if (t == 0) bounds[batch] = bound, found[batch] = 0;
}

// list (B, room): the keys of scores (B, N) up to bounds (B), in any order, up to the capacity
// `capacity`. found (B), 0 before: their number, which can exceed the capacity. Grid (B * tiles),
// tiles = ceil((N + 3) / kCollectTile), 256 threads with 16 scores each.
extern "C" __global__ void __launch_bounds__(256)
    topk_collect(unsigned long long* __restrict__ list, int* __restrict__ found,
                 const unsigned long long* __restrict__ bounds, const float* __restrict__ scores,
                 long long total, int num, int tiles, int capacity,
                 const cvops::ScoreFilter filter) {
  using namespace cvops;
  __shared__ int num_listed, begin_of_block;
  const int batch = blockIdx.x / tiles, t = threadIdx.x;
  const int64 row = (int64)batch * num;
  // Tiles are aligned to 16 bytes: they begin up to three scores before the row.
  const int64 begin = (row & ~3ll) + (int64)(blockIdx.x % tiles) * kCollectTile + 4 * t;
  float4 loaded[4];
  if (begin - 4 * t + kCollectTile <= total) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      loaded[k] = *reinterpret_cast<const float4*>(scores + begin + 1024 * k);
    }
  } else {  // the last tile of the array
    const auto at = [&](int64 i) { return i < total ? scores[i] : 0.0f; };
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64 i = begin + 1024 * k;
      loaded[k] = make_float4(at(i), at(i + 1), at(i + 2), at(i + 3));
    }
  }
  const uint64 bound = bounds[batch];
  const float cut = bound == kAllKeys ? filter.threshold : score_of(bound);
  unsigned mine = 0;  // one bit per score that may be listed
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    mine |= (loaded[k].x >= cut) << (4 * k) | (loaded[k].y >= cut) << (4 * k + 1) |
            (loaded[k].z >= cut) << (4 * k + 2) | (loaded[k].w >= cut) << (4 * k + 3);
  }
  if (t == 0) num_listed = 0;
  __syncthreads();
  // These scores are few. A second load needs fewer registers than an array with dynamic indices.
  const int64 first = begin - row;
  for (unsigned rest = mine; rest; rest &= rest - 1) {
    const int bit = __ffs(rest) - 1;
    const int64 i = first + 1024 * (bit / 4) + bit % 4;
    const bool listed = i >= 0 && i < num && candidate_key(scores + row, (int)i, filter) <= bound;
    if (!listed) mine &= ~(1u << bit);
  }
  const int own = __popc(mine), up_to = warp_prefix_sum(own);
  // The counters of all rows are adjacent, and a GPU serializes atomic operations on them. One per
  // block.
  int before = lane_id() == 31 && up_to ? atomicAdd(&num_listed, up_to) : 0;
  before = __shfl_sync(kWarp, before, 31);
  __syncthreads();
  if (t == 0 && num_listed) begin_of_block = atomicAdd(&found[batch], num_listed);
  __syncthreads();
  int position = begin_of_block + before + up_to - own;
  for (unsigned rest = mine; rest; rest &= rest - 1, ++position) {
    const int bit = __ffs(rest) - 1;
    const int i = (int)(first + 1024 * (bit / 4) + bit % 4);
    if (position < capacity)
      list[(int64)batch * capacity + position] = candidate_key(scores + row, i, filter);
  }
}

// out (B, most): the best keys of each row of scores (B, N), in any order; counts (B): their
// number. list, found, bounds: from topk_collect. Grid (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    topk_select(unsigned long long* __restrict__ out, int* __restrict__ counts,
                const unsigned long long* __restrict__ list, const int* __restrict__ found,
                const unsigned long long* __restrict__ bounds, const float* __restrict__ scores,
                int num, int capacity, int topk, const cvops::ScoreFilter filter) {
  using namespace cvops;
  __shared__ RadixSelect shared;
  const int batch = blockIdx.x, listed = found[batch];
  out += (int64)batch * topk;
  list += (int64)batch * capacity;
  scores += (int64)batch * num;
  const bool complete = listed <= capacity && (listed >= topk || bounds[batch] == kAllKeys);
  const auto key_at = [&](int i) { return complete ? list[i] : candidate_key(scores, i, filter); };
  write_topk(out, &counts[batch], key_at, complete ? listed : num, topk, shared);
}
#endif
