// Sort of the keys of sort_key.cuh. Each batch row is sorted separately; kNoKey entries are
// dropped.
//
// Each block sorts a tile with a bitonic network. The keys stay in registers; threads exchange them
// by shuffles, or through shared memory over longer distances. Each following pass merges kSortWays
// runs into one. The position of a key is the number of lower keys in all runs: parallel binary
// searches find it. N = 2048 needs one launch, 32768 two, 524288 three. The number of launches
// depends on N only. Kernels read the number of keys on the device; blocks beyond it return at
// once.
//
// A radix sort reads the keys fewer times. But it needs three launches per digit, or blocks that
// wait for one another. Here the launches dominate the time.
#pragma once
#include "sort_tile.cuh"

namespace cvops {

constexpr int kSortWays = CVOPS_STEP(16, 4);   // runs that a pass merges into one
constexpr int kMergeWarps = CVOPS_STEP(4, 1);  // warps per block of sort_merge
constexpr int kMergeFew = CVOPS_STEP(5, 2);    // number of runs that a single thread searches

// Number of blocks of sort_merge per row of `max_keys` keys in runs of `run` keys.
CVOPS_HD int merge_blocks(int64 max_keys, int64 run) {
  const int64 blocks = ceil_div(max_keys, max_keys <= kMergeFew * run ? 32 * kMergeWarps : 32);
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

// Sorted runs of `run` keys in keys[begin], ..., keys[end - 1]. One run begins at `own`.
struct Runs {
  const uint64* keys;
  int begin, own, run, end;
};

// Number of keys lower than `key` in kEach runs other than `own`: each `apart`-th run from number
// `which` on. Runs beyond the end are empty. Each load of a search depends on the previous one, so
// all searches advance together.
template <int kEach>
__device__ __forceinline__ int lower_keys(const Runs& runs, uint64 key, int which, int apart) {
  int last[kEach], end[kEach], sum = 0;  // last key known to be lower; last key of the run
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

// out (B, N): the keys of a row without kNoKey, in the same order; counts (B): their number.
// tile_counts (B, gridDim.y): number of keys per tile of kCompactTile. Grid (B, tiles).
extern "C" __global__ void __launch_bounds__(256)
    sort_compact(unsigned long long* __restrict__ out, int* __restrict__ counts,
                 const unsigned long long* __restrict__ keys, const int* __restrict__ tile_counts,
                 int num) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ int warp_sums[8], warp_kept[8];
  const int tile = blockIdx.y, batch = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
  tile_counts += (int64)batch * gridDim.y;
  int before = 0;  // number of keys in the previous tiles
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

// out (B, N): each tile of `tile` keys sorted; `tile` is a power of two from sort_tile_of(). The
// first counts[b] keys of a row are valid. Grid (B, tiles), tile / kSortEach threads.
extern "C" __global__ void __launch_bounds__(512)
    sort_tiles(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int tile) {
  using namespace cvops;
  wait_for_earlier_launches();
  __shared__ uint64 exchanged[2][kSortTile];
  const int batch = blockIdx.x, t = threadIdx.x, threads = blockDim.x, count = counts[batch];
  const int first = blockIdx.y * tile;
  if (first >= count) return;
  keys += (int64)batch * num + first;
  out += (int64)batch * num + first;
  uint64 own[kSortEach];  // initial order is irrelevant
#pragma unroll
  for (int e = 0; e < kSortEach; ++e) {
    const int i = e * threads + t;
    own[e] = first + i < count ? keys[i] : kNoKey;
  }
  sort_tile<true>(own, tile, exchanged);
#pragma unroll
  for (int e = 0; e < kSortEach; ++e) {
    const int i = kSortEach * t + e;
    if (first + i < count) out[i] = own[e];
  }
}

// out (B, N): each kSortWays adjacent sorted runs of `run` keys merged into one. `run` is a power
// of two. Grid (B, blocks): see merge_blocks(). With few runs, a thread searches all runs for its
// key. Otherwise a lane holds a key and the warps of the block divide the runs.
extern "C" __global__ void __launch_bounds__(32 * cvops::kMergeWarps, 8)
    sort_merge(unsigned long long* __restrict__ out, const unsigned long long* __restrict__ keys,
               const int* __restrict__ counts, int num, int run) {
  using namespace cvops;
  wait_for_earlier_launches();
  static_assert(kSortWays == 4 * kMergeWarps, "a warp takes four runs at max_keys");
  __shared__ int lower_by[kMergeWarps][32];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32, count = counts[blockIdx.x];
  const bool few = count <= kMergeFew * run;
  const int each = few ? 32 * kMergeWarps : 32;
  keys += (int64)blockIdx.x * num;
  out += (int64)blockIdx.x * num;
  for (int first = each * blockIdx.y; first < count; first += each * gridDim.y) {
    const int i = first + (few ? t : lane), begin = i & -(kSortWays * run), own = i & -run;
    const uint64 key = i < count ? keys[i] : 0;
    // The warps search one run more than the number of other runs. The bound `end` makes it empty,
    // so that no run of the next group counts.
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
