#pragma once
#include "box_nms.h"
#include "gpu.h"
#include "weighted_boxes_fusion.cuh"

namespace cvops {

// Candidates, the rule of the clusters, and rows per set of the result.
struct BoxFusionOptions {
  NmsOptions candidates;
  BoxFusion op;
  int rows;
};

// data (batch, num, width) -> out (batch, rows, width).
void weighted_boxes_fusion(const Cpu&, float* out, const float* data, int64 batch, int64 num,
                           const BoxFusionOptions& options);
void weighted_boxes_fusion(Gpu&, float* out, const float* data, int64 batch, int64 num,
                           const BoxFusionOptions& options);

}  // namespace cvops
