#pragma once
#include "gpu.h"
#include "multibox_detection.cuh"
#include "nms/rule.cuh"

namespace cvops {

// Predictions for `batch` images: cls_prob (batch, classes, num), loc_pred (batch, 4 num) and
// anchors (num, 4).
struct Predictions {
  const float *cls_prob, *loc_pred, *anchors;
  int64 batch, classes, num;
};

// Arguments of the op in the form that its kernels take.
struct DetectionOptions {
  bool clip;
  float threshold;
  Variances variances;
  NmsRule rule;
  bool suppresses;
  int topk;
};

void multibox_detection(const Cpu&, float* out, Predictions in, DetectionOptions options);
void multibox_detection(Gpu&, float* out, Predictions in, DetectionOptions options);

}  // namespace cvops
