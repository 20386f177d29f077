// Spatial keys: class, Morton code of the center, and index of a box. Boxes that are adjacent in
// the order of these keys are close together.
#pragma once
#include "common.cuh"

namespace cvops {

// Bits of the index and of the class in a spatial key.
constexpr int kSpatialIndexBits = 24, kSpatialClassBits = 12;

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Inserts a 0 after each of the 20 lowest bits of x.
__device__ __forceinline__ uint64 spread_bits(uint32 x) {
  uint64 y = x & 0xfffff;
  y = (y | y << 16) & 0x0000ffff0000ffff;
  y = (y | y << 8) & 0x00ff00ff00ff00ff;
  y = (y | y << 4) & 0x0f0f0f0f0f0f0f0f;
  y = (y | y << 2) & 0x3333333333333333;
  return (y | y << 1) & 0x5555555555555555;
}

// Bits whose unsigned order is the order of the floats.
__device__ __forceinline__ uint32 ascending_bits(float x) {
  const uint32 bits = bits_of(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ int spatial_index(uint64 order) {
  return (int)(order & ((1u << kSpatialIndexBits) - 1));
}

// Equal for all boxes of a class. Several classes can have the same value.
__device__ __forceinline__ uint32 spatial_class(uint64 order) {
  return (uint32)(order >> (64 - kSpatialClassBits));
}

}  // namespace cvops
#endif
