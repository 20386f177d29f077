// Warp-level reductions, scans and counts. All 32 lanes take part.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__
namespace cvops {

constexpr unsigned kWarp = 0xffffffff;

__device__ __forceinline__ int lane_id() { return threadIdx.x % 32; }

__device__ __forceinline__ float warp_max(float x) {
  for (int step = 16; step; step /= 2) x = larger(x, __shfl_xor_sync(kWarp, x, step));
  return x;
}

__device__ __forceinline__ uint32 warp_max(uint32 x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_max_sync(kWarp, x);
#else
  for (int step = 16; step; step /= 2) {
    const uint32 other = __shfl_xor_sync(kWarp, x, step);
    if (other > x) x = other;
  }
  return x;
#endif
}

// The maximum of the upper halves, then the maximum of the lower halves of the lanes that have it.
__device__ __forceinline__ uint64 warp_max(uint64 x) {
  const uint32 upper = (uint32)(x >> 32), most = warp_max(upper);
  return (uint64)most << 32 | warp_max(upper == most ? (uint32)x : 0u);
}

__device__ __forceinline__ uint32 warp_min(uint32 x) { return ~warp_max(~x); }

// Sum of 32-bit numbers.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kWarp, x);
#else
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kWarp, x, step);
  return x;
#endif
}

// Inclusive prefix sum over the lanes.
template <typename T>
__device__ __forceinline__ T warp_prefix_sum(T x) {
  for (int step = 1; step < 32; step *= 2) {
    const T before = __shfl_up_sync(kWarp, x, step);
    if (lane_id() >= step) x += before;
  }
  return x;
}

// Number of bits in the lane mask `lanes` below `lane`.
__device__ __forceinline__ int lanes_before(uint32 lanes, int lane) {
  return __popc(lanes & ((1u << lane) - 1));
}

// Reserves one position for each lane with `wants`, in lane order. The positions begin at `*count`,
// which grows by their number. A warp does one atomic operation.
__device__ __forceinline__ int warp_append(int* count, bool wants) {
  // lane_id() is unsigned. Compilers do not see that its remainder is 0 in one lane only, and add a
  // second warp reduction for the atomic operation.
  const int lane = (int)threadIdx.x % 32;
  const uint32 lanes = __ballot_sync(kWarp, wants);
  if (lanes == 0) return 0;
  const int first = lane == 0 ? atomicAdd(count, __popc(lanes)) : 0;
  return __shfl_sync(kWarp, first, 0) + lanes_before(lanes, lane);
}

}  // namespace cvops
#endif
