// Sort keys of non-maximum suppression: descending scores, ties by ascending index. One key packs
// score and index. Keys are therefore unique, and no sort needs to be stable.
#pragma once
#include "common.cuh"

namespace cvops {

// Key of a box that is left out, and of a NaN score. It is greater than all other keys.
constexpr uint64 kNoKey = ~0ull;
// Keys per tile, and threads per block, of sort_compact.
constexpr int kCompactTile = 256;

// Ascending keys mean descending scores. Equal scores (-0 equals 0) have ascending indices.
CVOPS_HD uint64 sort_key(float score, uint32 index) {
  uint32 bits = bits_of(score + 0.0f);  // the addition turns -0 into 0
  uint32 ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (uint64)~ascending << 32 | index;
}

// The order of a double score as an integer: ascending means descending scores.
CVOPS_HD uint64 descending(double score) {
  const uint64 bits = (uint64)bits_of(score + 0.0);  // the addition turns -0 into 0
  return ~(bits >> 63 ? ~bits : bits | 1ull << 63);
}

// Score of a key. For a value between two keys, a score between their scores.
CVOPS_HD float score_of(uint64 key) {
  const uint32 ascending = ~(uint32)(key >> 32);
  return float_of(ascending >> 31 ? ascending & 0x7fffffffu : ~ascending);
}

CVOPS_HD uint32 index_of(uint64 key) { return (uint32)key; }

}  // namespace cvops
