#include <algorithm>

#include "box_iou.cuh"
#include "box_iou.h"
#include "launch.h"

void cvops::cuda::box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs,
                          int64 num_rhs, bool center, cudaStream_t stream) {
  if (num_lhs * num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const int64 across = std::min(ceil_div(num_rhs, 4), threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), kMostGridRows);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  launch("box_iou", ::box_iou, dim3((unsigned)row_tiles, (unsigned)column_tiles), threads, 0, stream,
         out, lhs, rhs, (int)num_lhs, (int)num_rhs, center);
}
