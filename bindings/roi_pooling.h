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
void roi_pooling(const Cpu&, float* pooled, int* argmax, const float* data, const float* rois,
                 int64 num_rois, RoiPooling op);
void roi_pooling(Gpu&, float* pooled, int* argmax, const float* data, const float* rois,
                 int64 num_rois, RoiPooling op);
void roi_pooling_backward(const Cpu&, float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size);
void roi_pooling_backward(Gpu&, float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size);

}  // namespace cvops
