#include <algorithm>

#include "box_iou.cuh"
#include "box_iou.h"
#include "launch.h"

void cvops::cuda::box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs,
                          int64 num_rhs, bool center, cudaStream_t stream) {
  if (num_lhs * num_rhs == 0) return;
  const int64 across = std::min<int64>(ceil_div(num_rhs, 4), 256);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), 65535);
  const int64 row_tiles = std::min(ceil_div(num_lhs, 256 / across), ceil_div(4096, column_tiles));
  launch("box_iou", ::box_iou, dim3((unsigned)row_tiles, (unsigned)column_tiles), 256, 0, stream,
         out, lhs, rhs, (int)num_lhs, (int)num_rhs, center);
}
