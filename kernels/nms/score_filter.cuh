// The candidates among the scores of all classes, which multiclass_nms and topk share.
#pragma once
#include "common.cuh"

namespace cvops {

// Filter of the scores of a row: above the threshold and outside [skip, skip_end).
struct ScoreFilter {
  float threshold;
  int skip, skip_end;

  template <typename T>
  CVOPS_HD bool passes(T score, int i) const {
    return score > threshold && (i < skip || i >= skip_end);
  }
};

}  // namespace cvops
