#include "box_iou.h"

#include <algorithm>

#include "box_iou.cuh"

namespace cvops {

void box_iou(Gpu& gpu, float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center) {
  if (num_lhs == 0 || num_rhs == 0) return;
  const int64 across = std::min<int64>(ceil_div(num_rhs, 4), 256);
  const int64 column_tiles = std::min<int64>(ceil_div(num_rhs, 4 * across), 65535);
  const int64 row_tiles = std::min(ceil_div(num_lhs, 256 / across), ceil_div(4096, column_tiles));
  gpu.launch(KERNEL(box_iou), {row_tiles, column_tiles}, 256, 0, out, lhs, rhs, num_lhs, num_rhs,
             center);
}

}  // namespace cvops
