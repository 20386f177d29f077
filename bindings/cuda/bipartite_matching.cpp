#include "bipartite_matching.h"

#include <algorithm>

#include "sort.h"

namespace cvops {

void bipartite_matching(Gpu& gpu, float* columns, float* rows, const float* data,
                        MatchingShape shape, MatchingOptions options) {
  const auto [batch, num_rows, num_columns] = shape;
  const int64 num = batch ? num_rows * num_columns : 0;
  const int64 num_results = std::max(batch * num_rows, batch * num_columns);
  const int64 num_counts = num ? batch : 0;
  constexpr int64 max_blocks = CVOPS_STEP(4096, 3);
  int* const counts = gpu.scratch<int>(num_counts);
  gpu.launch(KERNEL(bipartite_matching_clear), std::min(ceil_div(num_results, 256), max_blocks),
             256, 0, columns, rows, counts, batch * num_rows, batch * num_columns, num_counts);
  if (num == 0) return;
  uint64 *keys = gpu.scratch<uint64>(batch * num), *other = gpu.scratch<uint64>(batch * num);
  const int64 tiles = ceil_div(num, kMatchingTile);
  gpu.launch(KERNEL(bipartite_matching_collect), batch * tiles, 256, 0, keys, counts, data, num,
             tiles, options.threshold, options.is_ascend);
  uint64* const sorted = cuda::merges_oddly(num) ? keys : other;
  cuda::sort(gpu, sorted, sorted == keys ? other : keys, keys, counts, batch, num, num);
  int* const claims = gpu.scratch<int>(batch * (num_rows + num_columns));
  gpu.launch(KERNEL(bipartite_matching_assign), batch, kMatchingThreads, 0, columns, rows, claims,
             sorted, counts, num_rows, num_columns, options.limit(shape));
}

}  // namespace cvops
