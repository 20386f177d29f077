#include "box_iou_rotated.h"

#include "box_iou_rotated.cuh"

namespace cvops {

void box_iou_rotated(Gpu& gpu, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                     int64 num_rhs, RotatedFormat format) {
  if (num_lhs == 0 || num_rhs == 0) return;
  const int64 tiles = ceil_div(num_lhs, rotated_tile_rows((int)num_rhs)) *
                      ceil_div(num_rhs, rotated_tile_columns((int)num_rhs));
  gpu.launch(KERNEL(box_iou_rotated), tiles, 256, 0, out, lhs, rhs, num_lhs, num_rhs, format);
}

}  // namespace cvops
