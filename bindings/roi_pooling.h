#pragma once
#include "gpu.h"
#include "roi_pooling.cuh"

namespace cvops {

// Sizes of out_grad (rois, channels, bins) and grad (images, channels, pixels).
struct RoiPoolingGrad {
  int64 rois;
  int bins, images, channels, pixels;
};

// argmax may be null in roi_pooling, which then does not write it.
template <typename T>
void roi_pooling(const Cpu&, T* pooled, int* argmax, const T* data, const T* rois, int64 num_rois,
                 RoiPooling op);
template <typename T>
void roi_pooling(Gpu&, T* pooled, int* argmax, const T* data, const T* rois, int64 num_rois,
                 RoiPooling op);
template <typename T>
void roi_pooling_backward(const Cpu&, T* grad, const T* out_grad, const int* argmax,
                          RoiPoolingGrad size);
template <typename T>
void roi_pooling_backward(Gpu&, T* grad, const T* out_grad, const int* argmax, RoiPoolingGrad size);

}  // namespace cvops
