#pragma once
#include "common.cuh"
#include "gpu.h"

// Sizes of the small maps: (planes, height, width). A plane of the large maps has the shape (height
// * scale, width * scale). scale is in [1, 1024].
namespace cvops {

template <typename T>
void bilinear_upsample(const Cpu&, T* out, const T* data, int64 planes, int height, int width,
                       int scale);
template <typename T>
void bilinear_upsample(Gpu&, T* out, const T* data, int64 planes, int height, int width, int scale);
template <typename T>
void bilinear_upsample_backward(const Cpu&, T* grad, const T* out_grad, int64 planes, int height,
                                int width, int scale);
template <typename T>
void bilinear_upsample_backward(Gpu&, T* grad, const T* out_grad, int64 planes, int height,
                                int width, int scale);

}  // namespace cvops
