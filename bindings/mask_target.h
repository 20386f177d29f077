#pragma once
#include "gpu.h"
#include "mask_target.cuh"

namespace cvops {

// targets and weights (B, N, C, pooled_height, pooled_width). On the CPU a match out of range is an
// error if the RoI has one of the classes.
void mask_target(const Cpu&, float* targets, float* weights, MaskTargetInputs in,
                 MaskTargetShape shape, MaskTargetOptions options);
void mask_target(Gpu&, float* targets, float* weights, MaskTargetInputs in, MaskTargetShape shape,
                 MaskTargetOptions options);

}  // namespace cvops
