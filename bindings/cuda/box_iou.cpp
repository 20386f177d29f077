#include "box_iou.h"

#include <algorithm>

#include "box_iou.cuh"

namespace cvops {

void box_iou(Gpu& gpu, float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center) {
  if (num_lhs == 0 || num_rhs == 0) return;
  constexpr int64 threads = CVOPS_STEP(256, 32), blocks = CVOPS_STEP(4096, 6);
  const int64 across = std::min(ceil_div(num_rhs, 4), threads);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), kMaxGridY);
  const int64 row_tiles =
      std::min(ceil_div(num_lhs, threads / across), ceil_div(blocks, column_tiles));
  gpu.launch(KERNEL(box_iou), {row_tiles, column_tiles}, threads, 0, out, lhs, rhs, num_lhs,
             num_rhs, center);
}

}  // namespace cvops
