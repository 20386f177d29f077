#pragma once
#include "gpu.h"
#include "rotated_box.cuh"

namespace cvops {

// out (M, N), lhs (M, 5), rhs (N, 5).
void box_iou_rotated(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                     int64 num_rhs, RotatedFormat format);
void box_iou_rotated(Gpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
                     int64 num_rhs, RotatedFormat format);

}  // namespace cvops
