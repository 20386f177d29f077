// The best keys of a row in order, by one block: a radix select, then the sort of a tile.
#pragma once
#include "radix_select.cuh"
#include "sort_tile.cuh"

namespace cvops {

// Maximum number of keys among which one block selects. A sort by many blocks takes as long.
constexpr int kMaxSelect = CVOPS_STEP(1 << 15, 200);

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

template <int kMost>
struct BestKeys {
  uint64 exchanged[2][kMost];
  RadixSelect select;
  int count;

  // Key i in order, after one of the functions below.
  __device__ __forceinline__ uint64 operator[](int i) const { return exchanged[0][i]; }
  __device__ __forceinline__ uint64& operator[](int i) { return exchanged[0][i]; }

  // Sorts the first `num` keys. All threads of the block call it after a barrier.
  __device__ __forceinline__ void sort(int num) {
    const int tile = sort_tile_of(num), threads = tile / kSortEach, t = threadIdx.x;
    uint64 own[kSortEach];
#pragma unroll
    for (int e = 0; e < kSortEach; ++e) {
      const int i = e * threads + t;
      own[e] = t < threads && i < num ? exchanged[0][i] : kNoKey;
    }
    __syncthreads();
    sort_tile<false>(own, tile, exchanged);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kSortEach; ++e) {
      if (t < threads) exchanged[0][kSortEach * t + e] = own[e];
    }
    __syncthreads();
  }

  // Finds the best `topk` of key_at(0), ..., key_at(num - 1) without kNoKey, and returns their
  // number. All threads of a block of kTopkThreads call it.
  template <typename KeyAt>
  __device__ __forceinline__ int find(const KeyAt& key_at, int num, int topk) {
    write_topk(exchanged[0], &count, key_at, num, topk, select);
    __syncthreads();
    sort(count);
    return count;
  }
};

}  // namespace cvops
#endif
