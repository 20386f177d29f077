#pragma once
#include "common.cuh"

struct CUstream_st;

namespace cvops {

namespace cpu {
void box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center);
}

namespace cuda {
void box_iou(float* out, const float* lhs, const float* rhs, int64 num_lhs, int64 num_rhs,
             bool center, CUstream_st* stream);
}

}  // namespace cvops
