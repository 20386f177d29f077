// Sorts the keys of order.cuh, each row of a batch by itself, what has no key left out.
//
// A merge sort: every block sorts a tile in shared memory, then each pass merges pairs of runs,
// each block making one tile of the result. Of N keys it takes 1 + log2(N / 2048) launches, whose
// number depends on N alone; how many keys count is read on the device, and blocks beyond it end at
// once. A radix sort would read the keys fewer times, but with three launches a digit, or with
// blocks that wait for one another; here the launches set the pace.
#pragma once
#include "order.cuh"

#ifdef __CUDACC__
namespace cvops {

constexpr int kSortTile = 2048;
constexpr int kSortItems = 8;  // of a thread when merging

// The number of a's first elements among the first `rank` of a and b merged.
__device__ __forceinline__ int merge_split(const uint64* a, int num_a, const uint64* b, int num_b,
                                           int rank) {
  int low = rank > num_b ? rank - num_b : 0, high = rank < num_a ? rank : num_a;
  while (low < high) {
    int middle = (low + high) / 2;
    if (a[middle] <= b[rank - 1 - middle]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace cvops

// out (B, N): the keys of a row other than kNoKey, in their order; counts (B): how many.
// tile_counts (B, gridDim.y): how many there are in each tile of kCompactTile. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    sort_compact(unsigned long long* __restrict__ out, int* __restrict__ counts,
                 const unsigned long long* __restrict__ keys, const int* __restrict__ tile_counts,
                 int num) {
  using namespace cvops;
  __shared__ int warp_sums[8], warp_kept[8];
  const int tile = blockIdx.y, batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  tile_counts += (int64)batch * gridDim.y;
  int before = 0;  // how many there are in the tiles before this one
  for (int i = t; i < tile; i += kCompactTile) before += tile_counts[i];
  for (int d = 16; d > 0; d /= 2) before += __shfl_xor_sync(~0u, before, d);
  int i = tile * kCompactTile + t;
  uint64 key = i < num ? keys[(int64)batch * num + i] : kNoKey;
  unsigned kept = __ballot_sync(~0u, key != kNoKey);
  if (lane == 0) warp_sums[warp] = before, warp_kept[warp] = __popc(kept);
  __syncthreads();
  int position = __popc(kept & ((1u << lane) - 1));
  for (int w = 0; w < 8; ++w) position += warp_sums[w] + (w < warp ? warp_kept[w] : 0);
  if (key != kNoKey) out[(int64)batch * num + position] = key;
  if (t == kCompactTile - 1 && tile == gridDim.y - 1) counts[batch] = position + (key != kNoKey);
}

// out (B, N): each tile of `tile` keys sorted; tile is a power of two, up to kSortTile. Of a row
// the first counts[b] count. Grid (B, tiles), tile / 2 threads, at least 32; shared: the tile.
extern "C" __global__ void __launch_bounds__(1024)
    sort_tiles(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int tile) {
  using namespace cvops;
  __shared__ uint64 sorted[kSortTile];
  const int batch = blockIdx.x, t = threadIdx.x, count = counts[batch];
  const int first = blockIdx.y * tile;
  if (first >= count) return;
  keys += (int64)batch * num + first;
  out += (int64)batch * num + first;
  for (int i = t; i < tile; i += blockDim.x) sorted[i] = first + i < count ? keys[i] : kNoKey;
  __syncthreads();
  // Bitonic: runs of `run` keys, ascending and descending in turn, become runs of twice the length.
  for (int run = 1; run < tile; run *= 2) {
    for (int distance = run; distance > 0; distance /= 2) {
      for (int pair = t; pair < tile / 2; pair += blockDim.x) {
        int i = pair / distance * 2 * distance + pair % distance, j = i + distance;
        bool ascending = (i & (2 * run)) == 0 || 2 * run == tile;
        uint64 a = sorted[i], b = sorted[j];
        if ((a > b) == ascending) sorted[i] = b, sorted[j] = a;
      }
      __syncthreads();
    }
  }
  for (int i = t; i < tile && first + i < count; i += blockDim.x) out[i] = sorted[i];
}

// out (B, N): pairs of neighbouring sorted runs of `run` keys merged; run is a multiple of
// kSortTile. Grid (B, tiles of kSortTile), kSortTile / kSortItems threads.
extern "C" __global__ void __launch_bounds__(256)
    sort_merge(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int run) {
  using namespace cvops;
  __shared__ uint64 tile[kSortTile];
  __shared__ int splits[2];
  const int batch = blockIdx.x, t = threadIdx.x, count = counts[batch];
  const int first = blockIdx.y * kSortTile;
  if (first >= count) return;
  keys += (int64)batch * num;
  out += (int64)batch * num;
  // Runs a and b, and the ranks among both that this block makes.
  const int begin = (int)(first / (2ll * run) * (2ll * run));
  const uint64 *a = keys + begin, *b = a + run;
  const int num_a = min(run, count - begin), num_b = max(0, min(run, count - begin - run));
  const int rank = first - begin, size = min(kSortTile, num_a + num_b - rank);
  if (t < 2) splits[t] = merge_split(a, num_a, b, num_b, rank + t * size);
  __syncthreads();
  const int begin_a = splits[0], size_a = splits[1] - begin_a, begin_b = rank - begin_a;
  for (int i = t; i < size; i += blockDim.x) {
    tile[i] = i < size_a ? a[begin_a + i] : b[begin_b + i - size_a];
  }
  __syncthreads();
  uint64 merged[kSortItems];
  const int mine = min(t * kSortItems, size);
  int i = merge_split(tile, size_a, tile + size_a, size - size_a, mine), j = size_a + mine - i;
#pragma unroll
  for (int k = 0; k < kSortItems; ++k) {
    bool take_a = j >= size || (i < size_a && tile[i] <= tile[j]);
    merged[k] = mine + k < size ? tile[take_a ? i : j] : kNoKey;
    take_a ? ++i : ++j;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kSortItems; ++k) {
    if (mine + k < size) tile[mine + k] = merged[k];
  }
  __syncthreads();
  for (int k = t; k < size; k += blockDim.x) out[first + k] = tile[k];
}
#endif
