// The order in which non-maximum suppression goes: descending scores, ties by index. Score and
// index are packed into one key, so that keys are unique and no sort needs to be stable.
#pragma once
#include "common.cuh"

namespace cvops {

// Above every key of a number: NaN has none.
constexpr uint64 kNoKey = ~0ull;
// Keys are counted by tiles of as many, by blocks of as many threads.
constexpr int kCompactTile = 256;

// Ascending keys are descending scores, and of equal scores (-0 equals 0) ascending indices.
CVOPS_HD uint64 sort_key(float score, uint32 index) {
  float positive_zero = score + 0.0f;
#ifdef __CUDA_ARCH__
  uint32 bits = __float_as_uint(positive_zero);
#else
  uint32 bits;
  __builtin_memcpy(&bits, &positive_zero, sizeof bits);
#endif
  uint32 ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (uint64)~ascending << 32 | index;
}

CVOPS_HD uint32 index_of(uint64 key) { return (uint32)key; }

}  // namespace cvops
