// The last block of a grid, and prefix sums of bit counts in it.
#pragma once
#include "nms/candidate.cuh"

#ifdef __CUDACC__
namespace cvops {

// Exclusive prefix sum of popcounts of `num` words, starting at `sum`, into before (num + 1). The
// last element, which is also returned, is the total. word_at(w) returns word w. One block.
template <typename WordAt>
__device__ __forceinline__ int popcount_prefix_sum(int* before, int num, int sum,
                                                   const WordAt& word_at) {
  constexpr int kWarps = kNmsThreads / 32;
  __shared__ int warp_sums[kWarps];
  const int t = threadIdx.x, warp = t / 32;
  for (int first = 0; first < num; first += kNmsThreads) {
    const int w = first + t, own = w < num ? __popcll(word_at(w)) : 0;
    const int up_to = warp_prefix_sum(own);
    if (lane_id() == 31) warp_sums[warp] = up_to;
    __syncthreads();
    int mine = sum + up_to - own;
    for (int other = 0; other < kWarps; ++other) {
      if (other < warp) mine += warp_sums[other];
      sum += warp_sums[other];
    }
    if (w < num) before[w] = mine;
    __syncthreads();  // all threads have read warp_sums
  }
  if (threadIdx.x == 0) before[num] = sum;
  return sum;
}

// True in the last of `blocks` blocks that call it (threadfence reduction). That block sees all
// writes of the other blocks. `*block_counter` is 0 before and after.
__device__ __forceinline__ bool is_last_block(int* block_counter, int blocks) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {  // the barriers extend these fences to the whole block
    __threadfence();
    is_last = atomicAdd(block_counter, 1) == blocks - 1;
    if (is_last) *block_counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace cvops
#endif
