#pragma once
#include "gpu.h"
#include "rroi_align.cuh"

namespace cvops {

void rroi_align(const Cpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
                RroiAlign op);
void rroi_align(Gpu&, float* pooled, const float* data, const float* rois, int64 num_rois,
                RroiAlign op);

}  // namespace cvops
