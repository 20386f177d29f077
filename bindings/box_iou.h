#pragma once
#include "common.cuh"
#include "gpu.h"

namespace cvops {

void box_iou(const Cpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs,
             int64 num_rhs, bool center);
void box_iou(Gpu&, float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center);

}  // namespace cvops
