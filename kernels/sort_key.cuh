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
  uint32 bits = bits_of(score + 0.0f);  // which turns -0 into 0
  uint32 ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (uint64)~ascending << 32 | index;
}

CVOPS_HD uint32 index_of(uint64 key) { return (uint32)key; }

}  // namespace cvops
