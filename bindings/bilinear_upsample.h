#pragma once
#include "common.cuh"

struct CUstream_st;

// Sizes are those of the small maps, (planes, height, width); of the large ones, a plane is
// (height * scale, width * scale). scale is in [1, 1024].
namespace cvops {

namespace cpu {
void bilinear_upsample(float* out, const float* data, int64 planes, int height, int width,
                       int scale);
void bilinear_upsample_backward(float* grad, const float* out_grad, int64 planes, int height,
                                int width, int scale);
}  // namespace cpu

namespace cuda {
void bilinear_upsample(float* out, const float* data, int64 planes, int height, int width,
                       int scale, CUstream_st* stream);
void bilinear_upsample_backward(float* grad, const float* out_grad, int64 planes, int height,
                                int width, int scale, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
