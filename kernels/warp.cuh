// What the threads of a warp know together. All 32 lanes take part.
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

// The greatest upper half, and the greatest lower half of those that have it.
__device__ __forceinline__ uint64 warp_max(uint64 x) {
  const uint32 upper = (uint32)(x >> 32), most = warp_max(upper);
  return (uint64)most << 32 | warp_max(upper == most ? (uint32)x : 0u);
}

__device__ __forceinline__ uint32 warp_min(uint32 x) { return ~warp_max(~x); }

// Of 32-bit numbers.
template <typename T>
__device__ __forceinline__ T warp_sum(T x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kWarp, x);
#else
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kWarp, x, step);
  return x;
#endif
}

// The sum of the lanes up to one's own, with that.
template <typename T>
__device__ __forceinline__ T warp_prefix_sum(T x) {
  for (int step = 1; step < 32; step *= 2) {
    const T before = __shfl_up_sync(kWarp, x, step);
    if (lane_id() >= step) x += before;
  }
  return x;
}

// How many of `lanes`, a bit for each, come before `lane`.
__device__ __forceinline__ int lanes_before(uint32 lanes, int lane) {
  return __popc(lanes & ((1u << lane) - 1));
}

// A place for each lane that wants one, in their order, behind the `count` that are taken, which
// grows by them: one atomic operation for a warp.
__device__ __forceinline__ int warp_append(int* count, bool wants) {
  // Not lane_id(): of an unsigned remainder compilers do not see that it is 0 in one lane, and have
  // the warp sum up once more what it adds.
  const int lane = (int)threadIdx.x % 32;
  const uint32 lanes = __ballot_sync(kWarp, wants);
  if (lanes == 0) return 0;
  const int first = lane == 0 ? atomicAdd(count, __popc(lanes)) : 0;
  return __shfl_sync(kWarp, first, 0) + lanes_before(lanes, lane);
}

}  // namespace cvops
#endif
