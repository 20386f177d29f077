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

// The first row of label (images, rows, width) that ends an image's truths by its class, -1, but
// has corners; -1 if there is none.
inline int64 half_padded_row(const float* label, int64 images, int64 rows, int64 width) {
  for (int64 image = 0; image < images; ++image) {
    for (int64 i = 0; i < rows; ++i) {
      const float* row = label + (image * rows + i) * width;
      if (row[0] != -1) continue;
      if (row[1] != -1 || row[2] != -1 || row[3] != -1 || row[4] != -1) return image * rows + i;
      break;
    }
  }
  return -1;
}
}  // namespace cpu

namespace cuda {
// The bytes of scratch memory that a call takes, aligned to 16 bytes.
int64 multibox_target_workspace(TargetShape shape, TargetOptions options);

void multibox_target(TargetOutputs out, TargetInputs in, TargetShape shape, TargetOptions options,
                     void* workspace, CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
