#pragma once
#include "multibox_detection.cuh"
#include "nms_rule.cuh"

struct CUstream_st;

namespace cvops {

// The predictions for `batch` images: cls_prob (batch, classes, num), loc_pred (batch, 4 num) and
// anchors (num, 4).
struct Predictions {
  const float *cls_prob, *loc_pred, *anchors;
  int64 batch, classes, num;
};

// The arguments of the op as its kernels take them.
struct DetectionOptions {
  bool clip;
  float threshold;
  Variances variances;
  NmsRule rule;
  bool suppresses;
  int limit;
};

namespace cpu {
void multibox_detection(float* out, Predictions in, DetectionOptions options);
}

namespace cuda {
int64 multibox_detection_workspace(int64 batch, int64 num, int limit);
void multibox_detection(float* out, void* workspace, Predictions in, DetectionOptions options,
                        CUstream_st* stream);
}  // namespace cuda

}  // namespace cvops
