#pragma once
#include "deformable_psroi_pooling.cuh"
#include "gpu.h"

namespace cvops {

// trans is null if the bins have no offsets.
void deformable_psroi_pooling(const Cpu&, float* pooled, const float* data, const float* rois,
                              const float* trans, int64 num_rois, DeformablePsroi op);
void deformable_psroi_pooling(Gpu&, float* pooled, const float* data, const float* rois,
                              const float* trans, int64 num_rois, DeformablePsroi op);
// trans_grad is null if trans is.
void deformable_psroi_pooling_backward(const Cpu&, float* grad, float* trans_grad,
                                       const float* out_grad, const float* data, const float* rois,
                                       const float* trans, int64 num_rois, DeformablePsroi op);
void deformable_psroi_pooling_backward(Gpu&, float* grad, float* trans_grad, const float* out_grad,
                                       const float* data, const float* rois, const float* trans,
                                       int64 num_rois, DeformablePsroi op);

}  // namespace cvops
