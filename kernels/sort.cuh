// Sorts the keys of sort_key.cuh, each row of a batch by itself, what has no key left out.
//
// Every block sorts a tile, whose keys stay in registers and go from thread to thread by shuffles,
// or where they go far through shared memory; then each pass merges sixteen runs to one: a key's
// place is the number of lower keys in all of them, which it finds by as many binary searches at
// once. So 2048 keys take one launch, 32768 two and 524288 three; the number depends on N alone.
// How many keys count is read on the device, and blocks beyond it end at once. A radix sort would
// read the keys fewer times, but with three launches a digit, or with blocks that wait for one
// another; here the launches set the pace.
#pragma once
#include "sort_key.cuh"
#include "warp.cuh"

namespace cvops {

// Keys that a block sorts at most, and those of a thread.
constexpr int kSortTile = CVOPS_STEP(2048, 128), kSortEach = 4;
constexpr int kSortWays = CVOPS_STEP(16, 4);   // runs that a pass makes one of
constexpr int kMergeWarps = CVOPS_STEP(4, 1);  // of a block of sort_merge
constexpr int kMergeFew = CVOPS_STEP(5, 2);    // runs that one thread searches

// How many keys a block sorts where there are `most`: a power of two, kSortEach for each of at
// least 32 threads.
CVOPS_HD int sort_tile_of(int most) {
  int tile = 32 * kSortEach;
  while (tile < most && tile < kSortTile) tile *= 2;
  return tile;
}

// The blocks of sort_merge for each row of `most` keys in runs of `run`.
CVOPS_HD int merge_blocks(int64 most, int64 run) {
  const int64 blocks = ceil_div(most, most <= kMergeFew * run ? 32 * kMergeWarps : 32);
  return blocks < kMaxGridY ? (int)blocks : kMaxGridY;
}

}  // namespace cvops

CVOPS_KERNEL sort_compact(cvops::uint64* out, int* counts, const cvops::uint64* keys,
                          const int* tile_counts, int num);
CVOPS_KERNEL sort_tiles(cvops::uint64* out, const cvops::uint64* keys, const int* counts, int num,
                        int tile);
CVOPS_KERNEL sort_merge(cvops::uint64* out, const cvops::uint64* keys, const int* counts, int num,
                        int run);

#ifdef __CUDACC__
namespace cvops {

// Exchanges two keys of a thread if they are not in order.
__device__ __forceinline__ void order_keys(uint64& a, uint64& b, bool ascending) {
  const uint64 first = a, second = b;
  const bool swap = (first > second) == ascending;
  a = swap ? second : first;
  b = swap ? first : second;
}

// Sorted runs of `run` keys each in keys[begin], ..., keys[end - 1]. One of them begins at `own`.
struct Runs {
  const uint64* keys;
  int begin, own, run, end;
};

// The number of keys lower than `key` in kEach of the runs except the own one: every `apart`-th
// from the `which`-th on. A run beyond the last one is empty. Each load of a search depends on the
// load before it, so that all searches go on at once.
template <int kEach>
__device__ __forceinline__ int lower_keys(const Runs& runs, uint64 key, int which, int apart) {
  int last[kEach], end[kEach], sum = 0;  // the last key that is known to be lower, and the run's
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    int from = runs.begin + (which + k * apart) * runs.run;
    if (from >= runs.own) from += runs.run;
    last[k] = min(from, runs.end) - 1, end[k] = min(from + runs.run, runs.end) - 1;
    sum -= last[k];
  }
  for (int step = runs.run; step > 0; step /= 2) {
    int next[kEach];
    uint64 found[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      next[k] = min(last[k] + step, end[k]);
      found[k] = runs.keys[next[k]];
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) last[k] = found[k] < key ? next[k] : last[k];
  }
#pragma unroll
  for (int k = 0; k < kEach; ++k) sum += last[k];
  return sum;
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
    const bool ascending = (kSortEach * t & 2 * run) == 0;
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
// Grid (B, blocks). With few runs a thread searches all for its key; else a lane has a key, and the
// block's warps share out the runs. See merge_blocks().
extern "C" __global__ void __launch_bounds__(32 * cvops::kMergeWarps, 8)
    sort_merge(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int run) {
  using namespace cvops;
  static_assert(kSortWays == 4 * kMergeWarps, "a warp takes four runs at most");
  __shared__ int lower_by[kMergeWarps][32];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = counts[blockIdx.x];
  const bool few = count <= kMergeFew * run;
  const int each = few ? 32 * kMergeWarps : 32;
  keys += (int64)blockIdx.x * num;
  out += (int64)blockIdx.x * num;
  for (int first = each * blockIdx.y; first < count; first += each * gridDim.y) {
    const int i = first + (few ? t : lane), begin = i & -(kSortWays * run), own = i & -run;
    const uint64 key = i < count ? keys[i] : 0;
    // The warps search one run more than there are beside the own one: it must not be the next
    // group's.
    const Runs runs = {keys, begin, own, run, min(begin + kSortWays * run, count)};
    int lower = 0;
    if (few) {
      lower = lower_keys<kMergeFew - 1>(runs, key, 0, 1);
    } else {
      const bool half = count - begin <= (1 + 2 * kMergeWarps) * run;
      lower_by[warp][lane] = half ? lower_keys<2>(runs, key, warp, kMergeWarps)
                                  : lower_keys<4>(runs, key, warp, kMergeWarps);
      __syncthreads();
      for (int w = 0; w < kMergeWarps; ++w) lower += lower_by[w][lane];
      __syncthreads();
    }
    if (i < count && (few || warp == 0)) out[begin + i - own + lower] = key;
  }
}
#endif
