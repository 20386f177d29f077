#pragma once
#include "gpu.h"
#include "roi_align.cuh"

namespace cvops {

void roi_align(const Cpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
               RoiAlign op);
void roi_align(Gpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
               RoiAlign op);
void roi_align_backward(const Cpu&, float* grad, const float* out_grad, const float* rois,
                        int64 num_rois, RoiAlign op);
void roi_align_backward(Gpu&, float* grad, const float* out_grad, const float* rois, int64 num_rois,
                        RoiAlign op);

}  // namespace cvops
