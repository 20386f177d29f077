// Sort of a tile of the keys of sort_key.cuh by one block.
#pragma once
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

// Maximum number of keys per block, and keys per thread.
constexpr int kSortTile = CVOPS_STEP(2048, 128), kSortEach = 4;

// Keys of a tile for at most `max_keys` keys: a power of two, kSortEach keys for each of at least
// 32 threads.
CVOPS_HD constexpr int sort_tile_of(int max_keys) {
  int tile = 32 * kSortEach;
  while (tile < max_keys && tile < kSortTile) tile *= 2;
  return tile;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Swaps two keys of a thread if they are out of order.
__device__ __forceinline__ void order_keys(uint64& a, uint64& b, bool ascending) {
  const uint64 first = a, second = b;
  const bool swap = (first > second) == ascending;
  a = swap ? second : first;
  b = swap ? first : second;
}

// Sorts a tile of `tile` keys, a power of two from sort_tile_of(). The first tile / kSortEach
// threads hold them in any order; then thread t has the keys 4 t to 4 t + 3. All threads of the
// block call it. `kAllThreads`: each of them holds keys.
//
// Bitonic sort: runs of `run` keys, alternately ascending and descending, become runs of twice the
// length. A step compares each key with the key at `distance`; `distance` is halved down to 1.
template <bool kAllThreads, int kMaxTile>
__device__ __forceinline__ void sort_tile(uint64 (&own)[kSortEach], int tile,
                                          uint64 (&exchanged)[2][kMaxTile]) {
  const int t = threadIdx.x, threads = kAllThreads ? blockDim.x : tile / kSortEach;
  const bool takes_part = kAllThreads || t < threads;
  // Pairs, the second one descending, become runs of four.
  order_keys(own[0], own[1], true);
  order_keys(own[2], own[3], false);
  int side = 0;  // double buffer: other threads may still read the other side
#pragma unroll 1
  for (int run = 2; run < tile; run *= 2) {
    const bool ascending = (kSortEach * t & 2 * run) == 0;
#pragma unroll 1
    for (int distance = run; distance >= kSortEach; distance /= 2) {
      const int apart = distance / kSortEach;  // distance in threads
      const bool takes_lower = ((t & apart) == 0) == ascending;
      uint64 other[kSortEach];
      if (apart < 32) {
        if (!takes_part) continue;
#pragma unroll
        for (int e = 0; e < kSortEach; ++e) other[e] = __shfl_xor_sync(kWarp, own[e], apart);
      } else {
#pragma unroll
        for (int e = 0; e < kSortEach; ++e) {
          if (takes_part) exchanged[side][e * threads + t] = own[e];
        }
        __syncthreads();
        if (takes_part) {
#pragma unroll
          for (int e = 0; e < kSortEach; ++e) {
            other[e] = exchanged[side][e * threads + (t ^ apart)];
          }
        }
        side ^= 1;
        if (!takes_part) continue;
      }
#pragma unroll
      for (int e = 0; e < kSortEach; ++e) {
        own[e] = (other[e] < own[e]) == takes_lower ? other[e] : own[e];
      }
    }
    order_keys(own[0], own[2], ascending);
    order_keys(own[1], own[3], ascending);
    order_keys(own[0], own[1], ascending);
    order_keys(own[2], own[3], ascending);
  }
}

}  // namespace cvops
#endif
