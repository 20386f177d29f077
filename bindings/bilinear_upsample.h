#pragma once
#include "common.cuh"
#include "gpu.h"

// Sizes of the small maps: (planes, height, width). A plane of the large maps has the shape (height
// * scale, width * scale). scale is in [1, 1024].
namespace cvops {

void bilinear_upsample(const Cpu&, float* out, const float* data, int64 planes, int height,
                       int width, int scale);
void bilinear_upsample(Gpu&, float* out, const float* data, int64 planes, int height, int width,
                       int scale);
void bilinear_upsample_backward(const Cpu&, float* grad, const float* out_grad, int64 planes,
                                int height, int width, int scale);
void bilinear_upsample_backward(Gpu&, float* grad, const float* out_grad, int64 planes, int height,
                                int width, int scale);

}  // namespace cvops
