#pragma once
#include "gpu.h"
#include "multibox_target.cuh"

namespace cvops {

struct TargetInputs {
  const float *anchor, *label, *cls_pred;
};

struct TargetOutputs {
  float *loc_target, *loc_mask, *cls_target;
};

void multibox_target(const Cpu&, TargetOutputs out, TargetInputs in, TargetShape shape,
                     TargetOptions options);
void multibox_target(Gpu&, TargetOutputs out, TargetInputs in, TargetShape shape,
                     TargetOptions options);

}  // namespace cvops
