#include "sort.h"

#include <algorithm>
#include <utility>

#include "sort.cuh"

namespace cvops::cuda {

// Blocks of sort_merge for all rows: several for each that runs concurrently. Most blocks have no
// keys if few of `max_keys` keys exist.
constexpr int64 kMaxMergeBlocks = CVOPS_STEP(8192, 6);

bool merges_oddly(int64 max_keys) {
  bool odd = false;
  for (int64 run = kSortTile; run < max_keys; run *= kSortWays) odd = !odd;
  return odd;
}

void sort(Gpu& gpu, uint64* to, uint64* spare, const uint64* from, const int* counts, int64 batch,
          int64 num, int64 max_keys) {
  if (merges_oddly(max_keys)) std::swap(to, spare);
  const int tile = sort_tile_of((int)max_keys);
  gpu.launch(KERNEL(sort_tiles), {batch, ceil_div(max_keys, tile)}, tile / kSortEach, 0, to, from,
             counts, num, tile);
  for (int64 run = kSortTile; run < max_keys; run *= kSortWays) {
    const int64 blocks =
        std::min<int64>(merge_blocks(max_keys, run), ceil_div(kMaxMergeBlocks, batch));
    gpu.launch(KERNEL(sort_merge), {batch, blocks}, 32 * kMergeWarps, 0, spare, to, counts, num,
               run);
    std::swap(to, spare);
  }
}

}  // namespace cvops::cuda
