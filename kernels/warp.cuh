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

__device__ __forceinline__ uint64 warp_max(uint64 x) {
  for (int step = 16; step; step /= 2) {
    uint64 other = __shfl_xor_sync(kWarp, x, step);
    if (other > x) x = other;
  }
  return x;
}

__device__ __forceinline__ uint32 warp_sum(uint32 x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kWarp, x, step);
  return x;
}

}  // namespace cvops
#endif
