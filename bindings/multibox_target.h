#pragma once
#include "multibox_target.cuh"

struct CUstream_st;

namespace cvops {

struct TargetInputs {
  const float *anchor, *label, *cls_pred;
};

struct TargetOutputs {
  float *loc_target, *loc_mask, *cls_target;
};

namespace cpu {
void multibox_target(TargetOutputs out, TargetInputs in, TargetShape shape, TargetOptions options);
}

namespace cuda {
// The bytes of scratch memory that a call takes, aligned to 16 bytes.
int64 multibox_target_workspace(TargetShape shape, TargetOptions options);

void multibox_target(TargetOutputs out, TargetInputs in, TargetShape shape, TargetOptions options,
                     void* workspace, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
