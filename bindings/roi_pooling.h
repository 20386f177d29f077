#pragma once
#include "gpu.h"
#include "roi_pooling.cuh"

namespace cvops {

// The sizes of out_grad (rois, channels, bins) and of grad (images, channels, pixels).
struct RoiPoolingGrad {
  int64 rois;
  int bins, images, channels, pixels;
};

// argmax may be null in roi_pooling: it is not written then.
void roi_pooling(const Cpu&, float* pooled, int* argmax, const float* data, const float* rois,
                 int64 num_rois, RoiPooling op);
void roi_pooling(Gpu&, float* pooled, int* argmax, const float* data, const float* rois,
                 int64 num_rois, RoiPooling op);
void roi_pooling_backward(const Cpu&, float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size);
void roi_pooling_backward(Gpu&, float* grad, const float* out_grad, const int* argmax,
                          RoiPoolingGrad size);

}  // namespace cvops
