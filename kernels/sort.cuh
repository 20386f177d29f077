// Sorts the keys of order.cuh, each row of a batch by itself, what has no key left out.
//
// Every block sorts a tile in shared memory; then each pass merges sixteen runs to one: a key's
// place is the number of lower keys in all of them, which it finds by as many binary searches at
// once. So 2048 keys take one launch, 32768 two and 524288 three; the number depends on N alone.
// How many keys count is read on the device, and blocks beyond it end at once. A radix sort would
// read the keys fewer times, but with three launches a digit, or with blocks that wait for one
// another; here the launches set the pace.
#pragma once
#include "order.cuh"

#ifdef __CUDACC__
namespace cvops {

constexpr int kSortTile = 2048;
constexpr int kSortWays = 16;  // runs that a pass makes one of

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
