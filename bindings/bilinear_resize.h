#pragma once
#include "bilinear_resize.cuh"
#include "gpu.h"

// A plane is one channel of one image. The maps have at least one pixel before and after.
namespace cvops {

void bilinear_resize(const Cpu&, float* out, const float* data, int64 planes, BilinearResize op);
void bilinear_resize(Gpu&, float* out, const float* data, int64 planes, BilinearResize op);
void bilinear_resize_backward(const Cpu&, float* grad, const float* out_grad, int64 planes,
                              BilinearResize op);
void bilinear_resize_backward(Gpu&, float* grad, const float* out_grad, int64 planes,
                              BilinearResize op);

}  // namespace cvops
