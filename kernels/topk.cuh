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
#include "nms/score_filter.cuh"
#include "radix_select.cuh"

namespace cvops {

constexpr int kSamples = CVOPS_STEP(4096, 128);  // power of two
constexpr int kCollectTile = 4096;               // scores per block

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
CVOPS_KERNEL topk_select(cvops::uint64* out, int* counts, cvops::CandidateList candidates,
                         const float* scores, int num, int topk, cvops::ScoreFilter filter);

#ifdef __CUDACC__
// bounds (B): the bound of each row of scores (B, N): the sample's `rank`-th best key, or kAllKeys
// if rank is 0. found (B): 0. Grid (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    topk_sample(unsigned long long* __restrict__ bounds, int* __restrict__ found,
                const float* __restrict__ scores, int num, int rank,
                const cvops::ScoreFilter filter) {
  using namespace cvops;
  wait_for_earlier_launches();
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
  wait_for_earlier_launches();
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
// number. Grid (B), 1024 threads.
extern "C" __global__ void __launch_bounds__(1024, 1)
    topk_select(unsigned long long* __restrict__ out, int* __restrict__ counts,
                const cvops::CandidateList candidates, const float* __restrict__ scores, int num,
                int topk, const cvops::ScoreFilter filter) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ RadixSelect shared;
  const int batch = blockIdx.x;
  candidates.among(
      batch, scores + (int64)batch * num, num, topk, filter, [&](const auto& key_at, int count) {
        write_topk(out + (int64)batch * topk, &counts[batch], key_at, count, topk, shared);
      });
}
#endif
