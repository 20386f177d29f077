#pragma once
#include "gpu.h"
#include "psroi_pooling.cuh"

namespace cvops {

void psroi_pooling(const Cpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
                   Psroi op);
void psroi_pooling(Gpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
                   Psroi op);
void psroi_pooling_backward(const Cpu&, float* grad, const float* out_grad, const float* rois,
                            int64 num_rois, Psroi op);
void psroi_pooling_backward(Gpu&, float* grad, const float* out_grad, const float* rois,
                            int64 num_rois, Psroi op);

}  // namespace cvops
