// Sorts the keys of order.cuh, each row of a batch by itself, what has no key left out.
//
// Every block sorts a tile, whose keys stay in registers and go from thread to thread by shuffles,
// or where they go far through shared memory; then each pass merges sixteen runs to one: a key's
// place is the number of lower keys in all of them, which it finds by as many binary searches at
// once. So 2048 keys take one launch, 32768 two and 524288 three; the number depends on N alone.
// How many keys count is read on the device, and blocks beyond it end at once. A radix sort would
// read the keys fewer times, but with three launches a digit, or with blocks that wait for one
// another; here the launches set the pace.
#pragma once
#include "order.cuh"
#include "warp.cuh"

namespace cvops {

// Keys that a block sorts at most, and those of a thread.
constexpr int kSortTile = 2048, kSortEach = 4;
constexpr int kSortWays = 16;  // runs that a pass makes one of

// How many keys a block sorts where there are `most`: a power of two, kSortEach for each of at
// least 32 threads.
CVOPS_HD int sort_tile_of(int most) {
  int tile = 32 * kSortEach;
  while (tile < most && tile < kSortTile) tile *= 2;
  return tile;
}

}  // namespace cvops

#ifdef __CUDACC__
namespace cvops {

// Exchanges two keys of a thread if they are not in order.
__device__ __forceinline__ void order_keys(uint64& a, uint64& b, bool ascending) {
  const uint64 first = a, second = b;
  const bool swap = (first > second) == ascending;
  a = swap ? second : first;
  b = swap ? first : second;
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
  before = warp_sum(before);
  int i = tile * kCompactTile + t;
  uint64 key = i < num ? keys[(int64)batch * num + i] : kNoKey;
  unsigned kept = __ballot_sync(kWarp, key != kNoKey);
  if (lane == 0) warp_sums[warp] = before, warp_kept[warp] = __popc(kept);
  __syncthreads();
  int position = lanes_before(kept, lane);
  for (int w = 0; w < 8; ++w) position += warp_sums[w] + (w < warp ? warp_kept[w] : 0);
  if (key != kNoKey) out[(int64)batch * num + position] = key;
  if (t == kCompactTile - 1 && tile == gridDim.y - 1) counts[batch] = position + (key != kNoKey);
}

// out (B, N): each tile of `tile` keys, a power of two as of sort_tile_of(), sorted. Of a row the
// first counts[b] count. Grid (B, tiles), tile / kSortEach threads.
//
// Bitonic: runs of `run` keys, ascending and descending in turn, become runs of twice the length by
// comparing each key with the one at `distance`, which is halved until it is 1. Thread t has the
// keys 4 t to 4 t + 3 of the tile.
extern "C" __global__ void __launch_bounds__(512)
    sort_tiles(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int tile) {
  using namespace cvops;
  __shared__ uint64 exchanged[2][kSortTile];
  const int batch = blockIdx.x, t = threadIdx.x, threads = blockDim.x, count = counts[batch];
  const int first = blockIdx.y * tile;
  if (first >= count) return;
  keys += (int64)batch * num + first;
  out += (int64)batch * num + first;
  uint64 own[kSortEach];  // where they begin does not matter
#pragma unroll
  for (int e = 0; e < kSortEach; ++e) {
    const int i = e * threads + t;
    own[e] = first + i < count ? keys[i] : kNoKey;
  }
  // Pairs, the second of which descends, become fours.
  order_keys(own[0], own[1], true);
  order_keys(own[2], own[3], false);
  int side = 0;  // of what is exchanged: others may still read the other
#pragma unroll 1
  for (int run = 2; run < tile; run *= 2) {
    const bool ascending = (kSortEach * t & 2 * run) == 0 || 2 * run == tile;
#pragma unroll 1
    for (int distance = run; distance >= kSortEach; distance /= 2) {
      const int apart = distance / kSortEach;  // threads
      const bool takes_lower = ((t & apart) == 0) == ascending;
      uint64 other[kSortEach];
      if (apart < 32) {
#pragma unroll
        for (int e = 0; e < kSortEach; ++e) other[e] = __shfl_xor_sync(kWarp, own[e], apart);
      } else {
#pragma unroll
        for (int e = 0; e < kSortEach; ++e) exchanged[side][e * threads + t] = own[e];
        __syncthreads();
#pragma unroll
        for (int e = 0; e < kSortEach; ++e) {
          other[e] = exchanged[side][e * threads + (t ^ apart)];
        }
        side ^= 1;
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
#pragma unroll
  for (int e = 0; e < kSortEach; ++e) {
    const int i = kSortEach * t + e;
    if (first + i < count) out[i] = own[e];
  }
}

// out (B, N): of every kSortWays neighbouring sorted runs of `run` keys one; run is a power of two.
// Grid (B, tiles of 256).
extern "C" __global__ void __launch_bounds__(256)
    sort_merge(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int run) {
  using namespace cvops;
  const int i = blockIdx.y * blockDim.x + threadIdx.x, count = counts[blockIdx.x];
  if (i >= count) return;
  keys += (int64)blockIdx.x * num;
  out += (int64)blockIdx.x * num;
  const uint64 key = keys[i];
  const int own = i / run, begin = own / kSortWays * kSortWays * run;
  const int left = count - begin;  // in the runs that are merged with this one
  int lower[kSortWays] = {};       // of each run, as far as is known
  for (int step = run; step > 0; step /= 2) {
#pragma unroll
    for (int w = 0; w < kSortWays; ++w) {
      const int next = lower[w] + step;
      if (next <= min(run, left - w * run) && keys[begin + w * run + next - 1] < key) {
        lower[w] = next;
      }
    }
  }
  int to = begin;
#pragma unroll
  for (int w = 0; w < kSortWays; ++w) to += lower[w];
  out[to] = key;
}
#endif
